//! What stands behind every chain: one thread that answers small requests, swallows bytes or pours them out, as the
//! first byte of a connection says.

use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// A request, as the load sends it.
pub(crate) const REQUEST: &[u8] =
    b"GET /1k HTTP/1.1\r\nHost: echo.shop\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";
/// Asks for bytes to be swallowed: everything after it.
pub(crate) const SINK: &[u8] = b"S";
/// Asks for bytes without end.
pub(crate) const SOURCE: &[u8] = b"D";
/// How much is moved at a time.
pub(crate) const CHUNK: usize = 256 * 1024;

/// The answer to a request: 1 KiB under a small head.
pub(crate) fn response() -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: application/octet-stream\r\n\
                Content-Length: 1024\r\nConnection: keep-alive\r\n\r\n";
    let mut response = head.as_bytes().to_vec();
    response.resize(head.len() + 1024, b'x');
    response
}

/// The backend; dropping it ends it with every connection.
#[derive(Debug)]
pub(crate) struct Backend {
    /// The bytes swallowed so far.
    pub(crate) swallowed: Arc<AtomicU64>,
    _stop: oneshot::Sender<()>,
}

impl Backend {
    /// Listens, and serves from a thread of its own.
    ///
    /// # Errors
    /// When the address can not be listened on.
    pub(crate) fn start(address: SocketAddr) -> Result<Self> {
        let listener = std::net::TcpListener::bind(address)
            .with_context(|| format!("the backend can not listen at {address}"))?;
        listener.set_nonblocking(true).context("no non-blocking listener")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("no runtime for the backend")?;
        let (stop, stopped) = oneshot::channel::<()>();
        let swallowed = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&swallowed);
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    result = accept(listener, counter) => if let Err(error) = result {
                        eprintln!("the backend ended: {error:#}");
                    },
                    _ = stopped => {}
                }
            });
        });
        Ok(Backend { swallowed, _stop: stop })
    }
}

async fn accept(listener: std::net::TcpListener, swallowed: Arc<AtomicU64>) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let response: Arc<[u8]> = response().into();
    loop {
        let (stream, _) = listener.accept().await?;
        let (response, swallowed) = (Arc::clone(&response), Arc::clone(&swallowed));
        // How a connection ends is seen by the load, which counts.
        tokio::spawn(async move { serve(stream, &response, &swallowed).await });
    }
}

async fn serve(mut stream: TcpStream, response: &[u8], swallowed: &AtomicU64) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0u8; 1024];
    let mut have = 0;
    loop {
        let n = stream.read(&mut request[have..]).await?;
        if n == 0 {
            return Ok(());
        }
        have += n;
        match request[0] {
            b'S' => return swallow(stream, swallowed).await,
            b'D' => return pour(stream).await,
            _ if have >= REQUEST.len() => {
                if !request[..have].ends_with(b"\r\n\r\n") {
                    return Err(std::io::ErrorKind::InvalidData.into());
                }
                have = 0;
                stream.write_all(response).await?;
            }
            _ => {}
        }
    }
}

async fn swallow(mut stream: TcpStream, swallowed: &AtomicU64) -> std::io::Result<()> {
    let mut chunk = vec![0u8; CHUNK];
    loop {
        let n = stream.read(&mut chunk).await?;
        if n == 0 {
            return Ok(());
        }
        swallowed.fetch_add(n as u64, Ordering::Relaxed);
    }
}

async fn pour(mut stream: TcpStream) -> std::io::Result<()> {
    let chunk = vec![b'x'; CHUNK];
    loop {
        stream.write_all(&chunk).await?;
    }
}

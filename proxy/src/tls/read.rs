//! Reading a ClientHello from a socket, within bounds of size and time.

use crate::tls::HANDSHAKE;
use crate::tls::hello::{Alert, ClientHello, HelloError, MAX_HELLO, parse};
use crate::wire::{Filled, Lent};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Room for a usual ClientHello.
const FIRST_READ: usize = 1024;

/// A connection that did not begin with a ClientHello. The peer is to blame.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The bytes are something else.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// It did not come in 5 s.
    #[error("no whole ClientHello within 5 s")]
    TooSlow,
    /// The peer closed first.
    #[error("closed before a whole ClientHello")]
    Closed,
    /// The socket broke.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ReadError {
    /// One word for metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            ReadError::Hello(_) => "not_a_client_hello",
            ReadError::TooSlow => "client_hello_timeout",
            ReadError::Closed => "closed_early",
            ReadError::Io(_) => "broken",
        }
    }
}

/// A ClientHello with its bytes, and whatever came in the same read.
#[derive(Debug)]
pub(crate) struct Hello {
    /// What it asks for.
    pub(crate) asks: ClientHello,
    /// As it came.
    pub(crate) bytes: Filled,
}

/// Reads one. What is held meanwhile grows with what came, so that a slow peer costs little.
///
/// # Errors
/// When it does not come, or is something else.
pub(crate) async fn hello(stream: &mut TcpStream) -> Result<Hello, ReadError> {
    timeout(HANDSHAKE, read(stream)).await.map_err(|_| ReadError::TooSlow)?
}

async fn read(stream: &mut TcpStream) -> Result<Hello, ReadError> {
    stream.readable().await?;
    let mut have = Vec::with_capacity(FIRST_READ);
    loop {
        if have.len() == have.capacity() {
            have.reserve(have.len().min(MAX_HELLO));
        }
        if stream.read_buf(&mut have).await? == 0 {
            return Err(ReadError::Closed);
        }
        // Refuses anything as long as a lent buffer, so the copy below is of all of it.
        if let Some(asks) = parse(&have)? {
            let mut buffer = Lent::take();
            let n = have.len().min(buffer.len());
            buffer[..n].copy_from_slice(&have[..n]);
            return Ok(Hello { asks, bytes: Filled::new(buffer, n) });
        }
    }
}

/// Tells the peer why, in the clear, and closes.
pub(crate) async fn refuse(mut stream: TcpStream, alert: Alert) {
    let tell = async {
        stream.write_all(&alert.record()).await?;
        stream.shutdown().await?;
        // What the peer still sends is read away for a moment, else the kernel resets and the alert may be lost.
        let mut rest = [0u8; 512];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    // The connection is over either way.
    let _ = timeout(Duration::from_millis(500), tell).await;
}

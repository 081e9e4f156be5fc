//! Channels to a server of ours.

use crate::acceptor::wall_clock_reaches;
use crate::tls;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// The most addresses that one channel tries.
pub const MAX_ADDRESSES: usize = 16;

/// A channel that was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// There are no addresses or too many.
    #[error("a channel needs 1 to 16 addresses, not {0}")]
    Count(usize),
    /// An address is not HOST:PORT.
    #[error("{0:?} is not an address of the form HOST:PORT")]
    BadAddress(String),
}

/// How a channel dials and stays alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialOptions {
    /// How long connecting to one address may take, handshake included.
    pub connect_timeout: Duration,
    /// How often a silent server is asked whether it lives.
    pub keepalive: Duration,
    /// How long it may take to answer.
    pub keepalive_timeout: Duration,
    /// How long a call may take until its response begins; `None` for as long as the caller waits.
    pub timeout: Option<Duration>,
    /// The mark on its sockets, by which a firewall tells them from others (needs CAP_NET_ADMIN).
    pub mark: Option<u32>,
}

impl Default for DialOptions {
    fn default() -> Self {
        DialOptions {
            connect_timeout: Duration::from_secs(2),
            keepalive: Duration::from_secs(5),
            keepalive_timeout: Duration::from_secs(5),
            timeout: None,
            mark: None,
        }
    }
}

#[derive(Debug)]
struct Target {
    address: String,
    name: ServerName<'static>,
}

/// A gRPC channel to any one of the addresses (HOST:PORT each, all of servers that the configuration's policy accepts).
///
/// It dials at the first call and again when its connection was lost, beginning with the address that last worked; it
/// does not dial in the background, and callers pace their own retries. A connection ends with its server's
/// certificate.
///
/// # Errors
/// When there are no addresses, too many, or one is malformed.
pub fn channel(
    addresses: &[String],
    tls: Arc<ClientConfig>,
    options: &DialOptions,
) -> Result<Channel, ChannelError> {
    if addresses.is_empty() || addresses.len() > MAX_ADDRESSES {
        return Err(ChannelError::Count(addresses.len()));
    }
    let targets = addresses.iter().map(|a| target(a)).collect::<Result<Vec<_>, _>>()?;
    // Only to be written in requests: the connector below decides where to go, and TLS who is there. tonic would lay
    // its own TLS over an https address where that feature of it is on.
    let mut endpoint = Endpoint::from_static("http://sealane.internal")
        .http2_keep_alive_interval(options.keepalive)
        .keep_alive_timeout(options.keepalive_timeout)
        .keep_alive_while_idle(true)
        .http2_max_header_list_size(16 * 1024)
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024);
    if let Some(timeout) = options.timeout {
        endpoint = endpoint.timeout(timeout);
    }
    let dialler = Arc::new(Dialler {
        targets,
        last_good: AtomicUsize::new(0),
        tls: TlsConnector::from(tls),
        connect_timeout: options.connect_timeout,
        silence: options.keepalive + options.keepalive_timeout,
        mark: options.mark,
    });
    let connector = tower::service_fn(move |_: Uri| {
        let dialler = Arc::clone(&dialler);
        async move { dialler.dial().await.map(TokioIo::new) }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

fn target(address: &str) -> Result<Target, ChannelError> {
    let bad = || ChannelError::BadAddress(address.chars().take(80).collect());
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    port.parse::<u16>().map_err(|_| bad())?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let name = ServerName::try_from(host.to_owned()).map_err(|_| bad())?;
    Ok(Target { address: address.to_owned(), name })
}

struct Dialler {
    targets: Vec<Target>,
    last_good: AtomicUsize,
    tls: TlsConnector,
    connect_timeout: Duration,
    silence: Duration,
    mark: Option<u32>,
}

impl Dialler {
    async fn dial(&self) -> io::Result<Expiring> {
        let first = self.last_good.load(Ordering::Relaxed);
        let mut last = io::Error::other("no address to dial");
        for at in (0..self.targets.len()).map(|n| (first + n) % self.targets.len()) {
            let target = &self.targets[at];
            match tokio::time::timeout(self.connect_timeout, self.dial_one(target)).await {
                Ok(Ok(stream)) => {
                    self.last_good.store(at, Ordering::Relaxed);
                    return Ok(stream);
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
            tracing::debug!(address = target.address, error = %last, "can not connect");
        }
        Err(last)
    }

    async fn dial_one(&self, target: &Target) -> io::Result<Expiring> {
        let stream = connect(&target.address, self.mark).await?;
        crate::acceptor::tune(&stream, self.silence)?;
        let handshake = self.tls.connect(target.name.clone(), stream).await;
        // What is above passes the text on and not the cause: the reason must be in it, as our verifier gave it.
        let stream = handshake.map_err(|e| io::Error::new(e.kind(), super::causes(&e)))?;
        Ok(Expiring::new(stream))
    }
}

/// Connects to the first of a name's addresses that answers.
async fn connect(address: &str, mark: Option<u32>) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no addresses");
    for address in tokio::net::lookup_host(address).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if let Some(mark) = mark {
            socket2::SockRef::from(&socket).set_mark(mark)?;
        }
        match socket.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A stream that fails once its server's certificate has ended.
struct Expiring {
    stream: TlsStream<TcpStream>,
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Expiring {
    fn new(stream: TlsStream<TcpStream>) -> Self {
        let end: Pin<Box<dyn Future<Output = ()> + Send>> = match tls::peer(stream.get_ref().1) {
            Some(peer) => Box::pin(wall_clock_reaches(peer.not_after)),
            // A server without a certificate did not finish a handshake with us.
            None => Box::pin(std::future::ready(())),
        };
        Expiring { stream, end }
    }
}

impl AsyncRead for Expiring {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.end.as_mut().poll(cx).is_ready() {
            self.end = Box::pin(std::future::ready(()));
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the server's certificate expired",
            )));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Expiring {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

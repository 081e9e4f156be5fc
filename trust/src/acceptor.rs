//! The bounded TLS acceptor under every service of ours.
//!
//! What a stranger can make us hold is bounded, and never at the cost of others: a handshake has 5 s; when too many are
//! in flight, or too many connections without a certificate are open, the OLDEST one of the source that holds the most
//! is dropped, so that a flood evicts itself and a prompt client gets through. Connections of verified peers are never
//! evicted; beyond their bounds new ones are refused. An error of accept never ends the loop.
//!
//! A connection ends when its peer's certificate does (or the peer is revoked), however long its streams are.

mod connection;
mod limits;
mod registry;

pub use connection::{Accepted, Peer};
pub(crate) use connection::{tune, wall_clock_reaches};
pub use limits::Limits;
pub use registry::source;

use crate::revocation::Revocations;
use connection::Context;
use registry::Registry;
use rustls::ServerConfig;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A listener with all that is needed to serve on it.
#[derive(Debug)]
pub struct Acceptor {
    /// Where connections come from.
    pub listener: TcpListener,
    /// Made by [`crate::tls::server_config`].
    pub tls: Arc<ServerConfig>,
    /// The bounds.
    pub limits: Limits,
    /// Which verified peers are no longer welcome.
    pub revocations: Revocations,
    /// When cancelled, accepting ends and open connections are drained.
    pub shutdown: CancellationToken,
}

impl Acceptor {
    /// Serves each connection with the handler, in a task of its own, until shutdown; then waits for the open ones, at
    /// most [`Limits::drain`], and drops the rest.
    ///
    /// The handler's future is dropped when its connection must end; it is told to finish by [`Accepted::drain`].
    pub async fn run<H, F>(self, handler: H)
    where
        H: Fn(Accepted) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let Acceptor { listener, tls, limits, revocations, shutdown } = self;
        let registry = Registry::new(&limits);
        let (drain, kill) = (CancellationToken::new(), CancellationToken::new());
        let context = Arc::new(Context {
            tls: tokio_rustls::TlsAcceptor::from(tls),
            drain: drain.clone(),
            kill: kill.clone(),
            limits,
            revocations,
            registry,
        });
        let tasks = TaskTracker::new();
        loop {
            let (stream, remote) = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                accepted = accept(&listener) => accepted,
            };
            let slot = context.registry.enter(remote.ip());
            tasks.spawn(connection::serve(Arc::clone(&context), stream, remote, slot, handler.clone()));
        }
        drop(listener);
        drain.cancel();
        tasks.close();
        if tokio::time::timeout(context.limits.drain, tasks.wait()).await.is_err() {
            tracing::info!(open = tasks.len(), "connections did not finish in time and are dropped");
            kill.cancel();
            tasks.wait().await;
        }
    }
}

/// Connections that the kernel holds for us before they are accepted: when a process starts again, all its peers come
/// at once, and one that finds the queue full waits for a second.
const BACKLOG: u32 = 4096;

/// Binds a listener.
///
/// # Errors
/// When the address is taken or not ours.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The next connection, whatever happens in between.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut pause = Duration::from_millis(5);
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            // The peer went away before we took it: the next one may be fine.
            Err(error) if is_the_peers(&error) => {}
            // Out of descriptors or memory: open connections must end first, so there is nothing to hurry for.
            Err(error) => {
                tracing::warn!(%error, "can not accept a connection");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }
}

fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests;

//! Accepting: whatever happens to one connection, the next is taken.

pub(crate) mod explicit;
pub(crate) mod orig_dst;

use crate::drain::Drain;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections that the kernel holds for us before they are accepted.
const BACKLOG: u32 = 4096;

/// Binds a listener.
///
/// # Errors
/// When the address is taken or not ours.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts until the proxy drains; then the port is closed.
pub(crate) async fn accept(listener: TcpListener, drain: Drain, serve: impl Fn(TcpStream, SocketAddr)) {
    let mut pause = Duration::from_millis(5);
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain.began() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                pause = Duration::from_millis(5);
                if crate::wire::tune(&stream).is_ok() {
                    serve(stream, from);
                }
            }
            // The peer went away before we took it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "can not accept a connection");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }
}

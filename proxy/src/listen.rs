//! Accepting: whatever happens to one connection, the next is taken.

pub(crate) mod explicit;
pub(crate) mod orig_dst;

use crate::drain::Drain;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

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

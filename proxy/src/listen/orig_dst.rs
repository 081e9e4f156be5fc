//! Transparent capture: connections that the kernel redirected here, with where they were going (SO_ORIGINAL_DST).
//!
//! The redirect rule must leave out what the proxy itself sends, or connections go round for ever: either by its user
//! (`meta skuid`), or by the mark that the proxy sets on its sockets where it may (`meta mark 0x5ea1 return`).
//! A connection that was made to the listener itself has nowhere else to go and is refused.

use crate::listen::accept;
use crate::listen::explicit::ImportPort;
use crate::role::Context;
use crate::role::sidecar::outbound;
use crate::splice::pass;
use crate::telemetry::{Direction, Route, Verdict};
use crate::tls::client::connect;
use socket2::SockRef;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};

/// The mark on the proxy's own sockets.
pub(crate) const MARK: u32 = 0x5ea1;

/// Whether this process may mark its sockets (CAP_NET_ADMIN).
pub(crate) fn may_mark() -> bool {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    socket.and_then(|s| s.set_mark(MARK)).is_ok()
}

/// Serves captured connections until the proxy drains.
pub(crate) async fn serve(context: Arc<Context>, listener: TcpListener) {
    let drain = context.drain.clone();
    accept(listener, drain, |stream, from| {
        context.drain.serve(captured(Arc::clone(&context), stream, from));
    })
    .await;
}

/// Where a captured connection goes.
#[derive(Debug, PartialEq, Eq)]
enum Going {
    Import(ImportPort),
    Elsewhere(SocketAddr),
    /// It was made to us.
    Nowhere,
}

async fn captured(context: Arc<Context>, stream: TcpStream, from: SocketAddr) {
    match going(&context, original(&stream)) {
        Going::Import(import) => outbound::serve(context, stream, from, import).await,
        Going::Elsewhere(to) => elsewhere(context, stream, from, to).await,
        Going::Nowhere => {
            context.metrics.turned_away("made_to_the_capture_listener");
            crate::tcp::reset_on_drop(&stream);
        }
    }
}

/// Where the connection was going before the kernel redirected it; `None` when it was not redirected.
fn original(stream: &TcpStream) -> Option<SocketAddr> {
    let local = stream.local_addr().ok()?;
    let socket = SockRef::from(stream);
    let original = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    let original = original.ok()?.as_socket()?;
    (original != local).then_some(original)
}

fn going(context: &Context, original: Option<SocketAddr>) -> Going {
    let Some(to) = original.filter(|to| !context.is_own(*to)) else { return Going::Nowhere };
    match context.current.load().import_at(to) {
        Some(import) => Going::Import(ImportPort { service: import.service.clone(), port: to.port() }),
        None => Going::Elsewhere(to),
    }
}

/// No import: passed on untouched.
async fn elsewhere(context: Arc<Context>, mut stream: TcpStream, from: SocketAddr, to: SocketAddr) {
    let connection = context.connections.begin(Direction::Passthrough, None, from);
    connection.note(|facts| {
        facts.upstream = Some(to.to_string());
        facts.route = Some(Route::Direct);
    });
    let mut far = match connect(to, context.mark).await {
        Ok(far) => far,
        Err(error) => {
            crate::tcp::reset_on_drop(&stream);
            return connection.end(Verdict::Failed, error.to_string());
        }
    };
    match pass(&mut stream, &mut far, connection.traffic(), &context.pipes, || ()).await {
        Ok(()) => connection.end(Verdict::Closed, ""),
        Err(error) => {
            crate::tcp::reset_on_drop(&stream);
            crate::tcp::reset_on_drop(&far);
            connection.end(Verdict::Failed, error.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::tests::context;

    #[tokio::test]
    async fn what_was_made_to_us_goes_nowhere_and_the_rest_goes_on() {
        let own: SocketAddr = "127.0.0.1:15001".parse().unwrap();
        let other: SocketAddr = "127.0.0.1:80".parse().unwrap();
        let context = context(vec![own]);
        assert_eq!(going(&context, None), Going::Nowhere);
        assert_eq!(going(&context, Some(own)), Going::Nowhere);
        assert_eq!(going(&context, Some(other)), Going::Elsewhere(other));
    }

    #[tokio::test]
    async fn a_connection_that_was_not_redirected_has_no_original() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert_eq!(original(&stream), None);
        drop(client);
    }
}

//! The proxy beside one application: out to imports, and in from those who import what it serves.

pub(crate) mod outbound;

use crate::gate::Gate;
use crate::listen::accept;
use crate::role::{Context, inbound};
use crate::route::{Probes, Routed, route};
use crate::telemetry::{Direction, Verdict};
use crate::tls::read::{Hello, refuse};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};

/// Serves the mTLS port until the proxy drains.
pub(crate) async fn serve(context: Arc<Context>, gate: Arc<Gate>, listener: TcpListener) {
    let drain = context.drain.clone();
    accept(listener, drain, |stream, from| {
        context.drain.serve(connection(Arc::clone(&context), Arc::clone(&gate), stream, from));
    })
    .await;
}

/// The life of an inbound connection: door, ClientHello, route, application, handshake, bytes.
pub(crate) async fn connection(context: Arc<Context>, gate: Arc<Gate>, stream: TcpStream, from: SocketAddr) {
    let Some((pass, stream, hello)) = inbound::named(&context, &gate, stream, from).await else { return };
    let snapshot = context.current.load();
    let name = hello.asks.server_name.as_deref();
    match route(&snapshot, name, Probes::Refused) {
        Ok(Routed::Service(service, places)) => {
            inbound::terminate(&context, &pass, inbound::Arrived { stream, hello, from }, &service, places)
                .await;
        }
        Ok(Routed::Probe) => refuse(stream, crate::tls::hello::Alert::UnrecognizedName).await,
        Err(lost) => turned_back(&context, Direction::Inbound, stream, hello, from, &lost).await,
    }
}

/// A name that leads nowhere: recorded, and the peer is told.
pub(crate) async fn turned_back(
    context: &Context,
    direction: Direction,
    stream: TcpStream,
    hello: Hello,
    from: SocketAddr,
    lost: &crate::route::Lost,
) {
    let connection = context.connections.begin(direction, lost.service(), from);
    connection.note(|facts| facts.sni.clone_from(&hello.asks.server_name));
    drop(hello);
    connection.end(Verdict::Refused, lost.to_string());
    refuse(stream, lost.alert()).await;
}

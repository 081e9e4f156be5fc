//! The way into a cluster from other networks: by the server name, without decrypting.
//!
//! It can not know who is calling (TLS 1.3 hides the client's certificate), so it leads only to its own cluster's
//! exports: to an endpoint's inbound proxy, which admits or refuses; for an endpoint without one the gateway itself
//! terminates, under the gateway identity. Never to another gateway, another cluster or an application's port unasked.

use crate::balance::{Standing, now_ms};
use crate::gate::{Gate, Pass};
use crate::listen::accept;
use crate::pick::{self, pick_place};
use crate::role::Context;
use crate::role::inbound::{self, Arrived};
use crate::role::sidecar::turned_back;
use crate::route::{Probes, Routed, route};
use crate::snapshot::{Inbound, Place, Snapshot};
use crate::splice::pass as pass_bytes;
use crate::tcp::reset_on_drop;
use crate::telemetry::{Direction, Route, Verdict};
use crate::tls;
use crate::tls::hello::Alert;
use crate::tls::read::refuse;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// How long a peer that probed may take to close.
const PROBE_CLOSE: Duration = Duration::from_secs(2);

/// Serves the east-west port until the proxy drains.
pub(crate) async fn serve(context: Arc<Context>, gate: Arc<Gate>, listener: TcpListener) {
    let drain = context.drain.clone();
    accept(listener, drain, |stream, from| {
        context.drain.serve(connection(Arc::clone(&context), Arc::clone(&gate), stream, from));
    })
    .await;
}

/// The life of a connection: door, ClientHello, route, endpoint, bytes.
async fn connection(context: Arc<Context>, gate: Arc<Gate>, stream: TcpStream, from: SocketAddr) {
    let Some((pass, stream, hello)) = inbound::named(&context, &gate, stream, from).await else { return };
    let snapshot = context.current.load();
    let name = hello.asks.server_name.as_deref();
    match route(&snapshot, name, Probes::Answered) {
        Ok(Routed::Service(service, places)) => {
            lead(&context, &pass, Arrived { stream, hello, from }, &service, places).await;
        }
        Ok(Routed::Probe) => probed(&context, &pass, Arrived { stream, hello, from }, &snapshot).await,
        Err(lost) => turned_back(&context, Direction::Gateway, stream, hello, from, &lost).await,
    }
}

/// To an inbound proxy where the chosen endpoint has one, else to the application through ourselves.
async fn lead(context: &Context, pass: &Pass, arrived: Arrived, service: &Inbound, places: Vec<Arc<Place>>) {
    let (proxied, bare): (Vec<_>, Vec<_>) = places.into_iter().partition(|p| p.inbound_port.is_some());
    if proxied.is_empty() || (!bare.is_empty() && chooses_bare(&proxied, &bare)) {
        return inbound::terminate(context, pass, arrived, service, bare).await;
    }
    through(context, pass, arrived, service, &proxied).await;
}

/// Endpoints with and without a proxy share the load as if they were alike.
fn chooses_bare(proxied: &[Arc<Place>], bare: &[Arc<Place>]) -> bool {
    let now = now_ms();
    let seen: Vec<pick::Place> = (proxied.iter().chain(bare))
        .map(|p| pick::Place {
            standing: p.health.standing(now),
            load: p.load.load(Ordering::Relaxed),
            tried: false,
        })
        .collect();
    let usable = |place: &pick::Place| place.standing != Standing::Ejected;
    pick_place(&seen, rand::random()).is_some_and(|at| at >= proxied.len() && usable(&seen[at]))
}

async fn through(context: &Context, pass: &Pass, arrived: Arrived, service: &Inbound, places: &[Arc<Place>]) {
    let Arrived { mut stream, hello, from } = arrived;
    let connection = context.connections.begin(Direction::Gateway, Some(&service.service), from);
    connection.note(|facts| {
        facts.sni.clone_from(&hello.asks.server_name);
        facts.route = Some(Route::Spliced);
    });
    // Only places with an inbound proxy come here; a port 0 could not be dialled anyway.
    let proxy = |place: &Place| place.inbound_proxy().unwrap_or(SocketAddr::new(place.address, 0));
    let (mut far, _load) = match inbound::reach(context, places, proxy).await {
        Ok((far, place, load)) => {
            connection.note(|facts| facts.upstream = Some(proxy(place).to_string()));
            (far, load)
        }
        Err(why) => {
            connection.end(Verdict::Failed, format!("no inbound proxy answers: {why}"));
            return refuse(stream, Alert::InternalError).await;
        }
    };
    let passing = async {
        far.write_all(hello.bytes.rest()).await?;
        connection.traffic().sent(hello.bytes.rest().len());
        drop(hello);
        // A ClientHello can be said by anybody, for ever; only a handshake that goes on is worth a place. One that only
        // seems to is ended by the inbound proxy, within 5 s at most.
        let goes_on = || pass.settle();
        pass_bytes(&mut stream, &mut far, connection.traffic(), &context.pipes, goes_on).await
    };
    let passed = tokio::select! {
        passed = passing => passed,
        error = inbound::evicted(context, pass) => Err(error),
    };
    match passed {
        Ok(()) => connection.end(Verdict::Closed, ""),
        Err(error) => {
            reset_on_drop(&stream);
            reset_on_drop(&far);
            connection.end(Verdict::Failed, error.to_string());
        }
    }
}

/// A peer asks whether we live: the handshake is the answer.
async fn probed(context: &Context, pass: &Pass, arrived: Arrived, snapshot: &Snapshot) {
    let Arrived { stream, hello, from } = arrived;
    let connection = context.connections.begin(Direction::Probe, None, from);
    connection.note(|facts| facts.sni.clone_from(&hello.asks.server_name));
    let Some(tls) = snapshot.probe_tls.clone() else {
        connection.end(Verdict::Refused, "no configuration yet");
        return refuse(stream, Alert::InternalError).await;
    };
    let handshake = tokio::select! {
        handshake = tls::server::finish(stream, hello.bytes, tls) => handshake,
        error = inbound::evicted(context, pass) => Err(error),
    };
    match handshake {
        Ok(mut stream) => {
            inbound::identify(context, &stream, &connection);
            // It asked nothing else; how it closes does not matter.
            let _ = timeout(PROBE_CLOSE, stream.shutdown()).await;
            connection.end(Verdict::Closed, "");
        }
        Err(error) => connection.end(Verdict::Refused, format!("handshake: {}", tls::why(&error))),
    }
}

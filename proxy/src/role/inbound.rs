//! The stages of a connection that a peer opened: shared by sidecars and by gateways that terminate.

use crate::balance::{Standing, now_ms};
use crate::connections::Connection;
use crate::gate::{Gate, Pass};
use crate::pick::{self, pick_place};
use crate::role::Context;
use crate::snapshot::{Inbound, Peer, Place};
use crate::tcp::{Broken, Side, relay, reset_on_drop};
use crate::telemetry::{Direction, Route, Verdict};
use crate::tls::hello::Alert;
use crate::tls::read::{Hello, ReadError, refuse};
use crate::tls::{self, ALPN, ServerStream};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::net::TcpStream;

/// The most places that one connection tries.
const MAX_ATTEMPTS: usize = 4;

/// A connection whose ClientHello was read.
#[derive(Debug)]
pub(crate) struct Arrived {
    /// The socket.
    pub(crate) stream: TcpStream,
    /// What it said.
    pub(crate) hello: Hello,
    /// Where it comes from.
    pub(crate) from: SocketAddr,
}

/// Lets a connection in and reads what it asks for; `None` when it was turned away.
pub(crate) async fn named(
    context: &Context,
    gate: &Arc<Gate>,
    mut stream: TcpStream,
    from: SocketAddr,
) -> Option<(Pass, TcpStream, Hello)> {
    let pass = match gate.enter(from.ip()) {
        Ok(pass) => pass,
        Err(closed) => {
            context.metrics.turned_away(closed.reason());
            reset_on_drop(&stream);
            return None;
        }
    };
    let read = tokio::select! {
        read = tls::read::hello(&mut stream) => read,
        _ = evicted(context, &pass) => {
            reset_on_drop(&stream);
            return None;
        }
    };
    let alert = match read {
        Ok(hello) if !hello.asks.tls13 => Alert::ProtocolVersion,
        Ok(hello) if !hello.asks.offers(ALPN) => Alert::NoApplicationProtocol,
        Ok(hello) => return Some((pass, stream, hello)),
        Err(error) => {
            tracing::debug!(%from, %error, "no ClientHello");
            context.metrics.turned_away(error.reason());
            if matches!(error, ReadError::Hello(_)) {
                refuse(stream, Alert::DecodeError).await;
            }
            return None;
        }
    };
    context.metrics.turned_away("not_our_protocol");
    refuse(stream, alert).await;
    None
}

/// Waits until a connection must make room for others.
pub(crate) async fn evicted(context: &Context, pass: &Pass) -> io::Error {
    pass.evicted().await;
    context.metrics.turned_away("evicted");
    io::Error::other("evicted by a flood of its own source")
}

/// Tries places until one answers. Its load counts while the guard lives.
pub(crate) async fn reach<'a>(
    context: &Context,
    places: &'a [Arc<Place>],
    address: impl Fn(&Place) -> SocketAddr,
) -> Result<(TcpStream, &'a Arc<Place>, Load), String> {
    let mut tried = vec![false; places.len()];
    let mut reasons = Vec::new();
    for _ in 0..MAX_ATTEMPTS {
        let now = now_ms();
        let seen: Vec<pick::Place> = (places.iter().zip(&tried))
            .map(|(place, tried)| pick::Place {
                standing: place.health.standing(now),
                load: place.load.load(Ordering::Relaxed),
                tried: *tried,
            })
            .collect();
        let Some(at) = pick_place(&seen, rand::random()) else { break };
        let place = &places[at];
        tried[at] = true;
        if seen[at].standing == Standing::HalfOpen {
            // Whoever holds the trial, this one goes there as well: it was the best that is left.
            let _ = place.health.claim_trial(now);
        }
        let to = address(place);
        if context.is_own(to) {
            reasons.push(format!("{to} is this proxy itself"));
            continue;
        }
        match tls::client::connect(to, context.mark).await {
            Ok(stream) => {
                place.health.served();
                return Ok((stream, place, Load::on(place)));
            }
            Err(error) => {
                if place.health.failed(now_ms()) {
                    context.metrics.ejections.inc();
                    tracing::info!(endpoint = %place.endpoint, address = %to, %error, "endpoint ejected");
                }
                reasons.push(format!("{to}: {error}"));
            }
        }
    }
    Err(reasons.join("; "))
}

/// One connection on a place.
#[derive(Debug)]
pub(crate) struct Load(Arc<std::sync::atomic::AtomicU32>);

impl Load {
    fn on(place: &Place) -> Self {
        place.load.fetch_add(1, Ordering::Relaxed);
        Load(Arc::clone(&place.load))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Ends a connection here: the application is dialled first, then the handshake is finished, so that a dead
/// application is a failed handshake to the caller, who can go elsewhere.
pub(crate) async fn terminate(
    context: &Context,
    pass: &Pass,
    arrived: Arrived,
    service: &Inbound,
    places: Vec<Arc<Place>>,
) {
    let Arrived { stream, hello, from } = arrived;
    let connection = context.connections.begin(Direction::Inbound, Some(&service.service), from);
    connection.note(|facts| {
        facts.sni.clone_from(&hello.asks.server_name);
        facts.route = Some(Route::Terminated);
    });
    let (mut application, load) = match reach(context, &places, Place::application).await {
        Ok((application, place, load)) => {
            connection.note(|facts| facts.upstream = Some(place.application().to_string()));
            (application, load)
        }
        Err(why) => {
            connection.end(Verdict::Failed, format!("the application does not answer: {why}"));
            return refuse(stream, Alert::InternalError).await;
        }
    };
    let handshake = tokio::select! {
        handshake = tls::server::finish(stream, hello.bytes, Arc::clone(&service.tls)) => handshake,
        error = evicted(context, pass) => Err(error),
    };
    let mut stream = match handshake {
        Ok(stream) => stream,
        Err(error) => return connection.end(Verdict::Refused, format!("handshake: {}", tls::why(&error))),
    };
    pass.settle();
    match identify(context, &stream, &connection) {
        Some(peer) => carry(&mut application, &mut stream, &peer, connection).await,
        None => connection.end(Verdict::Refused, "the peer's cluster was removed during the handshake"),
    }
    drop(load);
}

/// Notes who the peer is, by this connection's certificates; `None` when its cluster is gone by now.
pub(crate) fn identify(
    context: &Context,
    stream: &ServerStream,
    connection: &Connection,
) -> Option<Arc<Peer>> {
    let peer = tls::server::peer(stream)?;
    let snapshot = context.current.load();
    let cluster = snapshot.peers.values().find(|p| p.trust_domain == *peer.trust_domain()).cloned();
    connection.note(|facts| {
        facts.local = Some(context.identity.current().spiffe_id);
        facts.peer = Some(peer);
        facts.cluster = cluster.as_ref().map(|c| c.name.to_string());
    });
    cluster
}

async fn carry(application: &mut TcpStream, stream: &mut ServerStream, peer: &Peer, connection: Connection) {
    let relayed = tokio::select! {
        relayed = relay(application, stream, connection.traffic()) => relayed,
        () = peer.gone.cancelled() => {
            reset_on_drop(application);
            reset_on_drop(stream.get_ref().0.socket());
            return connection.end(Verdict::Failed, "the peer's cluster was removed");
        }
    };
    match relayed {
        Ok(()) => connection.end(Verdict::Closed, ""),
        Err(Broken { side, source, .. }) => {
            // Neither side may take what it got for the whole.
            match side {
                Side::Plain => reset_on_drop(stream.get_ref().0.socket()),
                Side::Tls => reset_on_drop(application),
            }
            let side = if side == Side::Plain { "application" } else { "peer" };
            connection.end(Verdict::Failed, format!("the connection to the {side} broke: {source}"));
        }
    }
}

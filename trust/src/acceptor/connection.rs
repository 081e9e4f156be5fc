//! The life of one accepted connection: handshake, admission, service, and the reasons to end it.

use super::registry::{Phase, Registry, Slot};
use super::{Limits, Revocations};
use crate::clock;
use crate::svid::Svid;
use crate::tls;
use crate::verify::Verified;
use sealane_core::time::Millis;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// Who is at the other end. Every request carries it as an extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// It showed no certificate.
    Anonymous,
    /// Its certificate had expired when it connected, and the policy has a grace: good for renewal and nothing else.
    Expired(Verified),
    /// It is verified. The connection ends with the certificate, so this needs no second look.
    Verified(Verified),
}

impl Peer {
    fn of(verified: Option<Verified>, now: Millis) -> Self {
        match verified {
            None => Peer::Anonymous,
            Some(v) if v.is_expired(now) => Peer::Expired(v),
            Some(v) => Peer::Verified(v),
        }
    }

    /// The verified peer; `None` for an anonymous one and for one whose certificate had expired.
    #[must_use]
    pub fn verified(&self) -> Option<&Verified> {
        match self {
            Peer::Verified(verified) => Some(verified),
            Peer::Anonymous | Peer::Expired(_) => None,
        }
    }

    fn id(&self) -> Option<String> {
        self.svid().map(|svid| svid.spiffe_id.to_string())
    }

    fn svid(&self) -> Option<&Svid> {
        match self {
            Peer::Verified(verified) | Peer::Expired(verified) => Some(verified),
            Peer::Anonymous => None,
        }
    }
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Accepted {
    /// The stream.
    pub stream: TlsStream<TcpStream>,
    /// Who is at the other end.
    pub peer: Peer,
    /// From where.
    pub remote: SocketAddr,
    /// At which address of ours.
    pub local: SocketAddr,
    /// Cancelled when the connection should finish what it does and begin nothing new.
    pub drain: CancellationToken,
    /// The acceptor's bounds.
    pub limits: Limits,
}

pub(super) struct Context {
    pub(super) tls: TlsAcceptor,
    pub(super) limits: Limits,
    pub(super) revocations: Revocations,
    pub(super) registry: Registry,
    pub(super) drain: CancellationToken,
    pub(super) kill: CancellationToken,
}

pub(super) async fn serve<H, F>(
    context: Arc<Context>,
    stream: TcpStream,
    remote: SocketAddr,
    slot: Slot,
    handler: H,
) where
    H: Fn(Accepted) -> F,
    F: Future<Output = ()>,
{
    let accepted = tokio::select! {
        biased;
        () = slot.evicted() => {
            tracing::debug!(%remote, "handshake dropped for a newer one");
            return;
        }
        () = context.drain.cancelled() => return,
        accepted = handshake(&context, stream, remote) => accepted,
    };
    let Some(accepted) = accepted else { return };
    let phase = if accepted.peer == Peer::Anonymous { Phase::Anonymous } else { Phase::Verified };
    if let Err(full) = slot.promote(phase) {
        tracing::warn!(%remote, ?full, "connection refused: too many are open");
        return;
    }
    let (peer, drain) = (accepted.peer.clone(), accepted.drain.clone());
    tokio::select! {
        biased;
        () = slot.evicted() => tracing::debug!(%remote, "connection dropped for a newer one"),
        () = context.kill.cancelled() => {}
        () = ended(&context, &peer, &drain) => {
            tracing::info!(%remote, peer = peer.id(), "connection ended: the certificate expired or was revoked");
        }
        () = handler(accepted) => {}
    }
}

async fn handshake(context: &Context, stream: TcpStream, remote: SocketAddr) -> Option<Accepted> {
    let local = stream.local_addr().ok()?;
    if let Err(error) = tune(&stream, context.limits.keepalive + context.limits.keepalive_timeout) {
        tracing::debug!(%remote, %error, "can not set socket options");
        return None;
    }
    let timeout = context.limits.handshake_timeout;
    let stream = match tokio::time::timeout(timeout, context.tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%remote, %error, "handshake failed");
            return None;
        }
        Err(_) => {
            tracing::debug!(%remote, "handshake timed out");
            return None;
        }
    };
    let peer = Peer::of(tls::peer(stream.get_ref().1), clock::now());
    let refuses = context.limits.farewell.is_zero();
    if refuses && peer.svid().is_some_and(|svid| context.revocations.is_revoked(svid)) {
        tracing::info!(%remote, peer = peer.id(), "a revoked peer was refused");
        return None;
    }
    let (drain, limits) = (context.drain.child_token(), context.limits.clone());
    Some(Accepted { stream, peer, remote, local, drain, limits })
}

/// No delay of small writes, and an end to connections whose other side is gone: what was sent and stays without
/// acknowledgement, and total silence, are both bounded.
pub(crate) fn tune(stream: &TcpStream, silence: Duration) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_keepalive(
        &socket2::TcpKeepalive::new().with_time(silence).with_interval(silence).with_retries(3),
    )?;
    socket.set_tcp_user_timeout(Some(silence))
}

/// Returns when the peer's right to be connected is over; asks it to finish a while before.
async fn ended(context: &Context, peer: &Peer, drain: &CancellationToken) {
    let limits = &context.limits;
    let (svid, end) = match peer {
        Peer::Anonymous => return std::future::pending().await,
        Peer::Verified(verified) => (verified, verified.not_after),
        Peer::Expired(verified) => (verified, clock::now().plus(clock::millis(limits.expired_peer))),
    };
    tokio::select! {
        () = async {
            context.revocations.revoked(svid).await;
            tokio::time::sleep(limits.farewell).await;
        } => {}
        () = expiry(end, limits.drain, drain) => {}
    }
}

async fn expiry(end: Millis, notice: Duration, drain: &CancellationToken) {
    let finish = Millis(end.0.saturating_sub(clock::millis(notice)));
    // A certificate that is about to end when it arrives gets its time in full rather than an instant farewell.
    if clock::now() < finish {
        wall_clock_reaches(finish).await;
        drain.cancel();
    }
    wall_clock_reaches(end).await;
}

/// Sleeps until an instant of the wall clock, which may be set or stand still (a suspended machine) meanwhile.
pub(crate) async fn wall_clock_reaches(end: Millis) {
    loop {
        let left = end.since(clock::now());
        if left == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(left.min(30_000))).await;
    }
}

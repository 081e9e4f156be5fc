//! The roles, each the life of a connection read from top to bottom.

pub(crate) mod gateway;
pub(crate) mod inbound;
pub(crate) mod sidecar;

#[cfg(test)]
pub(crate) mod tests;

use crate::connections::Connections;
use crate::drain::Drain;
use crate::snapshot::Current;
use crate::splice::Pipes;
use crate::telemetry::Metrics;
use sealane_trust::tls::Identity;
use std::net::SocketAddr;
use std::sync::Arc;

/// What every stage shares.
#[derive(Debug)]
pub(crate) struct Context {
    /// The configuration.
    pub(crate) current: Arc<Current>,
    /// Who we are.
    pub(crate) identity: Identity,
    /// The record of connections.
    pub(crate) connections: Arc<Connections>,
    /// The counters.
    pub(crate) metrics: Arc<Metrics>,
    /// The end.
    pub(crate) drain: Drain,
    /// For splicing.
    pub(crate) pipes: Arc<Pipes>,
    /// The mark of our own sockets, where we may set one and captured connections make it useful.
    pub(crate) mark: Option<u32>,
    /// Our own listeners: never dialled by us.
    pub(crate) own: Vec<SocketAddr>,
    /// Connections of local applications at a time.
    pub(crate) max_outbound: usize,
}

impl Context {
    /// Whether an address is one of our own listeners.
    pub(crate) fn is_own(&self, address: SocketAddr) -> bool {
        self.own.iter().any(|own| {
            own.port() == address.port()
                && (own.ip() == address.ip() || own.ip().is_unspecified() && address.ip().is_loopback())
        })
    }
}

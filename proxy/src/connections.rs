//! The record of connections: who talked to whom, by what path, and how it ended. Bounded: the last 256.
//!
//! The identities in an entry are those of that connection's certificates, never of the configuration.

use crate::telemetry::{Direction, Metrics, Route, Verdict};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use sealane_core::identity::SpiffeId;
use sealane_core::name::ServiceKey;
use sealane_core::time::Millis;
use serde::Serialize;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most entries kept.
pub(crate) const KEPT: usize = 256;

/// The bytes of one connection, as it moves them.
#[derive(Debug)]
pub(crate) struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
    all_sent: Counter,
    all_received: Counter,
}

impl Traffic {
    /// Bytes went from the side that is nearer to the application (in a gateway: that dialled) to the other.
    pub(crate) fn sent(&self, n: usize) {
        self.sent.fetch_add(n as u64, Ordering::Relaxed);
        self.all_sent.inc_by(n as u64);
    }

    /// Bytes came back.
    pub(crate) fn received(&self, n: usize) {
        self.received.fetch_add(n as u64, Ordering::Relaxed);
        self.all_received.inc_by(n as u64);
    }

    /// Sent and received so far.
    pub(crate) fn so_far(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed))
    }
}

/// What is known of a connection besides its bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// The service, where it named one of ours.
    pub(crate) service: Option<ServiceKey>,
    /// The server name that was asked for.
    pub(crate) sni: Option<String>,
    /// The identity that we presented.
    pub(crate) local: Option<SpiffeId>,
    /// The identity that the peer proved.
    pub(crate) peer: Option<SpiffeId>,
    /// The peer's cluster.
    pub(crate) cluster: Option<String>,
    /// How it travels.
    pub(crate) route: Option<Route>,
    /// Where it went on to.
    pub(crate) upstream: Option<String>,
    /// How it ended, and why.
    pub(crate) end: Option<(Verdict, String, Millis)>,
}

/// One connection.
#[derive(Debug)]
struct Entry {
    number: u64,
    direction: Direction,
    from: SocketAddr,
    started: Millis,
    traffic: Traffic,
    facts: Mutex<Facts>,
}

/// The last connections, and the counters that outlive them.
#[derive(Debug)]
pub(crate) struct Connections {
    metrics: Arc<Metrics>,
    next: AtomicU64,
    ring: Mutex<VecDeque<Arc<Entry>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A poisoned record is still a record: nothing is half-changed under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connections {
    /// None yet.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Connections { metrics, next: AtomicU64::new(1), ring: Mutex::new(VecDeque::new()) })
    }

    /// A connection began.
    pub(crate) fn begin(
        self: &Arc<Self>,
        direction: Direction,
        service: Option<&ServiceKey>,
        from: SocketAddr,
    ) -> Connection {
        let (all_sent, all_received) = self.metrics.flows(direction, service);
        let entry = Arc::new(Entry {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            direction,
            from,
            started: sealane_trust::clock::now(),
            traffic: Traffic { sent: AtomicU64::new(0), received: AtomicU64::new(0), all_sent, all_received },
            facts: Mutex::new(Facts { service: service.cloned(), ..Facts::default() }),
        });
        let mut ring = lock(&self.ring);
        if ring.len() >= KEPT {
            // A finished one goes first: an open connection is worth more than the memory of a closed one.
            let oldest = ring.iter().take(32).position(|e| lock(&e.facts).end.is_some()).unwrap_or(0);
            ring.remove(oldest);
        }
        ring.push_back(Arc::clone(&entry));
        drop(ring);
        let active = self.metrics.active(direction);
        active.inc();
        Connection { entry, connections: Arc::clone(self), active }
    }

    /// The entries, oldest first.
    pub(crate) fn dump(&self) -> Vec<Shown> {
        let entries: Vec<Arc<Entry>> = lock(&self.ring).iter().cloned().collect();
        entries.iter().map(|e| Shown::of(e)).collect()
    }
}

/// A connection in progress; its end is recorded when this is finished or dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    entry: Arc<Entry>,
    connections: Arc<Connections>,
    active: Gauge,
}

impl Connection {
    /// Its bytes.
    pub(crate) fn traffic(&self) -> &Traffic {
        &self.entry.traffic
    }

    /// Notes what became known.
    pub(crate) fn note(&self, note: impl FnOnce(&mut Facts)) {
        note(&mut lock(&self.entry.facts));
    }

    /// It ended.
    pub(crate) fn end(self, verdict: Verdict, reason: impl Into<String>) {
        self.record(verdict, reason.into());
    }

    fn record(&self, verdict: Verdict, mut reason: String) {
        reason.truncate(reason.char_indices().nth(300).map_or(reason.len(), |(at, _)| at));
        let mut facts = lock(&self.entry.facts);
        tracing::debug!(
            direction = self.entry.direction.as_str(),
            from = %self.entry.from,
            service = facts.service.as_ref().map(tracing::field::display),
            sni = facts.sni,
            peer = facts.peer.as_ref().map(tracing::field::display),
            upstream = facts.upstream,
            verdict = verdict.as_str(),
            reason,
            "connection ended"
        );
        facts.end = Some((verdict, reason, sealane_trust::clock::now()));
        let route = facts.route.unwrap_or(Route::None);
        self.connections.metrics.ended(self.entry.direction, facts.service.as_ref(), route, verdict);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.active.dec();
        if lock(&self.entry.facts).end.is_none() {
            self.record(Verdict::Failed, "the proxy stopped".into());
        }
    }
}

/// An entry as the admin listener shows it.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    number: u64,
    direction: &'static str,
    from: String,
    service: Option<String>,
    sni: Option<String>,
    local_identity: Option<String>,
    peer_identity: Option<String>,
    peer_cluster: Option<String>,
    path: &'static str,
    upstream: Option<String>,
    bytes_sent: u64,
    bytes_received: u64,
    started_ms: u64,
    ended_ms: Option<u64>,
    result: &'static str,
    reason: Option<String>,
}

impl Shown {
    fn of(entry: &Entry) -> Self {
        let facts = lock(&entry.facts).clone();
        let (bytes_sent, bytes_received) = entry.traffic.so_far();
        Shown {
            number: entry.number,
            direction: entry.direction.as_str(),
            from: entry.from.to_string(),
            service: facts.service.map(|s| s.to_string()),
            sni: facts.sni,
            local_identity: facts.local.map(|s| s.to_string()),
            peer_identity: facts.peer.map(|s| s.to_string()),
            peer_cluster: facts.cluster,
            path: facts.route.unwrap_or(Route::None).as_str(),
            upstream: facts.upstream,
            bytes_sent,
            bytes_received,
            started_ms: entry.started.0,
            ended_ms: facts.end.as_ref().map(|e| e.2.0),
            result: facts.end.as_ref().map_or("active", |e| e.0.as_str()),
            reason: facts.end.map(|e| e.1).filter(|r| !r.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_bounded_and_keeps_open_connections_longer() {
        let connections = Connections::new(Arc::new(Metrics::new()));
        let from = "127.0.0.1:1".parse().unwrap();
        let open = connections.begin(Direction::Outbound, None, from);
        open.traffic().sent(5);
        for _ in 0..2 * KEPT {
            connections.begin(Direction::Inbound, None, from).end(Verdict::Closed, "");
        }
        let dump = connections.dump();
        assert_eq!(dump.len(), KEPT);
        assert_eq!((dump[0].number, dump[0].result, dump[0].bytes_sent), (1, "active", 5));
        drop(open);
        let last = &connections.dump()[0];
        assert_eq!((last.result, last.reason.as_deref()), ("failed", Some("the proxy stopped")));
    }
}

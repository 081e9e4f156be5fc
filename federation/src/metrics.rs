//! What a server counts. Every metric is registered here, under one prefix, with labels from enums.

use crate::consensus::status::{RaftStatus, Role};
use crate::publish::Counts;
use crate::writer::WriteError;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use sealane_core::state::{Lease, State};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// Applied.
    Applied,
    /// There was no leader.
    NoLeader,
    /// Its fate is unknown.
    Unknown,
    /// Too much was under way.
    Busy,
    /// It was not taken.
    Refused,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: Outcome,
}

/// A call or stream that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Call {
    /// Enroll.Join.
    Join,
    /// Enroll.Renew.
    Renew,
    /// Catalog.Export.
    Export,
    /// Discovery.Watch.
    Watch,
    /// Admin.
    Admin,
    /// Between servers.
    Server,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabel {
    call: Call,
}

/// What a watcher of a view is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum ViewMessage {
    /// Items and deletions: what a change costs.
    Delta,
    /// How far the watcher is: at most one a second, whatever changes.
    Synced,
    /// The opening of a stream.
    Opening,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ViewMessageLabel {
    message: ViewMessage,
}

/// The state of leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum LeaseState {
    Never,
    Live,
    Lapsed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LeaseLabel {
    state: LeaseState,
}

/// The counters of a server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    term: Gauge,
    leader: Gauge,
    commit: Gauge,
    applied: Gauge,
    log_entries: Gauge,
    snapshot: Gauge,
    stalls: Gauge,
    writes: Family<OutcomeLabel, Counter>,
    write_seconds: Histogram,
    leases: Family<LeaseLabel, Gauge>,
    watchers: Gauge,
    recomputed: Counter,
    view_messages: Family<ViewMessageLabel, Counter>,
    view_bytes: Family<ViewMessageLabel, Counter>,
    streams: Family<CallLabel, Gauge>,
    errors: Family<CallLabel, Counter>,
    suspected: Gauge,
    leaf_not_after: Gauge<f64, AtomicU64>,
    issuer_not_after: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("sealane_federation"),
            term: Gauge::default(),
            leader: Gauge::default(),
            commit: Gauge::default(),
            applied: Gauge::default(),
            log_entries: Gauge::default(),
            snapshot: Gauge::default(),
            stalls: Gauge::default(),
            writes: Family::default(),
            // 0.5 ms to 8 s.
            write_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 15)),
            leases: Family::default(),
            watchers: Gauge::default(),
            recomputed: Counter::default(),
            view_messages: Family::default(),
            view_bytes: Family::default(),
            streams: Family::default(),
            errors: Family::default(),
            suspected: Gauge::default(),
            leaf_not_after: Gauge::default(),
            issuer_not_after: Gauge::default(),
        };
        metrics.register();
        Arc::new(metrics)
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("raft_term", "The current term", self.term.clone());
        r.register("raft_leader", "Whether this server leads", self.leader.clone());
        r.register("raft_commit_index", "The last committed entry known here", self.commit.clone());
        r.register("raft_applied_index", "The last applied entry", self.applied.clone());
        r.register("raft_log_entries", "Entries in the log", self.log_entries.clone());
        r.register("raft_snapshot_index", "What the latest snapshot covers", self.snapshot.clone());
        r.register("raft_stalls", "How often the loop stood still for over a second", self.stalls.clone());
        r.register("writes", "Writes tried, by outcome", self.writes.clone());
        let help = "From the try of a write to its answer";
        r.register_with_unit("write_duration", help, Unit::Seconds, self.write_seconds.clone());
        r.register("leases", "Clusters, by the state of their lease", self.leases.clone());
        r.register("watchers", "Watchers of views", self.watchers.clone());
        let help = "Items of views computed anew because of a change, one for each cluster that it concerns";
        r.register("view_items_recomputed", help, self.recomputed.clone());
        r.register("view_messages", "Messages to watchers of views", self.view_messages.clone());
        let help = "Bytes of messages to watchers of views, as encoded";
        r.register_with_unit("view", help, Unit::Bytes, self.view_bytes.clone());
        r.register("streams", "Open streams", self.streams.clone());
        r.register("call_errors", "Calls and streams that ended with an error", self.errors.clone());
        r.register("suspected", "Whether the servers suspect themselves", self.suspected.clone());
        let help = "When this server's certificate expires, in seconds since 1970";
        r.register("certificate_not_after_timestamp", help, self.leaf_not_after.clone());
        let help = "When this server's issuer expires, in seconds since 1970";
        r.register("issuer_not_after_timestamp", help, self.issuer_not_after.clone());
    }

    /// A write was tried.
    pub fn proposal(&self, error: Option<&WriteError>, took: Duration) {
        let outcome = match error {
            None => Outcome::Applied,
            Some(WriteError::NoLeader | WriteError::Stopped(_)) => Outcome::NoLeader,
            Some(WriteError::Unknown) => Outcome::Unknown,
            Some(WriteError::Busy) => Outcome::Busy,
            Some(WriteError::Refused(_)) => Outcome::Refused,
        };
        self.writes.get_or_create(&OutcomeLabel { outcome }).inc();
        self.write_seconds.observe(took.as_secs_f64());
    }

    /// A stream was opened; it counts until the guard is dropped.
    #[must_use]
    pub fn stream(&self, call: Call) -> StreamGuard {
        let gauge = self.streams.get_or_create(&CallLabel { call }).clone();
        gauge.inc();
        StreamGuard(gauge)
    }

    /// A watcher is sent a message of so many bytes.
    pub fn view_sent(&self, message: ViewMessage, bytes: usize) {
        let label = ViewMessageLabel { message };
        self.view_messages.get_or_create(&label).inc();
        self.view_bytes.get_or_create(&label).inc_by(bytes as u64);
    }

    /// A call ended with an error.
    pub fn error(&self, call: Call) {
        self.errors.get_or_create(&CallLabel { call }).inc();
    }

    /// The expiries of this server's certificates.
    pub fn certificates(&self, leaf: sealane_core::time::Millis, issuer: sealane_core::time::Millis) {
        let seconds = |ms: sealane_core::time::Millis| Duration::from_millis(ms.0).as_secs_f64();
        self.leaf_not_after.set(seconds(leaf));
        self.issuer_not_after.set(seconds(issuer));
    }

    /// Everything as text, with what is only looked up when asked.
    #[must_use]
    pub fn scrape(&self, raft: &RaftStatus, state: &State, published: Counts, suspected: bool) -> String {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.term.set(number(raft.term));
        self.leader.set(i64::from(raft.role == Role::Leader));
        self.commit.set(number(raft.commit));
        self.applied.set(number(raft.applied));
        self.log_entries.set(number((raft.last + 1).saturating_sub(raft.first)));
        self.snapshot.set(number(raft.snapshot));
        self.stalls.set(number(raft.stalls));
        self.watchers.set(i64::try_from(published.watchers).unwrap_or(i64::MAX));
        // A count that is kept elsewhere; it only grows.
        self.recomputed.inner().store(published.recomputed, Ordering::Relaxed);
        self.suspected.set(i64::from(suspected));
        self.count_leases(state);
        let mut text = String::new();
        // Writing to a String can not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    fn count_leases(&self, state: &State) {
        let count = |wanted: LeaseState| {
            let n = state.clusters.values().filter(|c| {
                wanted
                    == match c.lease {
                        Lease::Never => LeaseState::Never,
                        Lease::Live { .. } => LeaseState::Live,
                        Lease::Lapsed { .. } => LeaseState::Lapsed,
                    }
            });
            self.leases
                .get_or_create(&LeaseLabel { state: wanted })
                .set(i64::try_from(n.count()).unwrap_or(i64::MAX));
        };
        [LeaseState::Never, LeaseState::Live, LeaseState::Lapsed].into_iter().for_each(count);
    }
}

/// Counts a stream while it lives.
#[derive(Debug)]
pub struct StreamGuard(Gauge);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealane_core::identity::ServerId;

    #[test]
    fn a_scrape_names_every_metric_under_one_prefix() {
        let metrics = Metrics::new();
        metrics.proposal(None, Duration::from_millis(3));
        metrics.error(Call::Join);
        let stream = metrics.stream(Call::Watch);
        metrics.view_sent(ViewMessage::Delta, 120);
        let counts = Counts { watchers: 2, recomputed: 5 };
        let text = metrics.scrape(&RaftStatus::new(ServerId(1)), &State::empty(), counts, true);
        for line in [
            "sealane_federation_raft_term 0",
            "sealane_federation_writes_total{outcome=\"Applied\"} 1",
            "sealane_federation_call_errors_total{call=\"Join\"} 1",
            "sealane_federation_streams{call=\"Watch\"} 1",
            "sealane_federation_watchers 2",
            "sealane_federation_view_items_recomputed_total 5",
            "sealane_federation_view_messages_total{message=\"Delta\"} 1",
            "sealane_federation_view_bytes_total{message=\"Delta\"} 120",
            "sealane_federation_suspected 1",
            "sealane_federation_leases{state=\"Live\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        drop(stream);
        assert!(text.lines().filter(|l| !l.starts_with('#')).all(|l| l.starts_with("sealane_federation_")));
    }
}

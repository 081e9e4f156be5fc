//! Metrics, registered in one place under the prefix `sealane_agent_`.

use crate::dns::DnsMetrics;
use crate::sink::kubernetes::SinkMetrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// What the agent counts.
pub struct Metrics {
    registry: Registry,
    /// Certificates issued to proxies.
    pub issued: Counter,
    /// Lane transitions.
    pub lane_transitions: Counter,
    /// Lanes now down.
    pub lanes_down: Gauge,
    /// Connected proxies.
    pub proxies: Gauge,
    /// Whether a catalog session is open.
    pub session: Gauge,
    /// Whether the view stream is up.
    pub watching: Gauge,
    /// Exported services.
    pub exports: Gauge,
    /// Imports in the view.
    pub imports: Gauge,
    /// Manifests that are refused now.
    pub problems: Gauge,
    /// When the agent's certificate ends, in seconds since 1970.
    pub certificate_end: Gauge,
    /// What DNS counts.
    pub dns: Arc<DnsMetrics>,
    /// What the sink of an API server counts.
    pub sink: Arc<SinkMetrics>,
    lease_held: Gauge,
    lease_transitions: Gauge,
    unreadable: Family<Unreadable, Gauge>,
    /// Families are emptied and filled again for each answer: by one at a time.
    turn: Mutex<()>,
}

/// A kind of objects that can not be read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Unreadable {
    /// Who reads it: `source` or `sink`.
    by: &'static str,
    kind: &'static str,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("sealane_agent"),
            issued: Counter::default(),
            lane_transitions: Counter::default(),
            lanes_down: Gauge::default(),
            proxies: Gauge::default(),
            session: Gauge::default(),
            watching: Gauge::default(),
            exports: Gauge::default(),
            imports: Gauge::default(),
            problems: Gauge::default(),
            certificate_end: Gauge::default(),
            dns: Arc::default(),
            sink: Arc::default(),
            lease_held: Gauge::default(),
            lease_transitions: Gauge::default(),
            unreadable: Family::default(),
            turn: Mutex::default(),
        };
        let r = &mut metrics.registry;
        r.register("certificates_issued", "Certificates issued to proxies", metrics.issued.clone());
        r.register("lane_transitions", "Changes of a lane's verdict", metrics.lane_transitions.clone());
        r.register("lanes_down", "Lanes that this cluster's probes see down", metrics.lanes_down.clone());
        r.register("proxies", "Connected proxies", metrics.proxies.clone());
        r.register(
            "session_open",
            "Whether a catalog session with the store is open",
            metrics.session.clone(),
        );
        r.register("view_connected", "Whether the view stream is up", metrics.watching.clone());
        r.register("exports", "Exported services", metrics.exports.clone());
        r.register("imports", "Imported services", metrics.imports.clone());
        r.register("manifest_problems", "Manifests that are refused now", metrics.problems.clone());
        r.register(
            "certificate_not_after_seconds",
            "When the certificate towards the store ends, in seconds since 1970",
            metrics.certificate_end.clone(),
        );
        r.register("lease_held", "Whether this replica holds the Lease", metrics.lease_held.clone());
        let transitions = "How often the Lease went from one holder to the next, as it was last read";
        r.register("lease_transitions", transitions, metrics.lease_transitions.clone());
        let unreadable = "Kinds of objects that can not be read now, by the part that reads them";
        r.register("unreadable_kinds", unreadable, metrics.unreadable.clone());
        metrics.sink.register(r);
        metrics.dns.register(r);
        metrics
    }
}

impl Metrics {
    /// All of them as text, with gauges as of the given report.
    ///
    /// # Errors
    /// When a metric can not be written, which is a defect.
    pub fn text(
        &self,
        report: &crate::status::Report,
        end_ms: u64,
        exports: usize,
    ) -> Result<String, fmt::Error> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.lanes_down.set(count(report.lanes.values().filter(|l| l.verdict == "down").count()));
        self.proxies.set(count(report.proxies.len()));
        self.session.set(i64::from(report.session.state == "open"));
        self.watching.set(i64::from(report.view.connected));
        self.exports.set(count(exports));
        self.imports.set(count(report.view.imports));
        self.problems.set(count(report.source.problems.len()));
        self.certificate_end.set(i64::try_from(end_ms / 1000).unwrap_or(i64::MAX));
        let lease = report.lease.as_ref();
        self.lease_held.set(i64::from(lease.is_some_and(|lease| lease.term.is_some())));
        if let Some(transitions) = lease.and_then(|lease| lease.transitions) {
            self.lease_transitions.set(transitions.into());
        }
        self.unreadable.clear();
        let source = report.source.unreadable.iter().map(|kind| ("source", *kind));
        for (by, kind) in source.chain(self.sink.follow().into_iter().map(|kind| ("sink", kind))) {
            self.unreadable.get_or_create(&Unreadable { by, kind }).set(1);
        }
        let mut out = String::new();
        encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

//! Metrics, registered in one place under the prefix `sealane_agent_`.

use crate::dns::DnsMetrics;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;

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
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.lanes_down.set(count(report.lanes.values().filter(|l| l.verdict == "down").count()));
        self.proxies.set(count(report.proxies.len()));
        self.session.set(i64::from(report.session.state == "open"));
        self.watching.set(i64::from(report.view.connected));
        self.exports.set(count(exports));
        self.imports.set(count(report.view.imports));
        self.problems.set(count(report.source.problems.len()));
        self.certificate_end.set(i64::try_from(end_ms / 1000).unwrap_or(i64::MAX));
        let mut out = String::new();
        encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

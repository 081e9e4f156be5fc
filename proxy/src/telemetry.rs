//! What the proxy counts. Labels come from enums and from services of the configuration, never from a stranger.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use sealane_core::name::ServiceKey;
use std::fmt::{self, Write as _};

/// What a connection is to this proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Direction {
    /// An application of ours dials an import.
    Outbound,
    /// A peer dials an application of ours.
    Inbound,
    /// A peer's connection passes through, encrypted.
    Gateway,
    /// A captured connection that is no import.
    Passthrough,
    /// A peer asks whether we live.
    Probe,
}

impl Direction {
    /// The word in dumps.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Direction::Outbound => "outbound",
            Direction::Inbound => "inbound",
            Direction::Gateway => "gateway",
            Direction::Passthrough => "passthrough",
            Direction::Probe => "probe",
        }
    }
}

/// How the bytes of a connection travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Route {
    /// Straight to the endpoint.
    Direct,
    /// By way of a gateway.
    Gateway,
    /// To an endpoint's inbound proxy, spliced.
    Spliced,
    /// Ended here.
    Terminated,
    /// Nowhere: it was refused.
    None,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// Both sides closed.
    Closed,
    /// It broke.
    Failed,
    /// It was not admitted, or nothing could serve it.
    Refused,
}

impl Route {
    /// The word in dumps.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Route::Direct => "direct",
            Route::Gateway => "gateway",
            Route::Spliced => "spliced",
            Route::Terminated => "terminated",
            Route::None => "none",
        }
    }
}

impl Verdict {
    /// The word in dumps.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Verdict::Closed => "closed",
            Verdict::Failed => "failed",
            Verdict::Refused => "refused",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    direction: Direction,
    service: String,
    route: Route,
    verdict: Verdict,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Flow {
    direction: Direction,
    service: String,
    flow: FlowWay,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum FlowWay {
    Sent,
    Received,
}

impl FlowWay {
    fn as_str(self) -> &'static str {
        match self {
            FlowWay::Sent => "sent",
            FlowWay::Received => "received",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    direction: Direction,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProbeOf {
    cluster: String,
    address: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedBy {
    reason: &'static str,
}

macro_rules! words {
    ($($kind:ty),+) => {$(
        impl EncodeLabelValue for $kind {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
                encoder.write_str(self.as_str())
            }
        }
    )+};
}
words!(Direction, Route, Verdict, FlowWay);

/// The proxy's metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    ended: Family<Ended, Counter>,
    bytes: Family<Flow, Counter>,
    active: Family<Of, Gauge>,
    turned_away: Family<RefusedBy, Counter>,
    probes_up: Family<ProbeOf, Gauge>,
    /// Ejections of gateways and endpoints.
    pub(crate) ejections: Counter,
    /// The version of the configuration in use.
    pub(crate) config_version: Gauge,
    /// When our certificate ends, in seconds since 1970.
    pub(crate) certificate_expiry: Gauge,
    /// 1 while the agent's stream is up.
    pub(crate) agent_connected: Gauge,
}

impl Metrics {
    /// All of them, at zero.
    pub(crate) fn new() -> Self {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("sealane_proxy"),
            ended: Family::default(),
            bytes: Family::default(),
            active: Family::default(),
            turned_away: Family::default(),
            probes_up: Family::default(),
            ejections: Counter::default(),
            config_version: Gauge::default(),
            certificate_expiry: Gauge::default(),
            agent_connected: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("connections", "Connections that ended", metrics.ended.clone());
        registry.register(
            "bytes",
            "Bytes of payload moved (of ciphertext in a gateway)",
            metrics.bytes.clone(),
        );
        registry.register("connections_active", "Connections open now", metrics.active.clone());
        let turned_away = metrics.turned_away.clone();
        registry.register("turned_away", "Connections dropped before they named a service", turned_away);
        registry.register(
            "probe_up",
            "1 where the last probe of a cluster succeeded",
            metrics.probes_up.clone(),
        );
        registry.register("ejections", "Gateways and endpoints ejected", metrics.ejections.clone());
        registry.register(
            "config_version",
            "Version of the configuration in use",
            metrics.config_version.clone(),
        );
        let expiry = metrics.certificate_expiry.clone();
        registry.register("certificate_expiry_seconds", "End of our certificate, seconds since 1970", expiry);
        registry.register(
            "agent_connected",
            "1 while the agent's stream is up",
            metrics.agent_connected.clone(),
        );
        metrics
    }

    /// The exposition text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            tracing::error!(%error, "can not write metrics");
        }
        text
    }

    /// The byte counters of a connection: sent, received.
    pub(crate) fn flows(&self, direction: Direction, service: Option<&ServiceKey>) -> (Counter, Counter) {
        let of = |flow| {
            let flow = Flow { direction, service: label(service), flow };
            self.bytes.get_or_create(&flow).clone()
        };
        (of(FlowWay::Sent), of(FlowWay::Received))
    }

    /// A connection began; the gauge to lower when it ends.
    pub(crate) fn active(&self, direction: Direction) -> Gauge {
        self.active.get_or_create(&Of { direction }).clone()
    }

    /// A connection ended.
    pub(crate) fn ended(
        &self,
        direction: Direction,
        service: Option<&ServiceKey>,
        route: Route,
        verdict: Verdict,
    ) {
        self.ended.get_or_create(&Ended { direction, service: label(service), route, verdict }).inc();
    }

    /// A connection was dropped before it named a service.
    pub(crate) fn turned_away(&self, reason: &'static str) {
        self.turned_away.get_or_create(&RefusedBy { reason }).inc();
    }

    /// A probe answered, or did not.
    pub(crate) fn probed(&self, cluster: &str, address: &str, up: bool) {
        let of = ProbeOf { cluster: cluster.to_owned(), address: address.to_owned() };
        self.probes_up.get_or_create(&of).set(i64::from(up));
    }

    /// A cluster's probe address is no more.
    pub(crate) fn forget_probe(&self, cluster: &str, address: &str) {
        self.probes_up.remove(&ProbeOf { cluster: cluster.to_owned(), address: address.to_owned() });
    }
}

fn label(service: Option<&ServiceKey>) -> String {
    service.map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_scraped() {
        let metrics = Metrics::new();
        let service = ServiceKey::parse("shop/cart").unwrap();
        metrics.flows(Direction::Gateway, Some(&service)).0.inc_by(7);
        metrics.ended(Direction::Outbound, Some(&service), Route::Gateway, Verdict::Closed);
        metrics.probed("west", "127.0.0.1:1", true);
        let text = metrics.text();
        for line in [
            "sealane_proxy_bytes_total{direction=\"gateway\",service=\"shop/cart\",flow=\"sent\"} 7",
            "sealane_proxy_connections_total{direction=\"outbound\",service=\"shop/cart\",route=\"gateway\",verdict=\"closed\"} 1",
            "sealane_proxy_probe_up{cluster=\"west\",address=\"127.0.0.1:1\"} 1",
            "sealane_proxy_ejections_total 0",
            "sealane_proxy_agent_connected 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }
}

//! Where a connection that names a service goes on this side: a pure function of the configuration and the name.

use crate::snapshot::{Inbound, Place, Snapshot};
use crate::tls::hello::Alert;
use sealane_core::name::{ClusterName, NameError, ServiceKey};
use sealane_core::sni::{ServerName, Target};
use std::sync::Arc;

/// What a server name stands for here.
#[derive(Debug)]
pub(crate) enum Routed {
    /// A service of ours and the places to choose from, all of them ready.
    Service(Arc<Inbound>, Vec<Arc<Place>>),
    /// Our own probe endpoint.
    Probe,
}

/// A name that leads nowhere. The peer is to blame, or late: the service may have gone a moment ago.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Lost {
    /// No server name was sent.
    #[error("no server name was sent")]
    NoName,
    /// The name is not one of ours.
    #[error(transparent)]
    BadName(#[from] NameError),
    /// The service is not exported here, or no more.
    #[error("{0} is not exported here")]
    NotExported(ServiceKey),
    /// The service has no such port.
    #[error("{0} has no port {1}")]
    NoPort(ServiceKey, u16),
    /// Exactly this endpoint was asked for, and it is not here or not ready.
    #[error("the endpoint {0} is not here or not ready")]
    NoEndpoint(sealane_core::name::EndpointId),
    /// The service has no ready endpoint for the port.
    #[error("{0} has no ready endpoint for port {1}")]
    NoneReady(ServiceKey, u16),
    /// Another cluster's probe, or we are not the gateway.
    #[error("the probe of {0} is not answered here")]
    NotOurProbe(ClusterName),
}

impl Lost {
    /// What the peer is told.
    pub(crate) fn alert(&self) -> Alert {
        match self {
            // Nothing is wrong with the name: trying elsewhere may help.
            Lost::NoneReady(..) => Alert::InternalError,
            _ => Alert::UnrecognizedName,
        }
    }

    /// The service that was meant, where one of ours was named: safe as a metric's label.
    pub(crate) fn service(&self) -> Option<&ServiceKey> {
        match self {
            Lost::NoPort(service, _) | Lost::NoneReady(service, _) => Some(service),
            _ => None,
        }
    }
}

/// Whether this proxy answers its cluster's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probes {
    /// It does: a gateway.
    Answered,
    /// It does not.
    Refused,
}

/// Finds the places for a server name.
///
/// # Errors
/// When the name leads nowhere.
pub(crate) fn route(snapshot: &Snapshot, name: Option<&str>, probes: Probes) -> Result<Routed, Lost> {
    match ServerName::parse(name.ok_or(Lost::NoName)?)? {
        ServerName::Probe(cluster)
            if probes == Probes::Answered && snapshot.cluster.as_ref() == Some(&cluster) =>
        {
            Ok(Routed::Probe)
        }
        ServerName::Probe(cluster) => Err(Lost::NotOurProbe(cluster)),
        ServerName::Service(target) => service(snapshot, target),
    }
}

fn service(snapshot: &Snapshot, target: Target) -> Result<Routed, Lost> {
    let Target { endpoint, port, service } = target;
    let Some(inbound) = snapshot.inbound.get(&service) else { return Err(Lost::NotExported(service)) };
    let Some(places) = inbound.ports.get(&port) else { return Err(Lost::NoPort(service, port)) };
    let wanted = |p: &&Arc<Place>| p.ready && endpoint.as_ref().is_none_or(|e| *e == p.endpoint);
    let places: Vec<Arc<Place>> = places.iter().filter(wanted).cloned().collect();
    match (places.is_empty(), endpoint) {
        (false, _) => Ok(Routed::Service(Arc::clone(inbound), places)),
        (true, Some(endpoint)) => Err(Lost::NoEndpoint(endpoint)),
        (true, None) => Err(Lost::NoneReady(service, port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Place;
    use crate::tls;
    use sealane_core::name::EndpointId;
    use std::collections::{BTreeMap, BTreeSet};

    fn place(endpoint: &str, ready: bool) -> Arc<Place> {
        Arc::new(Place {
            endpoint: EndpointId::parse(endpoint).unwrap(),
            address: "127.0.0.1".parse().unwrap(),
            app_port: 8080,
            inbound_port: None,
            ready,
            load: Arc::default(),
            health: Arc::default(),
        })
    }

    const ONE: &str = "e-aaaaaaaaaaaaa";
    const TWO: &str = "e-bbbbbbbbbbbbb";
    const UNREADY: &str = "e-ccccccccccccc";

    fn snapshot() -> Snapshot {
        let service = ServiceKey::parse("shop/cart").unwrap();
        let ports = BTreeMap::from([
            (80, vec![place(ONE, true), place(TWO, true), place(UNREADY, false)]),
            (81, vec![place(UNREADY, false)]),
        ]);
        let identity = tls::tests::identity("us.test", "ns/shop/sa/cart");
        let tls = tls::server::config(&identity, Arc::default(), crate::authorize::Admits::Known);
        let inbound = Inbound { service: service.clone(), importers: BTreeSet::new(), ports, tls };
        Snapshot {
            cluster: Some(ClusterName::parse("us").unwrap()),
            inbound: imbl::OrdMap::from_iter([(service, Arc::new(inbound))]),
            ..Snapshot::default()
        }
    }

    /// The endpoints chosen from, `probe`, or the refusal.
    fn routed(name: Option<&str>, probes: Probes) -> String {
        match route(&snapshot(), name, probes) {
            Ok(Routed::Probe) => "probe".into(),
            Ok(Routed::Service(_, places)) => {
                places.iter().map(|p| p.endpoint.as_str()).collect::<Vec<_>>().join(" ")
            }
            Err(lost) => format!("{}: {lost}", lost.alert()),
        }
    }

    #[test]
    fn a_name_leads_to_ready_places_of_our_own_exports_only() {
        let cases = [
            ("p80.cart.shop.svc.clusterset.local", "e-aaaaaaaaaaaaa e-bbbbbbbbbbbbb"),
            ("P80.CART.shop.svc.clusterset.local", "e-aaaaaaaaaaaaa e-bbbbbbbbbbbbb"),
            ("e-bbbbbbbbbbbbb.p80.cart.shop.svc.clusterset.local", "e-bbbbbbbbbbbbb"),
            (
                "e-ccccccccccccc.p80.cart.shop.svc.clusterset.local",
                "unrecognized_name: the endpoint e-ccccccccccccc is not here or not ready",
            ),
            (
                "p81.cart.shop.svc.clusterset.local",
                "internal_error: shop/cart has no ready endpoint for port 81",
            ),
            ("p8080.cart.shop.svc.clusterset.local", "unrecognized_name: shop/cart has no port 8080"),
            ("p80.other.shop.svc.clusterset.local", "unrecognized_name: shop/other is not exported here"),
            ("probe.us.sealane.internal", "probe"),
            ("probe.west.sealane.internal", "unrecognized_name: the probe of west is not answered here"),
        ];
        for (name, expected) in cases {
            assert_eq!(routed(Some(name), Probes::Answered), expected, "{name}");
        }
        assert_eq!(routed(None, Probes::Answered), "unrecognized_name: no server name was sent");
        assert_eq!(
            routed(Some("probe.us.sealane.internal"), Probes::Refused),
            "unrecognized_name: the probe of us is not answered here"
        );
        assert!(matches!(route(&snapshot(), Some("example.com"), Probes::Answered), Err(Lost::BadName(_))));
    }
}

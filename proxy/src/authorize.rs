//! Who may come in: a pure function of the service, the peers we know and the identity that was proved.

use crate::snapshot::Peer;
use sealane_core::identity::SpiffeId;
use sealane_core::name::{ClusterName, TrustDomain};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The peers by trust domain.
pub(crate) type Domains = BTreeMap<TrustDomain, Arc<Peer>>;

/// Whom a listener admits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admits {
    /// Workloads of these clusters, as long as they import from us.
    Importers(BTreeSet<ClusterName>),
    /// Anyone of a cluster that we know: probes.
    Known,
}

/// A peer that is not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    /// No cluster that we know has its trust domain.
    #[error("no peer of ours has the trust domain {0}")]
    UnknownDomain(TrustDomain),
    /// Its cluster does not import the service.
    #[error("cluster {0} does not import this service")]
    NotAnImporter(ClusterName),
}

/// The cluster that an identity belongs to, when it is admitted.
///
/// # Errors
/// When its trust domain is unknown, or its cluster not among the importers.
pub(crate) fn authorize<'a>(
    domains: &'a Domains,
    admits: &Admits,
    peer: &SpiffeId,
) -> Result<&'a Arc<Peer>, Denied> {
    let domain = peer.trust_domain();
    let cluster = domains.get(domain).ok_or_else(|| Denied::UnknownDomain(domain.clone()))?;
    let admitted = match admits {
        Admits::Known => true,
        Admits::Importers(importers) => {
            (cluster.own || cluster.imports_from_us) && importers.contains(&cluster.name)
        }
    };
    if admitted { Ok(cluster) } else { Err(Denied::NotAnImporter(cluster.name.clone())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_util::sync::CancellationToken;

    fn peer(name: &str, own: bool, imports_from_us: bool) -> (TrustDomain, Arc<Peer>) {
        let trust_domain = TrustDomain::parse(&format!("{name}.test")).unwrap();
        let peer = Peer {
            name: ClusterName::parse(name).unwrap(),
            trust_domain: trust_domain.clone(),
            bundle: None,
            bundle_sequence: 0,
            exports_to_us: false,
            imports_from_us,
            own,
            probes: Vec::new(),
            gone: CancellationToken::new(),
        };
        (trust_domain, Arc::new(peer))
    }

    #[test]
    fn only_importers_come_in() {
        let domains: Domains =
            [peer("us", true, false), peer("west", false, true), peer("edge", false, false)].into();
        let names = |names: &[&str]| {
            Admits::Importers(names.iter().map(|n| ClusterName::parse(n).unwrap()).collect())
        };
        let denied = |name: &str| Err(Denied::NotAnImporter(ClusterName::parse(name).unwrap()));
        for (admits, domain, expected) in [
            (names(&["us", "west"]), "west.test", Ok("west")),
            (names(&["us", "west"]), "us.test", Ok("us")),
            (names(&["us"]), "west.test", denied("west")),
            (names(&["edge"]), "edge.test", denied("edge")),
            (names(&[]), "us.test", denied("us")),
            (Admits::Known, "edge.test", Ok("edge")),
            (
                Admits::Known,
                "other.test",
                Err(Denied::UnknownDomain(TrustDomain::parse("other.test").unwrap())),
            ),
        ] {
            let id = SpiffeId::parse(&format!("spiffe://{domain}/ns/a/sa/b")).unwrap();
            let result = authorize(&domains, &admits, &id).map(|p| p.name.as_str().to_owned());
            assert_eq!(result, expected.map(str::to_owned), "{admits:?} {domain}");
        }
    }
}

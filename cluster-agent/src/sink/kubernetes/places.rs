//! Where the connections of clients without a proxy go: the places of an import, and which of them kube-proxy may use.
//!
//! kube-proxy spreads evenly over everything that it sees and knows no priority. So for each port and family one tier is
//! chosen: this cluster's own endpoints while there are any, else the others', else those behind a lane that is down.
//! What is not chosen is published all the same, for DNS and for people.

use crate::config::Outbound;
use crate::desired::{Sources, family_of};
use sealane_core::name::{ClusterName, EndpointId, Hostname, PortName, TopologyName};
use sealane_core::service::{InternalTrafficPolicy, IpFamily, ServiceType};
use sealane_core::view::{Candidate, Path, Tier};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Its tier.
    pub tier: Tier,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its address.
    pub address: IpAddr,
    /// The target of each port of the import that its cluster really has.
    pub ports: BTreeMap<PortName, u16>,
    /// Its zone.
    pub zone: Option<TopologyName>,
    /// Its hostname.
    pub hostname: Option<Hostname>,
    /// Its node, in this cluster alone.
    pub node: Option<String>,
}

/// The places of an import, in order; and the clusters that have places which only gateways reach. Of this cluster's own
/// the import has what the catalog knows, but for the node.
#[must_use]
pub fn places(
    sources: &Sources,
    outbound: &Outbound,
    own: &ClusterName,
) -> (Vec<Place>, BTreeSet<ClusterName>) {
    let import = &outbound.import;
    let shard = sources.common.catalog.shards.get(&import.service);
    let node = |id: &EndpointId| shard.and_then(|shard| shard.backends.get(id)?.node.clone());
    let (mut places, mut behind) = (Vec::new(), BTreeSet::new());
    for candidate in &import.candidates {
        match place(candidate) {
            Some((id, place)) if candidate.cluster == *own => places.push(Place { node: node(id), ..place }),
            Some((_, place)) => places.push(place),
            None => drop(behind.insert(candidate.cluster.clone())),
        }
    }
    places.sort();
    places.dedup();
    (places, behind)
}

fn place(candidate: &Candidate) -> Option<(&EndpointId, Place)> {
    match &candidate.path {
        Path::Direct { id, address, ports, locality, hostname, .. } => {
            let place = Place {
                tier: candidate.tier,
                cluster: candidate.cluster.clone(),
                address: *address,
                ports: ports.clone(),
                zone: locality.zone.clone(),
                hostname: hostname.clone(),
                node: None,
            };
            Some((id, place))
        }
        Path::Gateway { .. } => None,
    }
}

/// The tier that kube-proxy is shown, by port and family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chosen(BTreeMap<(PortName, IpFamily), Tier>);

impl Chosen {
    /// Chooses. Headless imports are not kube-proxy's; with the policy `Local` only this cluster's own endpoints are.
    #[must_use]
    pub fn of(outbound: &Outbound, places: &[Place]) -> Self {
        let import = &outbound.import;
        let mut chosen = BTreeMap::new();
        if import.service_type == ServiceType::Headless {
            return Chosen(chosen);
        }
        let bound = import.internal_traffic_policy == InternalTrafficPolicy::Local;
        for place in places.iter().filter(|p| !bound || p.tier == Tier::Local) {
            for port in place.ports.keys() {
                let best = chosen.entry((port.clone(), family_of(place.address))).or_insert(place.tier);
                *best = place.tier.min(*best);
            }
        }
        Chosen(chosen)
    }

    /// A place's ports: those for which it is chosen, and the others.
    #[must_use]
    pub fn split(&self, place: &Place) -> [(bool, BTreeMap<PortName, u16>); 2] {
        let family = family_of(place.address);
        let (chosen, rest) = place.ports.iter().map(|(name, port)| (name.clone(), *port)).partition(
            |(name, _): &(PortName, u16)| self.0.get(&(name.clone(), family)) == Some(&place.tier),
        );
        [(true, chosen), (false, rest)]
    }
}

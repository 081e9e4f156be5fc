//! Which services' endpoints name a pod, an address or a node: so that a change of one of them costs no look at all slices.

use super::pod::PodKey;
use super::slice::{Slice, SliceEndpoint};
use sealane_core::name::{Namespace, ServiceKey};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// How many endpoints of which services.
type Counts = BTreeMap<ServiceKey, u32>;

/// Services by what their endpoints name.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Backing {
    by_pod: BTreeMap<PodKey, Counts>,
    /// Endpoints that name no pod.
    by_address: BTreeMap<(Namespace, IpAddr), Counts>,
    /// Endpoints by the node that they name, or that they name none.
    by_node: BTreeMap<Option<String>, Counts>,
}

impl Backing {
    /// Adds a slice of a service.
    pub(super) fn add(&mut self, service: &ServiceKey, slice: &Slice) {
        for endpoint in &slice.endpoints {
            match pod_key(service, endpoint) {
                Some(pod) => count(&mut self.by_pod, pod, service),
                None => {
                    count(&mut self.by_address, (service.namespace.clone(), endpoint.address), service);
                }
            }
            count(&mut self.by_node, endpoint.node.clone(), service);
        }
    }

    /// Takes it out again.
    pub(super) fn remove(&mut self, service: &ServiceKey, slice: &Slice) {
        for endpoint in &slice.endpoints {
            match pod_key(service, endpoint) {
                Some(pod) => uncount(&mut self.by_pod, &pod, service),
                None => {
                    uncount(&mut self.by_address, &(service.namespace.clone(), endpoint.address), service);
                }
            }
            uncount(&mut self.by_node, &endpoint.node, service);
        }
    }

    /// The services that name a pod, or, naming none, one of its addresses.
    pub(super) fn of_pod(&self, pod: &PodKey, ips: &[IpAddr]) -> impl Iterator<Item = &ServiceKey> {
        let by_address = ips.iter().filter_map(|ip| self.by_address.get(&(pod.namespace.clone(), *ip)));
        self.by_pod.get(pod).into_iter().chain(by_address.collect::<Vec<_>>()).flat_map(BTreeMap::keys)
    }

    /// The services that name a node.
    pub(super) fn of_node(&self, node: &str) -> impl Iterator<Item = &ServiceKey> {
        self.by_node.get(&Some(node.to_owned())).into_iter().flat_map(BTreeMap::keys)
    }

    /// The services with endpoints that name no node.
    pub(super) fn of_no_node(&self) -> impl Iterator<Item = &ServiceKey> {
        self.by_node.get(&None).into_iter().flat_map(BTreeMap::keys)
    }
}

fn pod_key(service: &ServiceKey, endpoint: &SliceEndpoint) -> Option<PodKey> {
    let name = endpoint.pod.clone()?;
    Some(PodKey { namespace: service.namespace.clone(), name })
}

fn count<K: Ord>(map: &mut BTreeMap<K, Counts>, key: K, service: &ServiceKey) {
    *map.entry(key).or_default().entry(service.clone()).or_default() += 1;
}

fn uncount<K: Ord>(map: &mut BTreeMap<K, Counts>, key: &K, service: &ServiceKey) {
    let Some(counts) = map.get_mut(key) else { return };
    if let Some(number) = counts.get_mut(service) {
        *number -= 1;
        if *number == 0 {
            counts.remove(service);
        }
    }
    if counts.is_empty() {
        map.remove(key);
    }
}

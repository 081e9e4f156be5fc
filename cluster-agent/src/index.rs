//! The cluster as the agent knows it: each Kubernetes object reduced to the parts of it that can change.
//!
//! An object that did not change in those parts changes nothing here, and [`Index::apply`] then names no service, so
//! that nobody is woken. Conversions of objects into parts refuse with the field and the reason.

mod backing;
mod export;
mod namespace;
mod node;
mod pod;
pub mod service;
mod slice;

pub use export::{IMPORTERS, Importers, ServiceExport, ServiceExportObject};
pub use namespace::{NamespacePart, Selector};
pub use node::Node;
pub use pod::{INBOUND_PORT, Pod, PodKey};
pub use slice::{Slice, SliceEndpoint, SliceKey, SlicePort};

use backing::Backing;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sealane_core::name::{Namespace, ServiceKey};
use sealane_core::service::ServiceFacts;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

/// A field of an object that was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct FieldError {
    /// The field, as a path from the object's root.
    pub field: String,
    /// Why it was refused.
    pub reason: String,
}

impl FieldError {
    pub(crate) fn new(field: impl Into<String>, reason: impl fmt::Display) -> Self {
        FieldError { field: field.into(), reason: reason.to_string() }
    }
}

/// One object, reduced.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// A Service.
    Service(ServiceKey, ServiceFacts),
    /// An EndpointSlice.
    Slice(SliceKey, Slice),
    /// A Pod.
    Pod(PodKey, Pod),
    /// A ServiceExport.
    Export(ServiceKey, ServiceExport),
    /// A Namespace.
    Namespace(Namespace, NamespacePart),
    /// A Node.
    Node(String, Node),
}

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartKey {
    /// A Service.
    Service(ServiceKey),
    /// An EndpointSlice.
    Slice(SliceKey),
    /// A Pod.
    Pod(PodKey),
    /// A ServiceExport.
    Export(ServiceKey),
    /// A Namespace.
    Namespace(Namespace),
    /// A Node.
    Node(String),
}

impl fmt::Display for PartKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PartKey::Service(key) => write!(f, "Service {key}"),
            PartKey::Slice(key) => write!(f, "EndpointSlice {}/{}", key.namespace, key.name),
            PartKey::Pod(key) => write!(f, "Pod {key}"),
            PartKey::Export(key) => write!(f, "ServiceExport {key}"),
            PartKey::Namespace(name) => write!(f, "Namespace {name}"),
            PartKey::Node(name) => write!(f, "Node {name}"),
        }
    }
}

impl Part {
    /// Which object this is.
    #[must_use]
    pub fn key(&self) -> PartKey {
        match self {
            Part::Service(key, _) => PartKey::Service(key.clone()),
            Part::Slice(key, _) => PartKey::Slice(key.clone()),
            Part::Pod(key, _) => PartKey::Pod(key.clone()),
            Part::Export(key, _) => PartKey::Export(key.clone()),
            Part::Namespace(key, _) => PartKey::Namespace(key.clone()),
            Part::Node(key, _) => PartKey::Node(key.clone()),
        }
    }
}

/// One change of the cluster.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The object is so now.
    Put(Part),
    /// The object is gone.
    Remove(PartKey),
}

/// What a change can affect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Touched {
    /// Services whose export, endpoints or backing pods may differ now.
    pub services: BTreeSet<ServiceKey>,
    /// Whether the set of namespaces, or their labels, changed.
    pub namespaces: bool,
}

impl Touched {
    /// Whether nothing is affected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && !self.namespaces
    }

    /// Adds what another change affected.
    pub fn merge(&mut self, other: Touched) {
        self.services.extend(other.services);
        self.namespaces |= other.namespaces;
    }
}

/// Every known object, by kind and key.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Index {
    /// Services.
    pub services: BTreeMap<ServiceKey, ServiceFacts>,
    /// ServiceExports.
    pub exports: BTreeMap<ServiceKey, ServiceExport>,
    /// EndpointSlices.
    pub slices: BTreeMap<SliceKey, Slice>,
    /// Pods.
    pub pods: BTreeMap<PodKey, Pod>,
    /// Nodes.
    pub nodes: BTreeMap<String, Node>,
    /// Namespaces.
    pub namespaces: BTreeMap<Namespace, NamespacePart>,
    slices_of: BTreeMap<ServiceKey, BTreeSet<SliceKey>>,
    pod_at: BTreeMap<(Namespace, IpAddr), PodKey>,
    backing: Backing,
}

impl Index {
    /// Takes a change in, and says what it can affect; nothing when it changed nothing.
    pub fn apply(&mut self, change: Change) -> Touched {
        match change {
            Change::Put(part) => self.put(part),
            Change::Remove(key) => self.remove(&key),
        }
    }

    fn put(&mut self, part: Part) -> Touched {
        match part {
            Part::Service(key, value) => keyed(put(&mut self.services, key.clone(), value), key),
            Part::Export(key, value) => keyed(put(&mut self.exports, key.clone(), value), key),
            Part::Namespace(key, value) => {
                Touched { namespaces: put(&mut self.namespaces, key, value), ..Touched::default() }
            }
            Part::Node(name, value) => {
                if put(&mut self.nodes, name.clone(), value) {
                    self.on_node(&name)
                } else {
                    Touched::default()
                }
            }
            Part::Slice(key, value) => self.put_slice(key, value),
            Part::Pod(key, value) => self.put_pod(key, value),
        }
    }

    fn remove(&mut self, key: &PartKey) -> Touched {
        match key {
            PartKey::Service(key) => keyed(self.services.remove(key).is_some(), key.clone()),
            PartKey::Export(key) => keyed(self.exports.remove(key).is_some(), key.clone()),
            PartKey::Namespace(key) => {
                Touched { namespaces: self.namespaces.remove(key).is_some(), ..Touched::default() }
            }
            PartKey::Node(name) => {
                if self.nodes.remove(name).is_some() {
                    self.on_node(name)
                } else {
                    Touched::default()
                }
            }
            PartKey::Slice(key) => {
                let touched = self.forget_slice(key);
                self.slices.remove(key);
                touched
            }
            PartKey::Pod(key) => {
                let mut touched = self.on_pod(key);
                touched.merge(self.forget_pod(key));
                touched
            }
        }
    }

    fn put_slice(&mut self, key: SliceKey, slice: Slice) -> Touched {
        if self.slices.get(&key) == Some(&slice) {
            return Touched::default();
        }
        let mut touched = self.forget_slice(&key);
        let service = key.service(&slice);
        self.slices_of.entry(service.clone()).or_default().insert(key.clone());
        self.backing.add(&service, &slice);
        self.slices.insert(key, slice);
        touched.services.insert(service);
        touched
    }

    /// Takes a slice out of the index by service; its service is affected.
    fn forget_slice(&mut self, key: &SliceKey) -> Touched {
        let mut touched = Touched::default();
        if let Some(old) = self.slices.get(key) {
            let service = key.service(old);
            self.backing.remove(&service, old);
            if let Some(of) = self.slices_of.get_mut(&service) {
                of.remove(key);
                if of.is_empty() {
                    self.slices_of.remove(&service);
                }
            }
            touched.services.insert(service);
        }
        touched
    }

    fn put_pod(&mut self, key: PodKey, pod: Pod) -> Touched {
        if self.pods.get(&key) == Some(&pod) {
            return Touched::default();
        }
        let mut touched = self.on_pod(&key);
        touched.merge(self.forget_pod(&key));
        for ip in &pod.ips {
            self.pod_at.insert((key.namespace.clone(), *ip), key.clone());
        }
        self.pods.insert(key.clone(), pod);
        touched.merge(self.on_pod(&key));
        touched
    }

    fn forget_pod(&mut self, key: &PodKey) -> Touched {
        let Some(old) = self.pods.remove(key) else { return Touched::default() };
        for ip in old.ips {
            let at = (key.namespace.clone(), ip);
            if self.pod_at.get(&at) == Some(key) {
                self.pod_at.remove(&at);
            }
        }
        Touched::default()
    }

    /// The services whose slices name this pod or one of its addresses.
    fn on_pod(&self, key: &PodKey) -> Touched {
        let ips = self.pods.get(key).map(|p| p.ips.as_slice()).unwrap_or_default();
        let services = self.backing.of_pod(key, ips).cloned().collect();
        Touched { services, namespaces: false }
    }

    /// The services that have an endpoint on this node, by the endpoint's word or its pod's.
    fn on_node(&self, node: &str) -> Touched {
        let pod_is_here = |namespace: &Namespace, endpoint: &SliceEndpoint| {
            self.pod_of(namespace, endpoint).is_some_and(|(_, pod)| pod.node.as_deref() == Some(node))
        };
        let is_here = |service: &&ServiceKey| {
            self.slices_of(service)
                .any(|(key, slice)| slice.endpoints.iter().any(|e| pod_is_here(&key.namespace, e)))
        };
        let by_pod = self.backing.of_no_node().filter(is_here);
        let services = self.backing.of_node(node).chain(by_pod).cloned().collect();
        Touched { services, namespaces: false }
    }

    /// The slices of a service.
    pub fn slices_of<'a>(&'a self, service: &ServiceKey) -> impl Iterator<Item = (&'a SliceKey, &'a Slice)> {
        self.slices_of.get(service).into_iter().flatten().filter_map(|key| self.slices.get_key_value(key))
    }

    /// The pod behind an endpoint: the one it refers to, else the one with its address.
    #[must_use]
    pub fn pod_of(&self, namespace: &Namespace, endpoint: &SliceEndpoint) -> Option<(&PodKey, &Pod)> {
        match &endpoint.pod {
            Some(name) => {
                self.pods.get_key_value(&PodKey { namespace: namespace.clone(), name: name.clone() })
            }
            None => self
                .pod_at
                .get(&(namespace.clone(), endpoint.address))
                .and_then(|key| self.pods.get_key_value(key)),
        }
    }
}

fn put<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: K, value: V) -> bool {
    if map.get(&key) == Some(&value) {
        return false;
    }
    map.insert(key, value);
    true
}

fn keyed(changed: bool, key: ServiceKey) -> Touched {
    Touched { services: changed.then_some(key).into_iter().collect(), namespaces: false }
}

/// The namespace of a namespaced object; `default` where it says none, as the API server does.
pub(crate) fn namespace_of(meta: &ObjectMeta) -> Result<Namespace, FieldError> {
    Namespace::parse(meta.namespace.as_deref().unwrap_or("default"))
        .map_err(|e| FieldError::new("metadata.namespace", e))
}

/// The name of an object, which must not be missing.
pub(crate) fn name_of(meta: &ObjectMeta) -> Result<&str, FieldError> {
    match meta.name.as_deref() {
        Some(name) if !name.is_empty() => Ok(name),
        _ => Err(FieldError::new("metadata.name", "is missing")),
    }
}

/// A port number of Kubernetes, which is signed there.
pub(crate) fn port_number(field: impl Fn() -> String, number: i32) -> Result<u16, FieldError> {
    match u16::try_from(number) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(FieldError::new(field(), format!("{number} is not a port (1 to 65535)"))),
    }
}

pub(crate) fn protocol(
    field: impl Fn() -> String,
    name: Option<&str>,
) -> Result<sealane_core::service::Protocol, FieldError> {
    use sealane_core::service::Protocol;
    match name.unwrap_or("TCP") {
        "TCP" => Ok(Protocol::Tcp),
        "UDP" => Ok(Protocol::Udp),
        "SCTP" => Ok(Protocol::Sctp),
        other => Err(FieldError::new(field(), format!("{other:?} is not TCP, UDP or SCTP"))),
    }
}

#[cfg(test)]
mod tests;

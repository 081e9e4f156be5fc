//! The kinds that are followed, and where the API server has them.

use crate::index::{PartKey, PodKey, SliceKey};
use sealane_core::name::{Namespace, ServiceKey, ServiceName};
use std::fmt;

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Namespace,
    Node,
    Export,
    Service,
    Slice,
    Pod,
}

impl Kind {
    pub(super) const ALL: [Kind; 6] =
        [Kind::Namespace, Kind::Node, Kind::Export, Kind::Service, Kind::Slice, Kind::Pod];

    /// As RBAC and people call it.
    pub(super) fn resource(self) -> &'static str {
        match self {
            Kind::Namespace => "namespaces",
            Kind::Node => "nodes",
            Kind::Export => "serviceexports.multicluster.x-k8s.io",
            Kind::Service => "services",
            Kind::Slice => "endpointslices.discovery.k8s.io",
            Kind::Pod => "pods",
        }
    }

    /// The collections that may have it, the preferred one first.
    pub(super) fn paths(self) -> &'static [&'static str] {
        match self {
            Kind::Namespace => &["/api/v1/namespaces"],
            Kind::Node => &["/api/v1/nodes"],
            Kind::Export => &[
                "/apis/multicluster.x-k8s.io/v1beta1/serviceexports",
                "/apis/multicluster.x-k8s.io/v1alpha1/serviceexports",
            ],
            Kind::Service => &["/api/v1/services"],
            Kind::Slice => &["/apis/discovery.k8s.io/v1/endpointslices"],
            Kind::Pod => &["/api/v1/pods"],
        }
    }

    /// What a missing collection means to people.
    pub(super) fn absent(self) -> &'static str {
        match self {
            Kind::Export => {
                "the API server serves neither v1beta1 nor v1alpha1: install the CRDs (chart sealane-crds)"
            }
            _ => "the API server does not serve it",
        }
    }

    /// The key of an object of this kind; `None` for a name that no part has.
    pub(super) fn key(self, name: &ObjectName) -> Option<PartKey> {
        let namespace = || Namespace::parse(&name.namespace).ok();
        let service =
            || Some(ServiceKey { namespace: namespace()?, name: ServiceName::parse(&name.name).ok()? });
        let own = || String::from(&*name.name);
        Some(match self {
            Kind::Namespace => PartKey::Namespace(Namespace::parse(&name.name).ok()?),
            Kind::Node => PartKey::Node(own()),
            Kind::Export => PartKey::Export(service()?),
            Kind::Service => PartKey::Service(service()?),
            Kind::Slice => PartKey::Slice(SliceKey { namespace: namespace()?, name: own() }),
            Kind::Pod => PartKey::Pod(PodKey { namespace: namespace()?, name: own() }),
        })
    }
}

/// An object's name within its kind; the namespace is empty for those that have none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ObjectName {
    pub(super) namespace: Box<str>,
    pub(super) name: Box<str>,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

//! What agents write: which kinds, and by which label or name their objects are found.

use super::ours::Proof;
use anyhow::{Context, Result};
use kube::Client;
use kube::api::{ApiResource, GroupVersionKind};
use sealane_agent::desired::{MANAGED_BY, SLICE_MANAGER};
use tokio::time::timeout;

/// One kind of objects.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) group: &'static str,
    /// The best first.
    pub(super) versions: &'static [&'static str],
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
}

const fn mcs(kind: &'static str, plural: &'static str) -> Kind {
    Kind { group: "multicluster.x-k8s.io", versions: &["v1beta1", "v1alpha1"], kind, plural }
}

const fn v1(group: &'static str, kind: &'static str, plural: &'static str) -> Kind {
    Kind { group, versions: &["v1"], kind, plural }
}

pub(super) const EXPORT: Kind = mcs("ServiceExport", "serviceexports");
const IMPORT: Kind = mcs("ServiceImport", "serviceimports");
const SERVICE: Kind = v1("", "Service", "services");
const SLICE: Kind = v1("discovery.k8s.io", "EndpointSlice", "endpointslices");
pub(super) const POD: Kind = v1("", "Pod", "pods");
pub(super) const STATEFUL_SET: Kind = v1("apps", "StatefulSet", "statefulsets");
const LEASE: Kind = v1("coordination.k8s.io", "Lease", "leases");
const SECRET: Kind = v1("", "Secret", "secrets");
pub(super) const CLUSTER_PROPERTY: Kind = Kind {
    group: "about.k8s.io",
    versions: &["v1beta1", "v1alpha1"],
    kind: "ClusterProperty",
    plural: "clusterproperties",
};

/// What is found by a label, those first that own the others.
pub(super) const LABELLED: [(Kind, &str); 3] =
    [(IMPORT, MANAGED_BY), (SERVICE, MANAGED_BY), (SLICE, SLICE_MANAGER)];

/// What is found by its name, and what says that it is ours.
pub(super) const OWN: [(Kind, &str, Proof); 5] = [
    (CLUSTER_PROPERTY, "clusterset.k8s.io", Proof::Written),
    (CLUSTER_PROPERTY, "cluster.clusterset.k8s.io", Proof::Written),
    (LEASE, "sealane-agent", Proof::Labelled),
    (SECRET, "sealane-agent-identity", Proof::Labelled),
    (SECRET, "sealane-agent-ca", Proof::Labelled),
];

impl Kind {
    /// It, in one version.
    pub(super) fn resource(&self, version: &str) -> ApiResource {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(self.group, version, self.kind), self.plural)
    }

    /// It, in the best version that is served; none where the API server does not know it.
    pub(super) async fn served(&self, client: &Client) -> Result<Option<ApiResource>> {
        // What every API server has need not be asked for.
        if let [only] = self.versions {
            return Ok(Some(self.resource(only)));
        }
        for version in self.versions {
            let group = format!("{}/{version}", self.group);
            let asked = timeout(super::REQUEST, client.list_api_group_resources(&group)).await;
            match asked.context("the API server did not answer in time")? {
                Ok(list) if list.resources.iter().any(|r| r.name == self.plural) => {
                    return Ok(Some(self.resource(version)));
                }
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error).with_context(|| format!("can not ask for {group}")),
            }
        }
        Ok(None)
    }
}

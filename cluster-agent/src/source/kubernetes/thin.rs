//! Objects as they are read from the wire: only what their parts are made of. What is not named here is skipped by the
//! parser and never held, managed fields and the containers of a thousand pods first of all.

use super::kind::{Kind, ObjectName};
use crate::desired::{MANAGED_BY, MANAGER, SLICE_MANAGER};
use crate::index::{self, FieldError, Part, ServiceExportObject};
use k8s_openapi::api::core::v1 as core_v1;
use k8s_openapi::api::discovery::v1 as discovery_v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// An object of one kind.
pub(super) trait Thin: DeserializeOwned + Clone + Send + 'static {
    /// Its kind.
    const KIND: Kind;

    /// Its metadata.
    fn metadata(&self) -> &Metadata;

    /// Its part; `None` for an object that is no business of the catalog.
    fn part(self) -> Result<Option<Part>, FieldError>;
}

/// The part of an object's metadata that is read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metadata {
    name: String,
    namespace: Option<String>,
    uid: Option<String>,
    pub(super) resource_version: String,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

impl Metadata {
    pub(super) fn object_name(&self) -> ObjectName {
        let namespace = self.namespace.as_deref().unwrap_or_default();
        ObjectName { namespace: namespace.into(), name: self.name.as_str().into() }
    }

    fn is_ours(&self, label: &str) -> bool {
        // What the sink signs is what this agent imported: it is not exported again.
        self.labels.as_ref().and_then(|labels| labels.get(label)).is_some_and(|by| by == MANAGER)
    }

    fn whole(self) -> ObjectMeta {
        ObjectMeta {
            name: Some(self.name),
            namespace: self.namespace,
            uid: self.uid,
            generation: self.generation,
            creation_timestamp: self.creation_timestamp,
            labels: self.labels,
            annotations: self.annotations,
            ..ObjectMeta::default()
        }
    }
}

/// A Namespace.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Namespace {
    metadata: Metadata,
}

/// A Node.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Node {
    metadata: Metadata,
}

/// A ServiceExport, of either version.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Export {
    metadata: Metadata,
    /// Not typed yet: one that breaks the schema is a problem of its author, and not of the watch.
    #[serde(default)]
    spec: Option<serde_json::Value>,
}

/// A Service.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Service {
    metadata: Metadata,
    #[serde(default)]
    spec: Option<core_v1::ServiceSpec>,
}

/// An EndpointSlice.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Slice {
    metadata: Metadata,
    #[serde(default)]
    address_type: String,
    #[serde(default)]
    endpoints: Option<Vec<discovery_v1::Endpoint>>,
    #[serde(default)]
    ports: Option<Vec<discovery_v1::EndpointPort>>,
}

/// A Pod.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Pod {
    metadata: Metadata,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: Option<String>,
    service_account_name: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<core_v1::PodIP>>,
}

impl Thin for Namespace {
    const KIND: Kind = Kind::Namespace;

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn part(self) -> Result<Option<Part>, FieldError> {
        let object = core_v1::Namespace { metadata: self.metadata.whole(), ..Default::default() };
        index::NamespacePart::reduce(object).map(|(key, part)| Some(Part::Namespace(key, part)))
    }
}

impl Thin for Node {
    const KIND: Kind = Kind::Node;

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn part(self) -> Result<Option<Part>, FieldError> {
        let object = core_v1::Node { metadata: self.metadata.whole(), ..Default::default() };
        index::Node::reduce(object).map(|(key, part)| Some(Part::Node(key, part)))
    }
}

impl Thin for Export {
    const KIND: Kind = Kind::Export;

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn part(self) -> Result<Option<Part>, FieldError> {
        let spec = self.spec.map(serde_json::from_value).transpose();
        let spec = spec.map_err(|e| FieldError { field: "spec".to_owned(), reason: e.to_string() })?;
        let object = ServiceExportObject { metadata: self.metadata.whole(), spec };
        index::ServiceExport::reduce(object).map(|(key, part)| Some(Part::Export(key, part)))
    }
}

impl Thin for Service {
    const KIND: Kind = Kind::Service;

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn part(self) -> Result<Option<Part>, FieldError> {
        if self.metadata.is_ours(MANAGED_BY) {
            return Ok(None);
        }
        let object =
            core_v1::Service { metadata: self.metadata.whole(), spec: self.spec, ..Default::default() };
        index::service::reduce(object).map(|(key, part)| Some(Part::Service(key, part)))
    }
}

impl Thin for Slice {
    const KIND: Kind = Kind::Slice;

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn part(self) -> Result<Option<Part>, FieldError> {
        if self.metadata.is_ours(SLICE_MANAGER) {
            return Ok(None);
        }
        let object = discovery_v1::EndpointSlice {
            metadata: self.metadata.whole(),
            address_type: self.address_type,
            endpoints: self.endpoints,
            ports: self.ports,
        };
        Ok(index::Slice::reduce(object)?.map(|(key, part)| Part::Slice(key, part)))
    }
}

impl Thin for Pod {
    const KIND: Kind = Kind::Pod;

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn part(self) -> Result<Option<Part>, FieldError> {
        // Its addresses may be another pod's by now.
        let ended = matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let status = (!ended).then(|| core_v1::PodStatus {
            pod_ip: self.status.pod_ip,
            pod_ips: self.status.pod_ips,
            ..Default::default()
        });
        let spec = core_v1::PodSpec {
            node_name: self.spec.node_name,
            service_account_name: self.spec.service_account_name,
            ..Default::default()
        };
        let object = core_v1::Pod { metadata: self.metadata.whole(), spec: Some(spec), status };
        index::Pod::reduce(object).map(|(key, part)| Some(Part::Pod(key, part)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{PodKey, ServiceExport};
    use sealane_core::name::ServiceKey;
    use sealane_core::time::Millis;
    use serde_json::json;

    fn part<T: Thin>(value: serde_json::Value) -> Result<Option<Part>, FieldError> {
        serde_json::from_value::<T>(value).unwrap().part()
    }

    #[test]
    fn a_pod_is_reduced_to_what_endpoints_show_and_an_ended_one_has_no_address() {
        let pod = |phase: &str| {
            json!({
                "metadata": {"name": "cart-0", "namespace": "shop", "uid": "u-1", "resourceVersion": "7",
                    "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}]},
                "spec": {"nodeName": "n1", "serviceAccountName": "cart", "containers": [{"name": "c", "image": "i"}]},
                "status": {"phase": phase, "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
            })
        };
        let expected = |ips: &[&str]| {
            let key = PodKey { namespace: "shop".parse().unwrap(), name: "cart-0".to_owned() };
            let pod = index::Pod {
                uid: Some("u-1".to_owned()),
                account: "cart".parse().unwrap(),
                ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
                node: Some("n1".to_owned()),
                inbound_port: None,
                network: None,
            };
            Ok(Some(Part::Pod(key, pod)))
        };
        assert_eq!(part::<Pod>(pod("Running")), expected(&["10.0.0.1", "fd00::1"]));
        assert_eq!(part::<Pod>(pod("Succeeded")), expected(&[]));
    }

    #[test]
    fn what_the_agent_wrote_itself_is_not_exported() {
        let labels = json!({"kubernetes.io/service-name": "derived-x", "endpointslice.kubernetes.io/managed-by": "sealane-agent"});
        let slice = json!({"metadata": {"name": "s", "namespace": "shop", "labels": labels}, "addressType": "IPv4",
            "endpoints": null, "ports": null});
        assert_eq!(part::<Slice>(slice), Ok(None));
        let labels = json!({"app.kubernetes.io/managed-by": "sealane-agent"});
        let service =
            json!({"metadata": {"name": "derived-x", "namespace": "shop", "labels": labels}, "spec": {}});
        assert_eq!(part::<Service>(service), Ok(None));
    }

    #[test]
    fn an_export_that_breaks_the_schema_is_refused_by_field_and_breaks_no_watch() {
        let export = |spec| {
            json!({"metadata": {"name": "cart", "namespace": "shop", "generation": 2,
            "creationTimestamp": "1970-01-01T00:00:01Z"}, "spec": spec, "status": {"conditions": []}})
        };
        let good = ServiceExport {
            labels: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
            created: Millis(1_000),
            generation: Some(2),
            ..ServiceExport::default()
        };
        let key = ServiceKey::parse("shop/cart").unwrap();
        assert_eq!(
            part::<Export>(export(json!({"exportedLabels": {"team": "a"}}))),
            Ok(Some(Part::Export(key, good)))
        );
        assert_eq!(part::<Export>(export(json!({"exportedLabels": 1}))).unwrap_err().field, "spec");
    }
}

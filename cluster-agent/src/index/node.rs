//! Nodes, for where endpoints are.

use super::pod::network;
use super::{FieldError, name_of};
use k8s_openapi::api::core::v1 as core_v1;
use sealane_core::name::{NetworkName, TopologyName};

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// Its region.
    pub region: Option<TopologyName>,
    /// Its zone.
    pub zone: Option<TopologyName>,
    /// The network of its pods, where it states one.
    pub network: Option<NetworkName>,
}

impl Node {
    /// Reduces a node.
    ///
    /// # Errors
    /// When it has no name, or its region or zone is not a label value.
    pub fn reduce(object: core_v1::Node) -> Result<(String, Self), FieldError> {
        let name = name_of(&object.metadata)?.to_owned();
        let network = network(&object.metadata)?;
        let labels = object.metadata.labels.unwrap_or_default();
        let place = |label: &str| {
            let value = labels.get(label).map(|v| TopologyName::parse(v)).transpose();
            value.map_err(|e| FieldError::new(format!("metadata.labels[{label}]"), e))
        };
        let region = place("topology.kubernetes.io/region")?;
        Ok((name, Node { region, zone: place("topology.kubernetes.io/zone")?, network }))
    }
}

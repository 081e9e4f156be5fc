//! Pods.

use super::{FieldError, name_of, namespace_of};
use k8s_openapi::api::core::v1 as core_v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sealane_core::name::{Namespace, NetworkName, ServiceAccount};
use std::fmt;
use std::net::IpAddr;

/// The annotation that names the port of a pod's inbound proxy.
pub const INBOUND_PORT: &str = "sealane.dev/inbound-port";

/// The annotation of a pod or a node that names its network, where that is not its cluster's.
pub(super) const NETWORK: &str = "sealane.dev/network";

/// Which pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodKey {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: String,
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The parts of a pod that its endpoints show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its UID, where it has one (files written by people often do not).
    pub uid: Option<String>,
    /// Its ServiceAccount.
    pub account: ServiceAccount,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Its node.
    pub node: Option<String>,
    /// The port of its inbound proxy.
    pub inbound_port: Option<u16>,
    /// Its network, where it states one.
    pub network: Option<NetworkName>,
}

impl Pod {
    /// Reduces a pod.
    ///
    /// # Errors
    /// When a field breaks a rule of the API or of the federation's names.
    pub fn reduce(object: core_v1::Pod) -> Result<(PodKey, Self), FieldError> {
        let key = PodKey {
            namespace: namespace_of(&object.metadata)?,
            name: name_of(&object.metadata)?.to_owned(),
        };
        let spec = object.spec.unwrap_or_default();
        let account = spec.service_account_name.or(spec.service_account).filter(|a| !a.is_empty());
        let account = ServiceAccount::parse(account.as_deref().unwrap_or("default"))
            .map_err(|e| FieldError::new("spec.serviceAccountName", e))?;
        let annotation = object.metadata.annotations.as_ref().and_then(|a| a.get(INBOUND_PORT));
        let inbound_port = annotation.map(|text| inbound_port(text)).transpose()?;
        let network = network(&object.metadata)?;
        let ips = ips(object.status.unwrap_or_default())?;
        let (uid, node) = (object.metadata.uid, spec.node_name);
        Ok((key, Pod { uid, account, ips, node, inbound_port, network }))
    }
}

/// The network that an object's annotation names.
pub(super) fn network(metadata: &ObjectMeta) -> Result<Option<NetworkName>, FieldError> {
    let annotation = metadata.annotations.as_ref().and_then(|a| a.get(NETWORK));
    let named = annotation.map(|text| NetworkName::parse(text)).transpose();
    named.map_err(|e| FieldError::new(format!("metadata.annotations[{NETWORK}]"), e))
}

fn inbound_port(text: &str) -> Result<u16, FieldError> {
    match text.parse::<u16>() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(FieldError::new(
            format!("metadata.annotations[{INBOUND_PORT}]"),
            format!("{text:?} is not a port (1 to 65535)"),
        )),
    }
}

fn ips(status: core_v1::PodStatus) -> Result<Vec<IpAddr>, FieldError> {
    let several = status.pod_ips.unwrap_or_default().into_iter().map(|p| p.ip);
    let mut ips = Vec::new();
    for text in status.pod_ip.into_iter().chain(several).filter(|t| !t.is_empty()) {
        let ip = text
            .parse()
            .map_err(|_| FieldError::new("status.podIP", format!("{text:?} is not an IP address")))?;
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    Ok(ips)
}

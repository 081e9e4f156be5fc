//! The derived Service of an import: kube-proxy serves its address, which is the import's clusterset address.

use super::seen::Kind;
use crate::desired::{MANAGED_BY, MANAGER, SLICE_SERVICE, family_of};
use sealane_core::name::ServiceKey;
use sealane_core::service::{IpFamily, Port, SessionAffinity};
use sealane_core::view::Import;
use serde_json::{Value, json};
use std::net::IpAddr;

/// The annotation of a ServiceImport that names its derived Service.
pub const ANNOTATION: &str = "multicluster.kubernetes.io/derived-service";
/// What Kubernetes itself takes where a Service has client affinity and says no time-out.
const AFFINITY_S: u32 = 10_800;

/// Its name, as the reference controllers make it.
#[must_use]
pub fn name(service: &ServiceKey) -> String {
    let hash = sealane_trust::sha256(service.to_string().as_bytes());
    let hash = data_encoding::BASE32HEX_NOPAD.encode(&hash).to_ascii_lowercase();
    format!("derived-{}", &hash[..10])
}

/// Of these addresses, those that a Service of these families can keep: the longest run from the first that fits.
#[must_use]
pub fn fitting(addresses: &[IpAddr], families: &[IpFamily]) -> Vec<IpAddr> {
    let pairs = addresses.iter().zip(families);
    pairs
        .take_while(|(address, family)| family_of(**address) == **family)
        .map(|(address, _)| *address)
        .collect()
}

/// The Service, with these addresses where it had them before.
#[must_use]
pub fn body(import: &Import, families: &[IpFamily], addresses: &[IpAddr], owner: Value) -> Value {
    let policy = if families.len() > 1 { "RequireDualStack" } else { "SingleStack" };
    let mut spec = json!({
        "type": "ClusterIP",
        "ports": import.ports.iter().map(port).collect::<Vec<_>>(),
        "ipFamilies": families.iter().map(|f| f.as_str()).collect::<Vec<_>>(),
        "ipFamilyPolicy": policy,
        "sessionAffinity": import.session_affinity.as_str(),
        "internalTrafficPolicy": import.internal_traffic_policy.as_str(),
    });
    if import.session_affinity == SessionAffinity::ClientIp {
        let seconds = import.session_affinity_timeout_s.unwrap_or(AFFINITY_S);
        spec["sessionAffinityConfig"] = json!({ "clientIP": { "timeoutSeconds": seconds } });
    }
    // It takes effect by the hints of slices. The name that every server knows stands for those that came later.
    if import.traffic_distribution.as_deref().is_some_and(|d| d.starts_with("Prefer")) {
        spec["trafficDistribution"] = json!("PreferClose");
    }
    if let Some(first) = addresses.first() {
        spec["clusterIP"] = json!(first);
        spec["clusterIPs"] = json!(addresses);
    }
    json!({
        "apiVersion": "v1",
        "kind": Kind::Service.as_str(),
        "metadata": {
            "labels": { MANAGED_BY: MANAGER, SLICE_SERVICE: import.service.name.as_str() },
            "ownerReferences": [owner],
        },
        "spec": spec,
    })
}

fn port(port: &Port) -> Value {
    let mut made = json!({ "protocol": port.protocol.as_str(), "port": port.port });
    if !port.name.as_str().is_empty() {
        made["name"] = json!(port.name.as_str());
    }
    if let Some(protocol) = &port.app_protocol {
        made["appProtocol"] = json!(protocol);
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_that_of_the_reference_controllers() {
        let service = ServiceKey::parse("shop/web").unwrap();
        // printf shop/web | sha256sum, in base32hex, the first ten characters
        assert_eq!(name(&service), EXPECTED);
    }

    const EXPECTED: &str = "derived-isrlchlhrq";

    #[test]
    fn addresses_fit_from_the_first_on() {
        let ips = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<IpAddr>>();
        let (v4, v6) = (IpFamily::V4, IpFamily::V6);
        let both = ips(&["10.0.0.1", "fd00::1"]);
        assert_eq!(fitting(&both, &[v4, v6]), both);
        assert_eq!(fitting(&both, &[v4]), ips(&["10.0.0.1"]));
        assert_eq!(fitting(&both, &[v6, v4]), ips(&[]));
        assert_eq!(fitting(&ips(&["10.0.0.1"]), &[v4, v6]), ips(&["10.0.0.1"]));
    }
}

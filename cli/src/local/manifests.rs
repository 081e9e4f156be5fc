//! The Kubernetes objects of a cluster that is described by files.

use std::net::Ipv4Addr;

/// A Namespace.
#[must_use]
pub fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n")
}

/// A Pod that runs, with the port of its inbound proxy if it has one.
#[must_use]
pub fn pod(
    cluster: &str,
    namespace: &str,
    name: &str,
    account: &str,
    ip: Ipv4Addr,
    inbound: Option<u16>,
) -> String {
    let annotations = inbound
        .map(|port| format!("  annotations:\n    sealane.dev/inbound-port: \"{port}\"\n"))
        .unwrap_or_default();
    let uid = uid(cluster, namespace, name);
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  uid: {uid}\n{annotations}\
         spec:\n  serviceAccountName: {account}\n  containers:\n  - name: app\n\
         status:\n  phase: Running\n  podIP: {ip}\n  podIPs:\n  - ip: {ip}\n"
    )
}

/// A Service with one port `http`.
#[must_use]
pub fn service(namespace: &str, name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: {namespace}\n\
         spec:\n  type: ClusterIP\n  ports:\n  - name: http\n    protocol: TCP\n    port: {port}\n"
    )
}

/// An EndpointSlice of one pod.
#[must_use]
pub fn slice(cluster: &str, namespace: &str, service: &str, pod: &str, ip: Ipv4Addr, port: u16) -> String {
    let uid = uid(cluster, namespace, pod);
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {service}-{pod}\n  namespace: \
         {namespace}\n  labels:\n    kubernetes.io/service-name: {service}\naddressType: IPv4\nports:\n- name: http\n  \
         protocol: TCP\n  port: {port}\nendpoints:\n- addresses:\n  - {ip}\n  conditions:\n    ready: true\n  \
         targetRef:\n    kind: Pod\n    name: {pod}\n    namespace: {namespace}\n    uid: {uid}\n"
    )
}

/// A ServiceExport.
#[must_use]
pub fn export(namespace: &str, name: &str) -> String {
    format!(
        "apiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceExport\nmetadata:\n  name: {name}\n  namespace: \
         {namespace}\n"
    )
}

/// A pod's UID: the same for the same pod, different for any other.
fn uid(cluster: &str, namespace: &str, name: &str) -> String {
    let hash = sealane_trust::sha256(format!("{cluster}/{namespace}/{name}").as_bytes());
    let hex: String = hash[..16].iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_is_yaml_of_its_kind() {
        let ip = Ipv4Addr::LOCALHOST;
        for (text, kind) in [
            (namespace("shop"), "Namespace"),
            (pod("west", "shop", "cart-1", "cart", ip, Some(15008)), "Pod"),
            (service("shop", "cart", 80), "Service"),
            (slice("west", "shop", "cart", "cart-1", ip, 8080), "EndpointSlice"),
            (export("shop", "cart"), "ServiceExport"),
        ] {
            let object: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
            assert_eq!(object["kind"], kind, "{text}");
        }
        let pod: serde_json::Value =
            serde_saphyr::from_str(&pod("w", "shop", "a", "sa", ip, Some(7))).unwrap();
        assert_eq!(pod["metadata"]["annotations"]["sealane.dev/inbound-port"], "7");
        assert_eq!(pod["status"]["podIP"], "127.0.0.1");
    }
}

//! CoreDNS in a cluster, as people have it, with its multi-cluster zone.

use super::images::COREDNS;
use super::layout::Plan;
use serde_json::{Value, json};

const NAMESPACE: &str = "kube-system";

/// The zones. Each in a block of its own: that of the cluster answers though nobody has installed the MCS API, which
/// the other waits for. Names of the world outside are refused: there is no way to it.
const COREFILE: &str = "\
.:53 {
    errors
    health
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        ttl 5
    }
    loadbalance
}
clusterset.local:53 {
    errors
    kubernetes clusterset.local {
        multicluster clusterset.local
        startup_timeout 1s
        ttl 5
    }
    loadbalance
}
";

/// All its objects.
pub(super) fn objects(plan: &Plan) -> Vec<Value> {
    let labels = json!({"k8s-app": "kube-dns"});
    vec![
        object("v1", "ServiceAccount", "coredns", json!({})),
        role(),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "system:coredns"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
            "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": NAMESPACE}],
        }),
        object("v1", "ConfigMap", "coredns", json!({"data": {"Corefile": COREFILE}})),
        object(
            "apps/v1",
            "Deployment",
            "coredns",
            json!({"spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod()},
            }}),
        ),
        service(plan, &labels),
    ]
}

fn object(version: &str, kind: &str, name: &str, rest: Value) -> Value {
    let mut object = json!({
        "apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE},
    });
    if let (Some(object), Value::Object(rest)) = (object.as_object_mut(), rest) {
        object.extend(rest);
    }
    object
}

fn role() -> Value {
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    let read = &["list", "watch"];
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "system:coredns"},
        "rules": [
            rule("", &["services", "pods", "namespaces"], read),
            rule("", &["nodes"], &["get"]),
            rule("discovery.k8s.io", &["endpointslices"], read),
            rule("multicluster.x-k8s.io", &["serviceimports"], read),
        ],
    })
}

fn pod() -> Value {
    let port = |name: &str, protocol: &str| json!({"name": name, "containerPort": 53, "protocol": protocol});
    let probe = |path: &str, port: u16| json!({"httpGet": {"path": path, "port": port}, "periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": 5});
    json!({
        "serviceAccountName": "coredns",
        "priorityClassName": "system-cluster-critical",
        "dnsPolicy": "Default",
        "containers": [{
            "name": "coredns",
            "image": COREDNS,
            "imagePullPolicy": "IfNotPresent",
            "args": ["-conf", "/etc/coredns/Corefile"],
            "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")],
            "livenessProbe": probe("/health", 8080),
            "readinessProbe": probe("/ready", 8181),
            "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": true}],
        }],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
    })
}

fn service(plan: &Plan, labels: &Value) -> Value {
    let port = |name: &str, protocol: &str| json!({"name": name, "port": 53, "protocol": protocol});
    object(
        "v1",
        "Service",
        "kube-dns",
        json!({"spec": {
            "selector": labels,
            "clusterIP": plan.dns(),
            "ipFamilyPolicy": "PreferDualStack",
            "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")],
        }}),
    )
}

#[cfg(test)]
mod tests {
    use super::super::layout::{Topology, plan};
    use super::*;

    #[test]
    fn the_service_has_the_address_that_pods_are_told() {
        let plans = plan(2, Topology::Flat, &[]).unwrap();
        let objects = objects(&plans[1]);
        let service = &objects[5];
        assert_eq!(
            (&service["kind"], &service["spec"]["clusterIP"]),
            (&json!("Service"), &json!("10.122.0.10"))
        );
        assert_eq!(service["metadata"], json!({"name": "kube-dns", "namespace": "kube-system"}));
    }
}

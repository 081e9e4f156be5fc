//! The objects of the specs.

use serde_json::{Value, json};

/// The name of the Service, its workload and its export.
pub(crate) const HELLO: &str = "hello";
/// The pod that asks.
pub(crate) const REQUEST: &str = "request";
/// The port of the Service.
pub(crate) const PORT: u16 = 42;
/// For how long a client stays with one pod.
pub(crate) const AFFINITY_S: u32 = 10;

/// A Service of both families where the cluster has them, over TCP and UDP, whose clients stay with one pod.
pub(crate) fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": HELLO},
        "spec": {
            "selector": {"app": HELLO},
            "ipFamilyPolicy": "PreferDualStack",
            "ports": [
                {"name": "tcp", "protocol": "TCP", "port": PORT, "appProtocol": "http"},
                {"name": "udp", "protocol": "UDP", "port": PORT},
            ],
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": AFFINITY_S}},
        },
    })
}

/// The Service, with other fields in its spec.
pub(crate) fn service_with(fields: Value) -> Value {
    let mut service = service();
    if let (Some(spec), Value::Object(fields)) = (service["spec"].as_object_mut(), fields) {
        spec.extend(fields);
    }
    service
}

/// The Service without an address.
pub(crate) fn headless() -> Value {
    let mut service = service_with(json!({"clusterIP": "None", "sessionAffinity": "None"}));
    if let Some(spec) = service["spec"].as_object_mut() {
        spec.remove("sessionAffinityConfig");
    }
    service
}

/// Its pods, each of which says its address.
pub(crate) fn deployment(replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": HELLO},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": HELLO}}, "template": template()},
    })
}

/// Its pods, which have names of their own.
pub(crate) fn stateful_set(replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": HELLO},
        "spec": {
            "replicas": replicas, "serviceName": HELLO, "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": HELLO}}, "template": template(),
        },
    })
}

fn template() -> Value {
    let container = |protocol: &str| {
        json!({
            "name": format!("hello-{protocol}"),
            "image": "alpine/socat:1.7.4.4",
            "imagePullPolicy": "IfNotPresent",
            "args": [
                "-v", "-v",
                format!("{}-LISTEN:{PORT},crlf,reuseaddr,fork", protocol.to_uppercase()),
                "SYSTEM:echo pod ip $(MY_POD_IP)",
            ],
            "env": [{"name": "MY_POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        })
    };
    json!({
        "metadata": {"labels": {"app": HELLO}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container("tcp"), container("udp")]},
    })
}

/// A pod to send requests from.
pub(crate) fn request() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": REQUEST, "labels": {"app": REQUEST}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": REQUEST,
                "image": "nicolaka/netshoot:v0.15",
                "imagePullPolicy": "IfNotPresent",
                "args": ["/bin/sh", "-ec", "while :; do echo '.'; sleep 5; done"],
            }],
        },
    })
}

/// An export of the Service.
pub(crate) fn export() -> Value {
    export_of(HELLO)
}

/// An export of another Service.
pub(crate) fn export_of(name: &str) -> Value {
    json!({"apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport", "metadata": {"name": name}})
}

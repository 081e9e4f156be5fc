//! What the tests run in clusters: a namespace with a server, its Services and a client.

use serde_json::{Value, json};

/// All of it, for one cluster: `shop/echo` answers with the cluster's name; in `east` a dual-stack Service stands beside it.
#[must_use]
pub fn shop(cluster: &str) -> Value {
    let pod = |name: &str, image: &str, args: &[&str]| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop", "labels": {"app": name}},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": name, "image": image, "imagePullPolicy": "IfNotPresent", "args": args}],
            },
        })
    };
    let service = |name: &str, policy: &str| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"ipFamilyPolicy": policy, "selector": {"app": "echo"}, "ports": [{"port": 42}]},
        })
    };
    let here = format!("SYSTEM:echo here is {cluster}");
    let listen = "TCP6-LISTEN:42,ipv6only=0,reuseaddr,fork";
    let mut items = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}),
        pod("echo", "alpine/socat:1.7.4.4", &["-d", "-d", listen, &here]),
        pod("client", "nicolaka/netshoot:v0.15", &["/bin/sh", "-c", "while :; do sleep 5; done"]),
        service("echo", "SingleStack"),
    ];
    if cluster == "east" {
        items.push(service("both", "RequireDualStack"));
    }
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

//! `sealane uninstall` before a real API server, with the rights that the chart gives to the Job that runs it.

use anyhow::{Result, ensure};
use sealane::local::Lab;
use sealane_tests::charts::{NAMESPACE, render};
use sealane_tests::control_plane::{ControlPlane, Shape};
use sealane_tests::{in_lab, skip, tools};
use serde_json::{Value, json};
use std::path::Path;

const IMPORT: &str = "multicluster.x-k8s.io/v1beta1";
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

fn import(name: &str, manager: &str) -> Value {
    json!({
        "apiVersion": IMPORT,
        "kind": "ServiceImport",
        "metadata": {"name": name, "namespace": "shop", "labels": {MANAGED_BY: manager}},
        "spec": {"type": "ClusterSetIP", "ports": [{"port": 80, "protocol": "TCP"}]},
    })
}

/// What an agent would have written.
fn written() -> Vec<Value> {
    let of_shop = |name: &str, label: &str| json!({"name": name, "namespace": "shop", "labels": {label: "sealane-agent"}});
    let own =
        |name: &str| json!({"name": name, "namespace": NAMESPACE, "labels": {MANAGED_BY: "sealane-agent"}});
    let property = |name: &str| {
        let metadata = json!({"name": name, "labels": {MANAGED_BY: "sealane-agent"}});
        json!({"apiVersion": "about.k8s.io/v1beta1", "kind": "ClusterProperty", "metadata": metadata, "spec": {"value": "x"}})
    };
    let slice = of_shop("cart-west", "endpointslice.kubernetes.io/managed-by");
    vec![
        import("cart", "sealane-agent"),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": of_shop("derived-cart", MANAGED_BY),
            "spec": {"ports": [{"port": 80}]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": slice, "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [],
        }),
        property("clusterset.k8s.io"),
        property("cluster.clusterset.k8s.io"),
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": own("sealane-agent")}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": own("sealane-agent-identity")}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": own("sealane-agent-ca")}),
    ]
}

/// What others wrote, some of it with our label on it.
fn foreign() -> Vec<Value> {
    vec![
        import("forged", "sealane-agent"),
        import("theirs", "another"),
        json!({"apiVersion": IMPORT, "kind": "ServiceExport", "metadata": {"name": "cart", "namespace": "shop"}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "sealane-join-token", "namespace": NAMESPACE}}),
    ]
}

/// What others made under the names of what is ours in our namespace.
fn namesakes() -> Vec<Value> {
    let own = |name: &str| json!({"name": name, "namespace": NAMESPACE, "labels": {MANAGED_BY: "another"}});
    let labels = json!({"app": "another"});
    let template =
        json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "a"}]}});
    let spec = json!({"serviceName": "a", "selector": {"matchLabels": labels}, "template": template});
    vec![
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": own("sealane-agent")}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": own("sealane-agent-identity")}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": own("sealane-agent-ca")}),
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": own("sealane-agent"), "spec": spec}),
    ]
}

async fn write(
    plane: &ControlPlane,
    directory: &Path,
    manager: &str,
    objects: Vec<Value>,
    more: &[&str],
) -> Result<()> {
    let file = directory.join("objects.json");
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    std::fs::write(&file, list.to_string())?;
    let (filename, manager) =
        (format!("--filename={}", file.display()), format!("--field-manager={manager}"));
    let mut words = vec!["apply", "--server-side", "--force-conflicts", &filename, &manager];
    words.extend(more);
    plane.kubectl(&words).await.map(drop)
}

/// What is refused, or only asked, touches nothing.
async fn untouched(lab: &Lab, plane: &ControlPlane, asked: &[&str]) -> Result<()> {
    let all = "serviceimports,services,endpointslices,secrets,leases,statefulsets";
    let get = ["get", all, "--all-namespaces", "--output=jsonpath={.items[*].metadata.resourceVersion}"];
    let before = plane.kubectl(&get).await?;
    let told = lab.launcher().output(asked).await?;
    let said = String::from_utf8_lossy(&told.stdout);
    let rows: Vec<Vec<&str>> = said.lines().skip(1).map(|l| l.split_whitespace().collect()).collect();
    ensure!(told.status.success() && said.starts_with("nothing was touched"), "{said}");
    ensure!(
        rows.contains(&vec!["ServiceImport", "1"]) && rows.contains(&vec!["StatefulSet", "sealane-agent"]),
        "{said}"
    );

    let labels = json!({"app.kubernetes.io/name": "sealane", "app.kubernetes.io/component": "agent"});
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "sealane-agent-0", "namespace": "shop", "labels": labels},
        "spec": {"containers": [{"name": "agent", "image": "sealane"}]}});
    plane.apply(&pod.to_string()).await?;
    for (more, reason) in [
        (["--yes"], "run in the namespace shop, not in sealane-system: nothing was touched"),
        (["--context=east"], "(--kube-context names the context of a kubeconfig)"),
    ] {
        let refused = lab.launcher().output(&[asked, &more].concat()).await?;
        let said = String::from_utf8_lossy(&refused.stderr);
        ensure!(!refused.status.success() && said.contains(reason), "{said}");
    }
    plane
        .kubectl(&["delete", "pod/sealane-agent-0", "--namespace=shop", "--force", "--grace-period=0"])
        .await?;
    let after = plane.kubectl(&get).await?;
    ensure!(after == before, "{after} was {before}");
    Ok(())
}

#[test]
fn an_uninstall_takes_out_what_is_ours_and_nothing_else() {
    let needed = [&tools::ETCD, &tools::API_SERVER, &tools::KUBECTL, &tools::HELM];
    if let Some(reason) = tools::missing(&needed) {
        return skip("an_uninstall_takes_out_what_is_ours_and_nothing_else", &reason);
    }
    in_lab(async |lab| {
        let plane = ControlPlane::start(lab, Shape::new("leaving", 6)).await?;
        for namespace in [NAMESPACE, "shop"] {
            plane.kubectl(&["create", "namespace", namespace]).await?;
        }
        plane.apply(&render("sealane-crds", None, &[])?).await?;
        plane.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"]).await?;
        plane.apply(&render("sealane-cluster", None, &[])?).await?;
        let directory = lab.directory("objects")?;
        write(&plane, &directory, "another", foreign(), &[]).await?;
        write(&plane, &directory, "sealane-agent", written(), &[]).await?;
        let condition = json!({
            "type": "Valid", "status": "True", "reason": "Valid", "message": "",
            "lastTransitionTime": "2026-11-21T00:00:00Z",
        });
        let metadata = json!({"name": "cart", "namespace": "shop"});
        let status = json!({
            "apiVersion": IMPORT, "kind": "ServiceExport", "metadata": metadata, "status": {"conditions": [condition]},
        });
        write(&plane, &directory, "sealane-agent", vec![status], &["--subresource=status"]).await?;

        let account = format!("system:serviceaccount:{NAMESPACE}:sealane-agent");
        let kubeconfig = plane.kubeconfig_of(&account, "")?.display().to_string();
        let asked = ["uninstall", "--namespace", NAMESPACE, "--kubeconfig", &kubeconfig];
        let words = [&asked[..], &["--yes"]].concat();
        untouched(lab, &plane, &asked).await?;
        lab.launcher().run(&words).await?;

        let kinds = "serviceimports,serviceexports,services,endpointslices,secrets,leases,statefulsets";
        let name = "--output=name";
        let shop = plane.kubectl(&["get", kinds, "--namespace=shop", name]).await?;
        let mcs = "multicluster.x-k8s.io";
        let left =
            format!("serviceimport.{mcs}/forged\nserviceimport.{mcs}/theirs\nserviceexport.{mcs}/cart\n");
        ensure!(shop == left, "{shop}");
        let own =
            plane.kubectl(&["get", "secrets,leases,statefulsets", "--namespace", NAMESPACE, name]).await?;
        ensure!(own == "secret/sealane-join-token\n", "{own}");
        let properties = plane.kubectl(&["get", "clusterproperties", name]).await?;
        ensure!(properties.is_empty(), "{properties}");
        let status = plane
            .kubectl(&["get", "svcex", "cart", "--namespace=shop", "--output=jsonpath={.status}"])
            .await?;
        ensure!(!status.contains("Valid"), "{status}");

        // Again, where nothing is left to do but what others made under our names.
        write(&plane, &directory, "another", namesakes(), &[]).await?;
        let again = lab.launcher().output(&words).await?;
        let said = String::from_utf8_lossy(&again.stderr);
        ensure!(again.status.success(), "{said}");
        let own =
            plane.kubectl(&["get", "secrets,leases,statefulsets", "--namespace", NAMESPACE, name]).await?;
        let left = "secret/sealane-agent-ca\nsecret/sealane-agent-identity\nsecret/sealane-join-token\n\
            lease.coordination.k8s.io/sealane-agent\nstatefulset.apps/sealane-agent\n";
        ensure!(own == left, "{own}");
        // Those four, and the import that bears our label.
        ensure!(said.matches("left as it is").count() == 5, "{said}");
        Ok(())
    });
}

//! The charts before a real API server: what they render is taken, in a namespace that enforces `restricted`; the CRDs are
//! those that clients expect; foreign ones are left alone.

use anyhow::{Context, Result, ensure};
use sealane_tests::charts::golden::Golden;
use sealane_tests::charts::{CHARTS, NAMESPACE, helm, objects, path, render};
use sealane_tests::control_plane::{ControlPlane, Shape};
use sealane_tests::{in_lab, skip, tools};
use serde_json::{Value, json};

fn ready(test: &str) -> bool {
    let needed = [&tools::ETCD, &tools::API_SERVER, &tools::KUBECTL, &tools::HELM];
    match tools::missing(&needed) {
        Some(reason) => {
            skip(test, &reason);
            false
        }
        None => true,
    }
}

/// Asks the API server to take a manifest, and to keep nothing.
async fn try_out(
    plane: &ControlPlane,
    directory: &std::path::Path,
    name: &str,
    manifest: &str,
) -> Result<String> {
    let file = directory.join("manifest.yaml");
    std::fs::write(&file, manifest)?;
    let filename = format!("--filename={}", file.display());
    let words = ["apply", "--server-side", "--dry-run=server", "--namespace", NAMESPACE, &filename];
    plane.kubectl(&words).await.with_context(|| name.to_owned())
}

/// The namespace of a cautious operator, with the ServiceAccounts and priorities that pods name.
async fn furnish(plane: &ControlPlane) -> Result<()> {
    let namespace = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    });
    plane.apply(&namespace.to_string()).await?;
    plane.apply(&render("sealane-crds", None, &[])?).await?;
    plane.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"]).await?;
    plane.apply(&render("sealane-federation", None, &[])?).await?;
    plane.apply(&render("sealane-cluster", Some("values-gateway"), &[])?).await?;
    // They would be changed, and not made, by what is tried out.
    plane.kubectl(&["delete", "statefulsets", "--all", "--namespace", NAMESPACE]).await?;
    Ok(())
}

/// The pods that a workload would make, as manifests.
fn pods(render: &str) -> Result<Vec<(String, Value)>> {
    let mut pods = Vec::new();
    for object in objects(render)? {
        let template = &object["spec"]["template"];
        if template["spec"].is_null() {
            continue;
        }
        let name = format!("{}-0", object["metadata"]["name"].as_str().context("a workload has a name")?);
        let mut spec = template["spec"].clone();
        // What the StatefulSet's controller adds.
        let claims = object["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten();
        for claim in claims {
            let volumes = spec["volumes"].as_array_mut().context("a pod has volumes")?;
            let volume = &claim["metadata"]["name"];
            volumes.push(json!({"name": volume, "persistentVolumeClaim": {"claimName": volume}}));
        }
        let metadata =
            json!({"name": name, "namespace": NAMESPACE, "labels": template["metadata"]["labels"]});
        pods.push((name, json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})));
    }
    Ok(pods)
}

#[test]
fn an_api_server_takes_every_rendered_manifest_and_its_pods_in_a_restricted_namespace() {
    if !ready("an_api_server_takes_every_rendered_manifest_and_its_pods_in_a_restricted_namespace") {
        return;
    }
    in_lab(async |lab| {
        let plane = ControlPlane::start(lab, Shape::new("charts", 2)).await?;
        furnish(&plane).await?;
        let directory = lab.directory("manifests")?;
        let mut tried = 0;
        for golden in Golden::all()? {
            let name = format!("{} {}", golden.chart, golden.variant.as_deref().unwrap_or("values"));
            let render = golden.render()?;
            let taken = try_out(&plane, &directory, &name, &render).await?;
            ensure!(taken.lines().count() == objects(&render)?.len(), "{name}: {taken}");
            for (pod, manifest) in pods(&render)? {
                try_out(&plane, &directory, &format!("{name}: {pod}"), &manifest.to_string()).await?;
                tried += 1;
                // The namespace does look.
                let mut bare = manifest;
                bare["spec"]["containers"][0]["securityContext"] = json!({});
                let refused = try_out(&plane, &directory, &pod, &bare.to_string()).await;
                let refused = refused.err().context("a pod without bounds was taken")?;
                ensure!(format!("{refused:#}").contains("violates PodSecurity"), "{refused:#}");
            }
        }
        ensure!(tried >= CHARTS.len(), "only {tried} pods were tried");
        Ok(())
    });
}

#[test]
fn the_crds_are_what_clients_of_both_versions_expect() {
    if !ready("the_crds_are_what_clients_of_both_versions_expect") {
        return;
    }
    in_lab(async |lab| {
        let plane = ControlPlane::start(lab, Shape::new("crds", 3)).await?;
        // The files are whole, without Helm.
        let files = format!("--filename={}", path("sealane-crds").join("files").display());
        plane.kubectl(&["apply", "--server-side", &files]).await?;
        plane.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"]).await?;
        let import = json!({
            "apiVersion": "multicluster.x-k8s.io/v1alpha1",
            "kind": "ServiceImport",
            "metadata": {"name": "cart", "namespace": "default"},
            "spec": {"type": "ClusterSetIP", "ports": [{"port": 80, "protocol": "TCP"}], "ips": ["10.0.0.1"]},
        });
        plane.apply(&import.to_string()).await?;
        let spec = "--output=jsonpath={.apiVersion} {.spec}";
        let read =
            plane.kubectl(&["get", "serviceimports.v1beta1.multicluster.x-k8s.io", "cart", spec]).await?;
        let expected = r#"multicluster.x-k8s.io/v1beta1 {"ips":["10.0.0.1"],"ports":[{"port":80,"protocol":"TCP"}],"type":"ClusterSetIP"}"#;
        ensure!(read == expected, "{read}");

        for (change, said) in [
            (json!({"spec": {"type": "Some", "ports": []}}), "spec.type: Unsupported value"),
            (json!({"spec": {"type": "Headless"}}), "spec.ports: Required value"),
            (
                json!({"spec": {"type": "ClusterSetIP", "ports": [], "ips": ["a", "b", "c"]}}),
                "spec.ips: Too many",
            ),
        ] {
            let mut bad = import.clone();
            bad["spec"] = change["spec"].clone();
            let refused = plane.apply(&bad.to_string()).await.err().context("a wrong import was taken")?;
            ensure!(format!("{refused:#}").contains(said), "{refused:#}");
        }

        // Status is a part of its own, and is what the columns show.
        let condition = json!({
            "type": "Ready", "status": "True", "reason": "Ready", "message": "",
            "lastTransitionTime": "2026-11-21T00:00:00Z",
        });
        let status =
            json!({"status": {"clusters": [{"cluster": "east"}], "conditions": [condition]}}).to_string();
        let patch = format!("--patch={status}");
        plane.kubectl(&["patch", "svcim", "cart", "--type=merge", "--subresource=status", &patch]).await?;
        let shown = plane.kubectl(&["get", "svcimport", "cart", "--no-headers"]).await?;
        let words = shown.split_whitespace().take(4).collect::<Vec<_>>();
        ensure!(words == ["cart", "ClusterSetIP", r#"["10.0.0.1"]"#, "True"], "{shown}");
        plane.kubectl(&["wait", "--for=condition=Ready", "serviceimport/cart", "--timeout=5s"]).await?;

        let property = json!({
            "apiVersion": "about.k8s.io/v1alpha1",
            "kind": "ClusterProperty",
            "metadata": {"name": "cluster.clusterset.k8s.io"},
            "spec": {"value": "east"},
        });
        plane.apply(&property.to_string()).await?;
        let shown = plane.kubectl(&["get", "clusterproperties", "--no-headers"]).await?;
        ensure!(shown.starts_with("cluster.clusterset.k8s.io   east"), "{shown}");
        Ok(())
    });
}

#[test]
fn foreign_and_newer_crds_are_left_alone_and_an_uninstall_keeps_ours() {
    if !ready("foreign_and_newer_crds_are_left_alone_and_an_uninstall_keeps_ours") {
        return;
    }
    in_lab(async |lab| {
        let plane = ControlPlane::start(lab, Shape::new("foreign", 4)).await?;
        plane.kubectl(&["create", "namespace", NAMESPACE]).await?;
        let kubeconfig = plane.kubeconfig().display().to_string();
        let chart = path("sealane-crds").display().to_string();
        let run = |verb: &str, more: &[&str]| {
            let mut words = vec![verb, "crds"];
            if verb != "uninstall" {
                words.push(&chart);
            }
            words.extend(["--namespace", NAMESPACE, "--kubeconfig", &kubeconfig]);
            words.extend(more);
            helm(&words)
        };
        let labels = "--output=jsonpath={.metadata.labels}";
        let exports = "crd/serviceexports.multicluster.x-k8s.io";

        // Another product brought one of them, an older one.
        let file = path("sealane-crds").join("files/serviceexports.yaml");
        let foreign = std::fs::read_to_string(file)?.replace("v0.5.2", "v0.4.0");
        plane.apply(&foreign).await?;
        let before = plane.kubectl(&["get", exports, labels]).await?;
        run("install", &[])?;
        let after = plane.kubectl(&["get", exports, labels]).await?;
        ensure!(before == after, "{after}");
        plane
            .kubectl(&[
                "get",
                "crd/serviceimports.multicluster.x-k8s.io",
                "crd/clusterproperties.about.k8s.io",
            ])
            .await?;

        // Ours was raised by hand since; it is not lowered, and not deleted for being left out.
        let imports = "crd/serviceimports.multicluster.x-k8s.io";
        let newer = "multicluster.x-k8s.io/crd-schema-revision=7";
        plane.kubectl(&["label", "--overwrite", imports, newer]).await?;
        run("upgrade", &[])?;
        let kept = plane.kubectl(&["get", imports, labels]).await?;
        ensure!(kept.contains(r#""multicluster.x-k8s.io/crd-schema-revision":"7""#), "{kept}");
        let refused =
            run("upgrade", &["--set", "mcs.install=always"]).err().context("a schema was lowered")?;
        ensure!(format!("{refused:#}").contains("would lower it"), "{refused:#}");

        run("uninstall", &[])?;
        let left = plane.kubectl(&["get", "crd", "--output=name"]).await?;
        ensure!(left.lines().count() == 3, "{left}");
        Ok(())
    });
}

//! Volumes for claims, as people's clusters give them: a default StorageClass, and a program that makes folders of the
//! node into volumes. They are `local` ones, whose owner the kubelet sets as it does on a disk.

use super::layout::Plan;
use super::node::Node;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::Path;

/// What runs beside the kubelet.
const SCRIPT: &str = include_str!("../../clusters/volumes.sh");

/// The StorageClass that claims get which name none.
pub(super) fn class() -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": "standard",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "sealane.test/folder",
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    })
}

/// Starts it.
pub(super) fn serve(node: &mut Node<'_>, state: &Path, plan: &Plan, kubectl: &Path) -> Result<()> {
    let script = state.join("volumes.sh");
    std::fs::write(&script, SCRIPT).context("can not write volumes.sh")?;
    let admin = state.join("admin.kubeconfig");
    let words = [&script, state, Path::new(&plan.name), kubectl, &admin].map(|w| w.display().to_string());
    node.script("volumes", &words)
}

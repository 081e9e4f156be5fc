//! The Helm charts: where they are, how they are rendered, and what is made from them (golden renders, tables in READMEs).
//!
//! What is made is committed, and a test makes it again and compares; `--bin charts -- update` writes it.

pub mod golden;
pub mod packages;
pub mod readme;

use crate::tools::HELM;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The charts.
pub const CHARTS: [&str; 3] = ["sealane-crds", "sealane-federation", "sealane-cluster"];
/// The namespace that they are installed in.
pub const NAMESPACE: &str = "sealane-system";

/// The checkout.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A chart's directory.
#[must_use]
pub fn path(chart: &str) -> PathBuf {
    root().join("charts").join(chart)
}

/// The names of a chart's values files beside its defaults, such as `values-ha`, in order.
///
/// # Errors
/// When the directory can not be read.
pub fn variants(chart: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path(chart)).with_context(|| format!("there is no chart {chart}"))? {
        let file = PathBuf::from(entry?.file_name());
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if stem.starts_with("values-") && file.extension().is_some_and(|e| e == "yaml") {
            names.push(stem);
        }
    }
    names.sort();
    Ok(names)
}

/// What Helm says to these arguments.
///
/// # Errors
/// With what it says on standard error, when it refuses.
pub fn helm(arguments: &[&str]) -> Result<String> {
    let out = Command::new(HELM.path()?).args(arguments).env_remove("KUBECONFIG").output().context("helm")?;
    if !out.status.success() {
        bail!("helm {}: {}", arguments.join(" "), String::from_utf8_lossy(&out.stderr).trim());
    }
    String::from_utf8(out.stdout).context("helm writes no text")
}

/// Renders a chart with a values file, and with single values.
///
/// # Errors
/// When Helm refuses it.
pub fn render(chart: &str, variant: Option<&str>, set: &[&str]) -> Result<String> {
    let directory = path(chart).to_string_lossy().into_owned();
    let file = variant.map(|v| format!("{directory}/{v}.yaml"));
    let mut arguments = vec!["template", "sealane", &directory, "--namespace", NAMESPACE];
    if let Some(file) = &file {
        arguments.extend(["--values", file]);
    }
    for value in set {
        arguments.extend(["--set", value]);
    }
    helm(&arguments)
}

/// The objects of a render.
///
/// # Errors
/// When a document is not YAML.
pub fn objects(render: &str) -> Result<Vec<Value>> {
    let documents = render.split("\n---\n").map(|d| d.trim_start_matches("---\n"));
    let objects = documents.map(|d| Ok(serde_saphyr::from_str::<Value>(d)?)).collect::<Result<Vec<_>>>()?;
    Ok(objects.into_iter().filter(|o| !o.is_null()).collect())
}

/// The container specifications of an object: init containers first.
#[must_use]
pub fn containers(object: &Value) -> Vec<&Value> {
    let spec = &object["spec"]["template"]["spec"];
    let of = |key: &str| spec[key].as_array().into_iter().flatten();
    of("initContainers").chain(of("containers")).collect()
}

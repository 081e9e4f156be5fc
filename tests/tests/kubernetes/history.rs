//! What happened in a cluster: every change that etcd still holds, and every request that the API server audited.

use anyhow::{Context, Result};
use sealane_tests::control_plane::{Archive, ControlPlane, Shape};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The kinds that the agent writes into namespaces.
pub(crate) const KINDS: [&str; 3] = [
    "apis/multicluster.x-k8s.io/v1beta1/namespaces/shop/serviceimports",
    "api/v1/namespaces/shop/services",
    "apis/discovery.k8s.io/v1/namespaces/shop/endpointslices",
];

/// The version that a cluster is at now.
pub(crate) async fn now(plane: &ControlPlane) -> Result<String> {
    let list: Value =
        serde_json::from_str(&plane.kubectl(&["get", "--raw", &format!("/{}", KINDS[1])]).await?)?;
    Ok(list["metadata"]["resourceVersion"].as_str().context("a list has a version")?.to_owned())
}

/// One change of an object.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// `ADDED`, `MODIFIED`, `DELETED`.
    pub(crate) kind: String,
    pub(crate) object: Value,
}

impl Change {
    /// Of a line of a watch.
    pub(crate) fn read(line: &str) -> Result<Self> {
        let event: Value = serde_json::from_str(line)?;
        let kind = event["type"].as_str().context("an event has a type")?.to_owned();
        anyhow::ensure!(kind != "ERROR", "the history does not reach back: {line}");
        Ok(Change { kind, object: event["object"].clone() })
    }

    /// Whether it takes something away: an object, or all endpoints of a slice.
    pub(crate) fn takes_away(&self) -> bool {
        let endpoints = self.object.get("endpoints");
        let emptied = endpoints.is_some_and(|e| e.as_array().is_none_or(Vec::is_empty));
        self.kind == "DELETED" || (self.kind == "MODIFIED" && emptied)
    }
}

/// Every change since a version, of the objects that the agent writes, whatever became of the API server meanwhile.
pub(crate) async fn changes(archive: &Archive<'_>, since: &str) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    for kind in KINDS {
        let watch = format!("/{kind}?watch=1&resourceVersion={since}&timeoutSeconds=2");
        for line in archive.kubectl(&["get", "--raw", &watch]).await?.lines() {
            changes.push(Change::read(line)?);
        }
    }
    Ok(changes)
}

/// The audit log of an API server.
pub(crate) struct Audit {
    log: PathBuf,
    policy: PathBuf,
}

impl Audit {
    /// One in a directory; everything is noted, and nothing of what requests hold.
    pub(crate) fn new(directory: &Path) -> Result<Self> {
        let policy = directory.join("audit-policy.json");
        let rules = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
            "rules": [{"level": "Metadata"}]});
        std::fs::write(&policy, rules.to_string())?;
        Ok(Audit { log: directory.join("audit.log"), policy })
    }

    /// The API server that keeps it.
    pub(crate) fn kept_by(&self, shape: Shape) -> Shape {
        shape
            .with(&format!("--audit-policy-file={}", self.policy.display()))
            .with(&format!("--audit-log-path={}", self.log.display()))
    }

    /// What a user asked for, in order.
    pub(crate) fn of(&self, user: &str) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(&self.log).with_context(|| self.log.display().to_string())?;
        // The last line may not be whole yet.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let events = whole.lines().map(serde_json::from_str::<Value>);
        let events = events.filter(|e| e.as_ref().map_or(true, |e| e["user"]["username"] == user));
        Ok(events.collect::<Result<_, _>>()?)
    }
}

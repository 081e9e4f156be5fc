//! All that a cluster is, before and after: every object of every API resource, and the packet filter of its node.
//!
//! What is not compared, because it is another's and changes by itself:
//! - Events: they say what happened, and the API server deletes them after an hour;
//! - of every object `metadata.resourceVersion`, and when each entry of `metadata.managedFields` was last written;
//! - of every Lease `spec.renewTime`, of every Node's condition `lastHeartbeatTime`: the heartbeats of nodes;
//! - of every Pod `status.resources`, which its kubelet writes some time after it started;
//! - of the packet filter the numbers of its objects, in which order they were made, what counters count, and chains that
//!   are empty: kube-proxy empties the chains of a Service at once and deletes them when it next has something to do.
//!
//! Whoever deletes an object and makes it again is seen: UIDs and times of creation are compared.

use anyhow::{Context, Result, ensure};
use sealane::local::wait::until;
use sealane_tests::clusters::Environment;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long Kubernetes may take to follow: garbage collection, volumes, kube-proxy's next look.
const SETTLED: Duration = Duration::from_secs(90);

/// A cluster at one time.
#[derive(Debug, PartialEq)]
pub(crate) struct Snapshot(BTreeMap<String, Value>);

impl Snapshot {
    /// Looks at a cluster.
    pub(crate) async fn of(environment: &Environment, cluster: &str) -> Result<Self> {
        let resources =
            environment.kubectl(cluster, &["api-resources", "--verbs=list", "--output=name"]).await?;
        let resources: Vec<&str> = resources.lines().filter(|name| !is_events(name)).collect();
        let all = ["get", &resources.join(","), "--all-namespaces", "--output=json"];
        let list: Value = serde_json::from_str(&environment.kubectl(cluster, &all).await?)?;
        let objects = list["items"].as_array().context("no list of objects")?;
        ensure!(
            objects.len() > 100,
            "only {} objects: a look that sees nothing proves nothing",
            objects.len()
        );
        let mut parts: BTreeMap<String, Value> =
            objects.iter().map(|o| (name(o), plain(o.clone()))).collect();
        let rules = environment.node(cluster, &["nft", "--json", "--stateless", "list", "ruleset"]).await?;
        let rules: Value = serde_json::from_str(&rules).context("the packet filter is no JSON")?;
        let rules = rules["nftables"].as_array().context("no packet filter")?;
        ensure!(rules.len() > 20, "only {} parts of the packet filter", rules.len());
        for rule in rules {
            filter(&mut parts, rule);
        }
        Ok(Snapshot(parts))
    }

    /// Waits until a cluster is again what it was.
    pub(crate) async fn returned(&self, environment: &Environment, cluster: &str) -> Result<()> {
        let what = format!("{cluster} is what it was before");
        until(&what, SETTLED, async || {
            let now = Self::of(environment, cluster).await?;
            let difference = self.difference(&now);
            ensure!(difference.is_empty(), "{} differences:\n{}", difference.len(), difference.join("\n"));
            Ok(Some(()))
        })
        .await
        .map(drop)
    }

    /// What is more, less or other in a later one, a line each.
    fn difference(&self, later: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, before) in &self.0 {
            match later.0.get(name) {
                None => lines.push(format!("- {name}")),
                Some(after) => compare(&mut lines, name, before, after),
            }
        }
        lines.extend(
            later.0.keys().filter(|name| !self.0.contains_key(*name)).map(|name| format!("+ {name}")),
        );
        lines
    }
}

fn is_events(resource: &str) -> bool {
    resource == "events" || resource == "events.events.k8s.io"
}

fn name(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    [&object["apiVersion"], &object["kind"], &metadata["namespace"], &metadata["name"]].map(text).join(" ")
}

/// An object without what changes by itself.
fn plain(mut object: Value) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("resourceVersion");
        for entry in metadata.get_mut("managedFields").and_then(Value::as_array_mut).into_iter().flatten() {
            remove(entry, "time");
        }
    }
    if object["kind"] == "Lease" {
        remove(&mut object["spec"], "renewTime");
    }
    if object["kind"] == "Pod" {
        remove(&mut object["status"], "resources");
    }
    if object["kind"] == "Node" {
        for condition in object["status"]["conditions"].as_array_mut().into_iter().flatten() {
            remove(condition, "lastHeartbeatTime");
        }
    }
    object
}

fn remove(value: &mut Value, key: &str) {
    if let Some(object) = value.as_object_mut() {
        object.remove(key);
    }
}

/// Adds a part of the packet filter. The rules of a chain are in their order, the elements of a set are in none.
fn filter(parts: &mut BTreeMap<String, Value>, rule: &Value) {
    let Some((kind, body)) = rule.as_object().and_then(|o| o.iter().next()) else { return };
    if kind == "chain" && body["hook"].is_null() {
        return;
    }
    let mut body = body.clone();
    for key in ["handle", "index", "packets", "bytes"] {
        remove(&mut body, key);
    }
    if let Some(elements) = body["elem"].as_array_mut() {
        elements.sort_by_key(ToString::to_string);
    }
    let place =
        ["family", "table", "chain", "name"].map(|key| body[key].as_str().unwrap_or_default().to_owned());
    let name = format!("nftables {kind} {}", place.join(" "));
    match parts.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
        Value::Array(rules) => rules.push(body),
        _ => unreachable!("parts of the packet filter are lists"),
    }
}

/// Where two values of one name differ.
fn compare(lines: &mut Vec<String>, path: &str, before: &Value, after: &Value) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for key in keys {
                let of =
                    |object: &serde_json::Map<String, Value>| object.get(key).cloned().unwrap_or(Value::Null);
                compare(lines, &format!("{path} .{key}"), &of(before), &of(after));
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (before, after)) in a.iter().zip(b).enumerate() {
                compare(lines, &format!("{path} [{index}]"), before, after);
            }
        }
        _ if before == after => {}
        _ => lines.push(format!("~ {path}: {} -> {}", brief(before), brief(after))),
    }
}

fn brief(value: &Value) -> String {
    value.to_string().chars().take(300).collect()
}

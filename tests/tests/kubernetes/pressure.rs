//! An API server that has one seat for the agent, and a holder of the Lease that is frozen while everything moves.

use super::history::Audit;
use super::member::Member;
use super::rights;
use super::sink::with_plane;
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{Patch, PatchParams};
use rustix::process::Signal;
use sealane::local::Federation;
use sealane::local::wait::until_true;
use sealane_tests::PATIENCE;
use sealane_tests::control_plane::{ControlPlane, Shape};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// How many Services are exported at once.
const SERVICES: usize = 40;
/// How long they may take with one seat.
const LONG: Duration = Duration::from_secs(90);

/// The agent may have one request at a time, and two that wait.
fn one_seat(user: &str) -> Value {
    let flow = "flowcontrol.apiserver.k8s.io";
    let level = json!({"apiVersion": format!("{flow}/v1"), "kind": "PriorityLevelConfiguration",
        "metadata": {"name": "one-seat"},
        "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 1, "borrowingLimitPercent": 0,
            "limitResponse": {"type": "Queue",
                "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 2}}}}});
    let schema = json!({"apiVersion": format!("{flow}/v1"), "kind": "FlowSchema", "metadata": {"name": "one-seat"},
        "spec": {"matchingPrecedence": 2, "priorityLevelConfiguration": {"name": "one-seat"},
            "rules": [{"subjects": [{"kind": "User", "user": {"name": user}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true,
                    "namespaces": ["*"]}]}]}});
    json!({"apiVersion": "v1", "kind": "List", "items": [level, schema]})
}

async fn rejected(plane: &ControlPlane) -> Result<f64> {
    let metrics = plane.kubectl(&["get", "--raw", "/metrics"]).await?;
    let counts = metrics.lines().filter(|line| {
        line.starts_with("apiserver_flowcontrol_rejected_requests_total") && line.contains(r#""one-seat""#)
    });
    Ok(counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

#[test]
fn with_one_seat_everything_arrives_a_little_later() {
    with_plane("with_one_seat_everything_arrives_a_little_later", async |lab| {
        let federation = Federation::of(lab, 1).await?;
        let mut east = Member::enrol(&federation, lab, Shape::new("east", 1), 1).await?;
        // So few seats in all that one share of them is one seat.
        let few = ["--max-requests-inflight=60", "--max-mutating-requests-inflight=40"];
        let shape = few.iter().fold(Shape::new("west", 3), |shape, word| shape.with(word));
        let mut west = Member::enrol(&federation, lab, shape, 3).await?;
        west.plane.apply(&one_seat(rights::AGENT).to_string()).await?;
        rights::grant(&west.plane).await?;
        let kubeconfig = west.plane.kubeconfig_of(rights::AGENT, "")?;
        east.start("a", None).await?;
        west.start("a", Some(&kubeconfig)).await?;
        let names: Vec<String> = (0..SERVICES).map(|n| format!("web-{n}")).collect();
        for name in &names {
            east.serve(name, 80, "10.1.0.1").await?;
        }
        let export = |name: &String| {
            json!({"apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport",
                "metadata": {"name": name, "namespace": "shop"}})
        };
        let exports: Vec<Value> = names.iter().map(export).collect();
        east.plane.apply(&json!({"apiVersion": "v1", "kind": "List", "items": exports}).to_string()).await?;
        until_true("all are imported", LONG, async || {
            let ready = r#"--output=jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}"#;
            let said = west.plane.kubectl(&["get", "serviceimports", "--namespace=shop", ready]).await?;
            let count = said.split_whitespace().filter(|status| *status == "True").count();
            ensure!(count == SERVICES, "{count} are ready");
            Ok(true)
        })
        .await?;
        west.says("nothing is refused at the end", "a", |s| s["output"]["error"].is_null()).await?;
        let rejected = rejected(&west.plane).await?;
        ensure!(rejected > 0.0, "the API server never refused a request: there was no pressure");
        Ok(())
    });
}

/// Changes the address of `shop/web` in east fifty times a second, until told to stop. Gives the last address.
async fn churn(kubeconfig: &Path, mut stop: tokio::sync::oneshot::Receiver<()>) -> Result<(String, usize)> {
    let args = sealane_agent::args::Kubernetes {
        kubeconfig: Some(kubeconfig.to_owned()),
        context: None,
        namespace: "sealane-system".parse()?,
        replica: "churn".to_owned(),
    };
    let client = sealane_agent::kubernetes::client(&args).await?;
    let slices: Api<EndpointSlice> = Api::namespaced(client, "shop");
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let (mut last, mut count) = (String::new(), 0usize);
    while stop.try_recv().is_err() {
        pace.tick().await;
        count += 1;
        last = format!("10.1.{}.{}", count / 250, count % 250 + 1);
        let change = json!({"endpoints": [{"addresses": [last], "conditions": {"ready": true}}]});
        slices.patch("web-1", &PatchParams::default(), &Patch::Merge(&change)).await?;
    }
    Ok((last, count))
}

async fn holder(plane: &ControlPlane) -> Result<String> {
    let holder = "--output=jsonpath={.spec.holderIdentity}";
    plane.kubectl(&["get", "lease/sealane-agent", "--namespace=sealane-system", holder]).await
}

/// Two replicas on each side. Both holders are frozen while an endpoint changes fifty times a second, and go on after
/// others took over: nothing is lost, and whoever was replaced writes nothing any more.
#[test]
fn holders_that_are_frozen_under_load_lose_nothing_and_write_nothing_afterwards() {
    let name = "holders_that_are_frozen_under_load_lose_nothing_and_write_nothing_afterwards";
    with_plane(name, async |lab| {
        let audit = Audit::new(lab.path())?;
        let federation = Federation::of(lab, 1).await?;
        let mut east = Member::enrol(&federation, lab, Shape::new("east", 1), 1).await?;
        let mut west = Member::enrol(&federation, lab, audit.kept_by(Shape::new("west", 3)), 3).await?;
        for replica in ["a", "b"] {
            let kubeconfig = west.plane.kubeconfig_of(&format!("west-{replica}"), "system:masters")?;
            west.start(replica, Some(&kubeconfig)).await?;
            east.start(replica, None).await?;
        }
        east.serve("web", 80, "10.1.0.1").await?;
        east.export("web").await?;
        west.imports("web", &["10.1.0.1"]).await?;
        ensure!(holder(&west.plane).await?.starts_with("a_"), "the first replica holds the Lease");

        let (stop, stopped) = tokio::sync::oneshot::channel();
        let kubeconfig = east.plane.kubeconfig().to_owned();
        let churning = tokio::spawn(async move { churn(&kubeconfig, stopped).await });
        tokio::time::sleep(Duration::from_secs(2)).await;
        for member in [&east, &west] {
            member.agent("a")?.signal(Signal::STOP)?;
        }
        for member in [&east, &west] {
            until_true("the other one holds the Lease", PATIENCE, async || {
                Ok(holder(&member.plane).await?.starts_with("b_"))
            })
            .await?;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        for member in [&east, &west] {
            member.agent("a")?.signal(Signal::CONT)?;
        }
        west.says("the former holder finds itself replaced", "a", |s| s["lease"]["term"].is_null()).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let _ = stop.send(());
        let (last, count) = churning.await??;
        ensure!(count > 200, "only {count} changes were made");
        west.imports("web", &[&last]).await?;
        east.imports("web", &[&last]).await?;

        let writes = |user: &str| -> Result<Vec<Value>> {
            let mut events = audit.of(user)?;
            let writing = ["create", "update", "patch", "delete"];
            events.retain(|e| writing.iter().any(|verb| e["verb"] == *verb));
            Ok(events)
        };
        let (old, new) = (writes("west-a")?, writes("west-b")?);
        let took = new.iter().find(|e| {
            e["objectRef"]["resource"] == "leases"
                && e["verb"] == "update"
                && e["responseStatus"]["code"] == 200
        });
        let taken = took.context("a write that took the Lease")?["stageTimestamp"].as_str();
        ensure!(!old.is_empty(), "the audit log knows the former holder");
        // What it tries with a version that is not the latest any more is refused, and is no write.
        let late = |e: &&Value| e["requestReceivedTimestamp"].as_str() > taken;
        let wrote = |e: &&Value| e["responseStatus"]["code"].as_u64().is_some_and(|code| code < 300);
        let after: Vec<&Value> = old.iter().filter(late).filter(wrote).collect();
        ensure!(after.is_empty(), "written after {taken:?}: {after:#?}");
        ensure!(new.len() > 20, "the new holder wrote");
        Ok(())
    });
}

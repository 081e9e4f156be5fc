//! Waiting for a workload, and why it does not become ready.

use super::super::Environment;
use super::super::command::{QUICK, run};
use super::pods::{self, Pod};
use crate::charts::NAMESPACE;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fmt::Write;
use std::time::{Duration, Instant};

/// How long a workload may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(240);
/// After so many restarts of a container nobody waits any longer.
const RESTARTS: u64 = 3;
/// How much of each container's log is shown.
const LINES: &str = "--tail=25";

/// Whether a pod bears the name of a workload, such as `statefulset/NAME`.
fn is_of(pod: &str, workload: &str) -> bool {
    let name = workload.rsplit('/').next().unwrap_or(workload);
    pod.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'))
}

impl Environment {
    /// Waits until all pods of a workload of `sealane-system`, such as `statefulset/sealane-agent`, are ready.
    ///
    /// # Errors
    /// When they do not become so in time, or crash again and again; with their events and logs.
    pub async fn rolled_out(&self, cluster: &str, workload: &str) -> Result<()> {
        let begun = Instant::now();
        let mut said = String::new();
        loop {
            let words = ["--namespace", NAMESPACE, "rollout", "status", workload, "--timeout=5s"];
            let Err(refused) = self.kubectl(cluster, &words).await else { return Ok(()) };
            let pods = pods::of(&self.json(cluster, &["get", "pods"]).await?);
            let waiting: Vec<&Pod> = pods.iter().filter(|pod| !pod.ready).collect();
            let states: Vec<String> =
                waiting.iter().map(|pod| format!("{} {}", pod.name, pod.state)).collect();
            let now = states.join(", ");
            if now != said {
                self.progress.say(&format!("{cluster}: waiting for {now}"));
                said = now;
            }
            let crashing = waiting.iter().any(|pod| pod.restarts >= RESTARTS && is_of(&pod.name, workload));
            if crashing || begun.elapsed() > PATIENCE {
                let why = self.diagnosis(cluster, &waiting).await;
                bail!("{workload} of {cluster} does not become ready: {refused:#}\n{why}");
            }
        }
    }

    /// What the pods of Sealane say last in every cluster, for whoever has to find out why a test failed.
    pub(in super::super) async fn last_words(&self) -> String {
        let mut text = String::new();
        for plan in self.plans() {
            let _ = writeln!(text, "==== {}", plan.name);
            match self.json(&plan.name, &["get", "pods"]).await {
                Ok(list) => {
                    let pods = pods::of(&list);
                    text.push_str(&self.diagnosis(&plan.name, &pods.iter().collect::<Vec<_>>()).await);
                }
                Err(error) => {
                    let _ = writeln!(text, "its pods can not be read: {error:#}");
                }
            }
        }
        text
    }

    /// What is known of pods: what they wait for, their events, the end of their logs.
    async fn diagnosis(&self, cluster: &str, waiting: &[&Pod]) -> String {
        let mut text = String::new();
        let events = match self.json(cluster, &["get", "events"]).await {
            Ok(events) => events,
            Err(error) => {
                let _ = writeln!(text, "the events can not be read: {error:#}");
                Value::Null
            }
        };
        for pod in waiting {
            let _ = writeln!(text, "-- pod {}: {}", pod.name, pod.state);
            for line in pods::events(&events, "Pod", &pod.name) {
                let _ = writeln!(text, "   event: {line}");
            }
            for container in &pod.started {
                for previous in ["--previous=true", "--previous=false"] {
                    let words =
                        ["--namespace", NAMESPACE, "logs", &pod.name, "-c", container, LINES, previous];
                    // Most containers have no earlier run.
                    let Ok(lines) = self.kubectl(cluster, &words).await else { continue };
                    for line in lines.lines() {
                        let _ = writeln!(text, "   {container}: {line}");
                    }
                }
            }
        }
        for line in pods::events(&events, "StatefulSet", "") {
            let _ = writeln!(text, "-- event of a StatefulSet: {line}");
        }
        text
    }

    /// What kubectl says of the namespace of Sealane, as JSON.
    async fn json(&self, cluster: &str, words: &[&str]) -> Result<Value> {
        let mut command = self.command("kubectl")?;
        command.args(["--context", cluster, "--namespace", NAMESPACE, "--output=json"]).args(words);
        command.stdin(std::process::Stdio::null());
        let text = run(&mut command.into(), QUICK).await?;
        serde_json::from_str(&text).context("kubectl writes no JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_crashes_beside_a_workload_is_not_of_it() {
        let agent = |pod| is_of(pod, "statefulset/sealane-agent");
        assert_eq!(
            ["sealane-agent-0", "sealane-gateway-0", "sealane-agentx-0"].map(agent),
            [true, false, false]
        );
    }
}

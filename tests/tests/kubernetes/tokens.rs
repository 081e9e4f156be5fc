//! Workload tokens where an agent has replicas: made by one, taken by another, once.

use super::member::Member;
use super::rights::{AGENT, grant};
use super::sink::with_plane;
use anyhow::{Result, ensure};
use sealane::local::wait::until_true;
use sealane::local::{Federation, Lab, Process};
use sealane_tests::control_plane::Shape;
use sealane_tests::{PATIENCE, skip, tools};
use std::path::Path;

/// A gateway that has nothing but a token and the address of one replica.
fn gateway(lab: &Lab, name: &str, host: u8, token: &Path, agent: &str) -> Result<Process> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (state, token) = (text(&lab.directory(name)?.join("state")), text(token));
    let [inbound, admin] = [15_443, 15_100].map(|port| lab.socket(5, host, port).to_string());
    let words = ["proxy", "--role", "gateway", "--token-file", &token, "--dir", &state, "--agent", agent];
    let words = [&words[..], &["--inbound", &inbound, "--admin", &admin]].concat();
    lab.launcher().start(name, &words)
}

#[test]
fn a_workload_token_of_one_replica_is_taken_by_another_and_then_by_nobody() {
    let name = "a_workload_token_of_one_replica_is_taken_by_another_and_then_by_nobody";
    if let Some(reason) = tools::missing(&[&tools::HELM]) {
        return skip(name, &reason);
    }
    with_plane(name, async |lab| {
        let federation = Federation::of(lab, 1).await?;
        let mut east = Member::enrol(&federation, lab, Shape::new("east", 1), 1).await?;
        grant(&east.plane).await?;
        let kubeconfig = east.plane.kubeconfig_of(AGENT, "")?;
        east.start("a", Some(&kubeconfig)).await?;
        east.start("b", Some(&kubeconfig)).await?;

        let token = lab.directory("tokens")?.join("gateway.token");
        let (state, out) = (east.state("a")?, token.to_string_lossy().into_owned());
        let state = state.to_string_lossy();
        let words = ["agent", "workload-token", "--dir", &state, "--gateway", "--out", &out];
        lab.launcher().run(&words).await?;

        let mut first = gateway(lab, "first", 1, &token, &east.listens("b"))?;
        first.ready().await?;
        for replica in ["a", "b"] {
            let name = format!("second-{replica}");
            let mut second = gateway(lab, &name, 2, &token, &east.listens(replica))?;
            until_true("the second one is refused", PATIENCE, async || Ok(second.ended().is_some())).await?;
            let said = second.said();
            ensure!(said.contains("the token was used already"), "{said}");
        }

        // What identifies the agent is beside the tokens, and stays.
        drop(east.agents.remove("b"));
        east.start("b", Some(&kubeconfig)).await
    });
}

//! The server that founded the federation loses its volume: it joins as another one, of the same federation, and nothing is
//! withdrawn from any cluster meanwhile.

use crate::history::Change;
use crate::recording::Recording;
use anyhow::{Context, Result, ensure};
use sealane::local::wait::until_true;
use sealane_tests::charts::NAMESPACE;
use sealane_tests::clusters::Environment;
use serde_json::{Value, json};
use std::time::Duration;

/// How long a server may take to come back without its volume.
const LOST: Duration = Duration::from_secs(90);

/// Takes the volume of the first of three servers in `east`, which both clusters are members of. The recordings of both
/// clusters, which go on.
pub(crate) async fn lost_volume(environment: &Environment) -> Result<[Recording; 2]> {
    let mut recordings =
        [Recording::begin(environment, "east").await?, Recording::begin(environment, "west").await?];
    let federation = status(environment).await?["status"]["federation"].clone();
    for object in ["pvc/state-sealane-federation-0", "pod/sealane-federation-0"] {
        let delete = ["delete", "--namespace", NAMESPACE, "--wait=false", object];
        environment.kubectl("east", &delete).await?;
    }
    until_true("the server is back", LOST, async || {
        let status = status(environment).await?;
        let servers = status["servers"].as_array().context("no servers")?;
        let ids: Vec<&Value> = servers.iter().map(|server| &server["id"]).collect();
        ensure!(ids == [&json!(2), &json!(3), &json!(4)], "the servers are {ids:?}");
        ensure!(status["status"]["server"] == 4 && status["status"]["leader"].is_u64(), "{status}");
        Ok(true)
    })
    .await?;
    environment.rolled_out("east", "statefulset/sealane-federation").await?;
    let status = status(environment).await?;
    ensure!(status["status"]["federation"] == federation, "another federation was founded: {status}");
    let live = json!({"live": 2, "suspect": 0, "withdrawn": 0});
    ensure!(status["status"]["clusters"] == live, "{status}");
    for recording in &mut recordings {
        let taken: Vec<Change> = recording.changes()?.into_iter().filter(Change::takes_away).collect();
        ensure!(taken.is_empty(), "{taken:#?}");
    }
    Ok(recordings)
}

async fn status(environment: &Environment) -> Result<Value> {
    let status = environment.sealane("east", &["status", "--output=json"]).await?;
    serde_json::from_str(&status).context("the status is no JSON")
}

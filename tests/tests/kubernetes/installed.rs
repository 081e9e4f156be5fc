//! Sealane in two clusters, installed by its charts as its documentation says: it comes up, a Service of one cluster is
//! reached from pods of the other, and an uninstall leaves the clusters as they were.

use crate::clusters::{POD, answers, exec};
use crate::history::Change;
use crate::lost_volume::lost_volume;
use crate::snapshot::Snapshot;
use crate::values::{Site, every_file};
use anyhow::{Context, Result, ensure};
use sealane::local::http;
use sealane::local::wait::until_true;
use sealane_tests::PATIENCE;
use sealane_tests::charts::NAMESPACE;
use sealane_tests::clusters::{Environment, Product, in_clusters, shop, two};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::time::Duration;

/// CoreDNS looks for new kinds now and then.
const NAMES: Duration = Duration::from_secs(60);

#[test]
fn an_export_is_reached_from_the_other_cluster_and_an_uninstall_leaves_nothing() {
    in_clusters(
        "an_export_is_reached_from_the_other_cluster_and_an_uninstall_leaves_nothing",
        async |place| {
            let product = Product { servers: 3, ..Product::of_this_build().await? };
            let environment = Environment::prepared(place, &two(), &product).await?;
            furnish(&environment).await?;
            let (east, west) =
                tokio::try_join!(Snapshot::of(&environment, "east"), Snapshot::of(&environment, "west"))?;
            environment.install(&product).await?;
            alive(&environment).await?;
            reached(&environment).await?;
            told(&environment).await?;
            let [_, mut recording] = lost_volume(&environment).await?;
            // A cluster leaves as people are told to let it leave; the other one as badly as it can.
            environment.sealane("east", &["cluster", "remove", "west"]).await?;
            until_true("what is taken away is recorded", PATIENCE, async || {
                Ok(recording.changes()?.iter().any(Change::takes_away))
            })
            .await?;
            drop(recording);
            crash(&environment, "east").await?;
            let site = |cluster| Site { environment: &environment, cluster };
            tokio::try_join!(
                site("east").uninstall(&["sealane-cluster", "sealane-federation"]),
                site("west").uninstall(&["sealane-cluster"]),
            )?;
            tokio::try_join!(east.returned(&environment, "east"), west.returned(&environment, "west"))?;
            every_file(&environment).await?;
            tokio::try_join!(east.returned(&environment, "east"), west.returned(&environment, "west"))?;
            Ok(())
        },
    );
}

/// What people have in their clusters: an application, its export, and who calls it.
async fn furnish(environment: &Environment) -> Result<()> {
    for cluster in ["east", "west"] {
        environment.apply(cluster, &shop(cluster).to_string()).await?;
    }
    environment.apply("east", &export().to_string()).await?;
    for cluster in ["east", "west"] {
        let wait =
            ["wait", "--namespace=shop", "--for=condition=Ready", "pod/echo", "pod/client", "--timeout=55s"];
        until_true("the pods run", POD, async || environment.kubectl(cluster, &wait).await.map(|_| true))
            .await?;
    }
    Ok(())
}

fn export() -> Value {
    json!({
        "apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport",
        "metadata": {"name": "echo", "namespace": "shop"},
    })
}

/// The federation's own view: both clusters are there, and one exports.
async fn alive(environment: &Environment) -> Result<()> {
    until_true("both clusters are alive", PATIENCE, async || {
        let status = environment.sealane("east", &["clusters", "--output=json"]).await?;
        let status: Value = serde_json::from_str(&status)?;
        let rows = status["clusters"].as_array().context("no clusters")?;
        let found: Vec<Value> =
            rows.iter().map(|row| json!([row["name"], row["standing"], row["exports"]])).collect();
        ensure!(found == [json!(["east", "live", 1]), json!(["west", "live", 0])], "{found:?}");
        Ok(true)
    })
    .await
    .map(drop)
}

/// A real pod of west calls a real pod of east by its clusterset name, without a proxy.
async fn reached(environment: &Environment) -> Result<()> {
    let ready = ["wait", "--namespace=shop", "--for=condition=Ready", "serviceimport/echo", "--timeout=10s"];
    until_true("west imports", PATIENCE, async || environment.kubectl("west", &ready).await.map(|_| true))
        .await?;
    let ready = ["wait", "--namespace=shop", "--for=condition=Ready", "serviceexport/echo", "--timeout=10s"];
    environment.kubectl("east", &ready).await?;
    let name = "echo.shop.svc.clusterset.local";
    until_true("its name is known", NAMES, async || {
        let said = exec(environment, "west", &["nslookup", name]).await?;
        ensure!(said.contains("Name:"), "{said}");
        Ok(true)
    })
    .await?;
    // The name that is of the cluster alone leads to its own pod.
    answers(environment, "west", "echo.shop.svc.cluster.local", "west").await?;
    answers(environment, "west", name, "east").await?;
    for cluster in ["east", "west"] {
        named(environment, cluster, name).await?;
    }
    Ok(())
}

/// Sealane's own DNS says the addresses of the import, at each address of its Service.
async fn named(environment: &Environment, cluster: &str, name: &str) -> Result<()> {
    let get = |namespace: &'static str, object: &'static str, path: &'static str| async move {
        let words = ["get", "--namespace", namespace, object, "--output", path];
        environment.kubectl(cluster, &words).await
    };
    let servers = get(NAMESPACE, "service/sealane-dns", "jsonpath={.spec.clusterIPs[*]}").await?;
    let import = get("shop", "serviceimport/echo", "jsonpath={.spec.ips[0]}").await?;
    let families = if cluster == "east" { 2 } else { 1 };
    ensure!(servers.split(' ').count() == families, "sealane-dns of {cluster} has {servers}");
    for server in servers.split(' ') {
        let at = format!("@{server}");
        for transport in ["+notcp", "+tcp"] {
            let said = exec(environment, cluster, &["dig", "+short", transport, &at, name, "A"]).await?;
            ensure!(said.trim() == import, "{server} of {cluster} says {said:?}, the import {import}");
        }
    }
    Ok(())
}

/// What an agent says of itself is read as the documentation says, and by nobody from outside of its pod.
async fn told(environment: &Environment) -> Result<()> {
    let mut forward = environment.command("kubectl")?;
    forward.args([
        "--context",
        "west",
        "--namespace",
        NAMESPACE,
        "port-forward",
        "pod/sealane-agent-0",
        ":7451",
    ]);
    let mut forward = forward.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("kubectl")?;
    let told = forwarded(environment, &mut forward);
    forward.kill().and_then(|()| forward.wait()).context("kubectl does not end")?;
    let status = told?;
    ensure!(status["cluster"] == "west" && status["session"]["synced"] == true, "{status}");
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/sealane-agent-0:7451/proxy/status");
    let refused = environment.kubectl("west", &["get", "--raw", &path]).await;
    let refused = format!("{:#}", refused.err().context("the status is told through the API server")?);
    ensure!(refused.contains("only from this host"), "{refused}");
    Ok(())
}

/// The status through what `kubectl port-forward` opened.
fn forwarded(environment: &Environment, forward: &mut Child) -> Result<Value> {
    let mut said = String::new();
    BufReader::new(forward.stdout.as_mut().context("no output")?).read_line(&mut said)?;
    let address = said.split(' ').find_map(|word| word.parse::<SocketAddr>().ok());
    let address = address.with_context(|| format!("kubectl says {said:?}"))?;
    std::thread::scope(|scope| {
        let ask = scope.spawn(|| {
            environment.enter()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(http::get(address, "/status"))?.json()
        });
        ask.join().map_err(|_| anyhow::anyhow!("it panicked"))?
    })
}

/// Lets the agent of a cluster crash again and again, from now on.
async fn crash(environment: &Environment, cluster: &str) -> Result<()> {
    let chart = sealane_tests::charts::path("sealane-cluster").display().to_string();
    let words = [
        "upgrade",
        "sealane-cluster",
        &chart,
        "--reuse-values",
        "--set=agent.extraArgs={--no-such-argument}",
    ];
    environment.helm(cluster, &words).await?;
    let restarts = "--output=jsonpath={.status.containerStatuses[0].restartCount}";
    until_true("the agent crashes", POD, async || {
        let get = ["get", "pod", "sealane-agent-0", "--namespace", NAMESPACE, restarts];
        Ok(environment.kubectl(cluster, &get).await?.parse::<u32>().context("no number")? > 0)
    })
    .await
    .map(drop)
}

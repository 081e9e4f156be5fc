//! Clusters and servers that leave, and servers that are rebuilt.

use anyhow::{Context, Result, ensure};
use sealane::local::caller::{Caller, Refused};
use sealane::local::{Federation, Traffic, http, inspect, wait};
use sealane_tests::{PATIENCE, Pair, TTL, call, in_lab};

/// A cluster is removed while requests go to it: they end, everybody else's go on, and it can not come back by itself.
#[test]
fn a_cluster_is_removed_under_traffic() {
    in_lab(async |lab| {
        let mut pair = Pair::new(lab, 1).await?;
        let caller = Caller::enrol(&pair.west, "shop", "echo").await?;
        pair.east.serve("shop", "cart", 80)?;
        let cart =
            sealane::local::PodSpec::server("cart-1", "cart", lab.address(8, 30), 8080, 15_008).of("cart");
        pair.east.start_pod(cart).await?;
        pair.east.export("shop", "cart")?;
        wait::until_true("cart answers", PATIENCE, async || {
            Ok(call(&pair.east, "cart").await?.name == "east/cart-1")
        })
        .await?;
        let own = Traffic::start(pair.east.pod("client")?.calls("shop/cart:80")?);
        let theirs = Traffic::start(pair.east.pod("client")?.calls("shop/echo:80")?);
        wait::until_true("traffic flows", PATIENCE, async || Ok(theirs.so_far().answered() > 10)).await?;
        pair.federation.sealane(&["cluster", "remove", "west"]).await?;
        wait::until_true("east's proxy has nothing of west", PATIENCE, async || {
            let config = inspect::config(pair.east.pod("client")?.admin).await?;
            Ok(config.clusters("shop/echo").is_empty())
        })
        .await?;
        wait::until_true("calls to west fail", PATIENCE, async || {
            Ok(call(&pair.east, "echo").await.is_err())
        })
        .await?;
        let before = own.so_far().answered();
        wait::until_true("own traffic goes on", PATIENCE, async || Ok(own.so_far().answered() > before + 50))
            .await?;
        let tally = own.stop();
        ensure!(tally.failed == 0, "{tally:?}");
        stays_out(&mut pair, &caller).await
    });
}

/// Neither the removed cluster's workloads nor its agent are let in again.
async fn stays_out(pair: &mut Pair, caller: &Caller) -> Result<()> {
    let east = Caller::enrol(&pair.east, "shop", "client").await?.bundle;
    let inbound = pair.east.pod("cart-1")?.inbound();
    let answer = caller.dial(inbound, "p80.cart.shop.svc.clusterset.local", &east).await?;
    ensure!(matches!(answer, Err(Refused::Alert(_))), "a removed cluster's workload is served: {answer:?}");
    wait::until_true("west's agent says why it was sent away", PATIENCE, async || {
        let said = pair.west.agent.as_ref().context("no agent")?.said();
        let lines: Vec<&str> = said.lines().filter(|l| l.contains("uplink")).collect();
        let told =
            |l: &&str| l.contains("ERROR") && l.contains("start with an empty --dir and a new join token");
        ensure!(lines.iter().any(told), "{}", lines.join("\n"));
        Ok(true)
    })
    .await?;
    wait::until_true("west's agent is not ready, and says why", PATIENCE, async || {
        let answer = http::get(pair.west.agent_admin(), "/readyz").await?;
        let status = inspect::agent(pair.west.agent_admin()).await?;
        Ok(answer.status == 503 && status["removed"].as_str().is_some_and(|s| s.contains("west was removed")))
    })
    .await?;
    // It starts again from its last view, and stays outside.
    pair.west.kill_agent();
    let again = tokio::time::timeout(TTL, pair.west.start_agent()).await;
    ensure!(!matches!(again, Ok(Ok(()))), "the agent of a removed cluster says that it is ready");
    wait::until_true("it still says so", PATIENCE, async || {
        let status = inspect::agent(pair.west.agent_admin()).await?;
        Ok(status["removed"].as_str().is_some_and(|s| s.contains("west was removed")))
    })
    .await?;
    new_token_does_not_help(pair).await?;
    let clusters = pair.federation.client()?.clusters().await?.clusters;
    ensure!(clusters.iter().all(|c| c.name != "west"), "west is back");
    Ok(())
}

/// A server that runs is taken out: the command says what becomes of it, and that becomes of it, also when it is started again.
#[test]
fn a_server_that_runs_is_taken_out_and_ends() {
    in_lab(async |lab| {
        let mut federation = Federation::of(lab, 3).await?;
        let leader = federation.leader().await?;
        let at = (0..3).find(|at| *at != leader).context("no follower")?;
        let id = federation.id_of(at).await?;
        let said = federation.sealane(&["server", "remove", &id.to_string()]).await?;
        ensure!(said.starts_with(&format!("removed server {id}, which still ran: it ends now")), "{said}");
        let reason = format!("server {id} was removed from the federation");
        wait::until_true("it ended, and says why", PATIENCE, async || {
            let process = federation.servers[at].process.as_mut().context("it was not started")?;
            let ended = process.ended().is_some();
            ensure!(!ended || process.said().contains(&reason), "{}", process.said());
            Ok(ended)
        })
        .await?;
        // Whether it says that it is ready before it asks is a matter of luck.
        let _ready_or_not = federation.start(at).await;
        wait::until_true("it ends again", PATIENCE, async || {
            let process = federation.servers[at].process.as_mut().context("it was not started")?;
            Ok(process.ended().is_some() && process.said().contains(&reason))
        })
        .await?;
        federation.voting(2).await
    });
}

/// A used token opens nothing.
#[test]
fn a_token_is_used_once() {
    in_lab(async |lab| {
        let pair = Pair::new(lab, 1).await?;
        pair.west.use_token_again().await?;
        let clusters = pair.federation.client()?.clusters().await?.clusters;
        ensure!(clusters.len() == 2, "{clusters:?}");
        call(&pair.east, "echo").await?;
        Ok(())
    });
}

/// A new token on the old directory is not used up: the agent ends and says what to do.
async fn new_token_does_not_help(pair: &mut Pair) -> Result<()> {
    pair.west.kill_agent();
    let token = pair.west.state().with_file_name("new.token");
    let out = token.to_string_lossy().into_owned();
    pair.federation.sealane(&["token", "create", "--cluster", "west", "--out", &out]).await?;
    let root = pair.west.root();
    let path = |name: &str| root.join(name).to_string_lossy().into_owned();
    let (listen, admin) = (pair.west.agent_listen().to_string(), pair.west.agent_admin().to_string());
    let arguments: Vec<String> = [
        ["agent", "run"].map(str::to_owned).to_vec(),
        vec!["--dir".into(), path("agent"), "--join-token-file".into(), out],
        vec!["--manifests".into(), path("manifests"), "--out".into(), path("out")],
        vec!["--listen".into(), listen, "--admin-listen".into(), admin],
    ]
    .concat();
    let ended = pair.west.launcher().run(&arguments).await;
    let said = ended.err().map(|e| format!("{e:#}")).unwrap_or_default();
    ensure!(said.contains("start with an empty --dir and a new join token"), "{said:?}");
    Ok(())
}

//! Agents that start while the servers are away, again, or twice.

use anyhow::{Context, Result, ensure};
use sealane::local::{Lab, PodSpec, Process, Site, Traffic, inspect, wait};
use sealane_tests::{PATIENCE, Pair, TTL, call, in_lab};
use std::path::Path;
use std::time::{Duration, Instant};

/// The servers are dead; an agent restarts from its disk, and even a new pod gets its identity and its configuration.
#[test]
fn an_agent_restarts_with_the_store_away() {
    in_lab(async |lab| {
        let mut pair = Pair::new(lab, 1).await?;
        let traffic = Traffic::start(pair.east.pod("client")?.calls("shop/echo:80")?);
        pair.federation.kill_all();
        wait::until_true("the agent has its view on disk", PATIENCE, async || {
            let status = inspect::agent(pair.east.agent_admin()).await?;
            Ok(status["view"]["kept_revision"] == status["view"]["revision"])
        })
        .await?;
        pair.east.kill_agent();
        pair.east.start_agent().await?;
        let late = PodSpec::client("late", "late", lab.address(8, 20), 15_008).calling("echo", 80, 18_001);
        pair.east.start_pod(late).await?;
        let road = pair.east.pod("late")?.calls("shop/echo:80")?;
        let answer: sealane::app::Greeting =
            sealane::local::http::ask(road, "late", PATIENCE).await?.json()?;
        ensure!(answer.name == "west/echo-1", "{answer:?}");
        wait::until_true("traffic goes on", PATIENCE, async || Ok(traffic.so_far().answered() > 50)).await?;
        let tally = traffic.stop();
        ensure!(tally.failed == 0, "{tally:?}");
        reconnects(&mut pair).await
    });
}

async fn reconnects(pair: &mut Pair) -> Result<()> {
    pair.federation.start_all().await?;
    // A change made now arrives: the agents found the servers again by themselves.
    pair.west.unexport("shop", "echo")?;
    wait::until_true("the un-export arrives in east", PATIENCE, async || {
        Ok(call(&pair.east, "echo").await.is_err())
    })
    .await?;
    pair.west.export("shop", "echo")?;
    pair.answered("west/echo-1").await?;
    Ok(())
}

/// A bad manifest changes nothing but itself, and says where it is wrong.
#[test]
fn a_bad_manifest_leaves_the_rest_as_it_was() {
    in_lab(async |lab| {
        let pair = Pair::new(lab, 1).await?;
        let bad = "apiVersion: v1\nkind: Service\nmetadata:\n  name: cart\n  namespace: shop\nspec:\n  ports:\n  - port: lots\n";
        pair.west.apply("shop.bad", bad)?;
        let log = pair.west.agent.as_ref().map(|a| a.log().to_owned()).unwrap_or_default();
        wait::until_true("the agent's log names the file and the field", PATIENCE, async || {
            let said = std::fs::read_to_string(&log)?;
            Ok(said.lines().any(|l| l.contains("shop.bad.yaml") && l.contains("port")))
        })
        .await?;
        for _ in 0..10 {
            ensure!(call(&pair.east, "echo").await?.name == "west/echo-1");
        }
        let config = inspect::config(pair.east.pod("client")?.admin).await?;
        ensure!(config.clusters("shop/echo").contains("west"));
        Ok(())
    });
}

/// A copy of an agent's directory runs beside it: the first keeps the session, the other says so, both are named, and
/// they never alternate. When the first dies, the other goes on; and a restarted agent needs no lease to end.
#[test]
fn two_agents_on_a_copied_directory_settle_on_one() {
    in_lab(async |lab| {
        let mut pair = Pair::new(lab, 1).await?;
        let first = session(&pair).await?;
        let clone = copied(lab, &pair.west)?;
        wait::until_true("the copy says who holds the session", PATIENCE, async || {
            let said = clone.said();
            Ok(said
                .lines()
                .any(|l| l.contains("another agent instance holds the session") && l.contains(&first.0)))
        })
        .await?;
        let since = Instant::now();
        while since.elapsed() < 3 * TTL {
            let now = session(&pair).await?;
            ensure!((&now.0, &now.1) == (&first.0, &first.1), "the session went from {first:?} to {now:?}");
            ensure!(now.2.is_some(), "the copy is not named");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        pair.answered("west/echo-1").await?;
        clone.kill();
        // A restarted agent is another instance; it does not wait for the lease of its former process.
        pair.west.kill_agent();
        let killed = Instant::now();
        pair.west.start_agent().await?;
        wait::until_true("the restarted agent has the session", PATIENCE, async || {
            Ok(session(&pair).await?.0 != first.0)
        })
        .await?;
        ensure!(killed.elapsed() < TTL, "it took {:?}", killed.elapsed());
        pair.answered("west/echo-1").await?;
        Ok(())
    });
}

/// The instance that has west's session, the session's id, and who was refused.
async fn session(pair: &Pair) -> Result<(String, String, Option<String>)> {
    let clusters = pair.federation.client()?.clusters().await?.clusters;
    let west = clusters.into_iter().find(|c| c.name == "west").context("no west")?;
    let session = west.session.context("west has no session")?;
    Ok((session.instance, session.id, session.refused.map(|r| r.instance)))
}

/// Another agent on a copy of a site's state.
fn copied(lab: &Lab, site: &Site) -> Result<Process> {
    let root = lab.directory("copied")?;
    copy(&site.state(), &root.join("state"))?;
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let arguments = [
        ["agent".to_owned(), "run".into(), "--dir".into(), path(&root.join("state"))],
        ["--manifests".into(), path(&site.root().join("manifests")), "--out".into(), path(&root.join("out"))],
        [
            "--listen".into(),
            lab.socket(13, 1, 15_000).to_string(),
            "--network".into(),
            site.name().to_owned(),
        ],
        [
            "--admin-listen".into(),
            lab.socket(13, 1, 15_100).to_string(),
            "--address-range".into(),
            lab.block().range(14),
        ],
    ];
    lab.launcher().start("west-copied-agent", &arguments.concat())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let (entry, target) = entry.map(|e| (e.path(), to.join(e.file_name())))?;
        if entry.is_dir() {
            copy(&entry, &target)?;
        } else {
            std::fs::copy(entry, target)?;
        }
    }
    Ok(())
}

/// A workload token may be asked for together with the agent's start; two agents do not share an output directory; what
/// is wrong with the arguments is said before the join token is used up.
#[test]
fn an_agents_start_says_what_is_wrong_and_is_waited_for() {
    in_lab(async |lab| {
        let mut pair = Pair::new(lab, 1).await?;
        pair.west.kill_agent();
        std::fs::remove_file(pair.west.state().join("serving.json"))?;
        let waiting = async {
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            Ok::<(), anyhow::Error>(())
        };
        let arguments = ["agent".to_owned(), "workload-token".into(), "--gateway".into(), "--dir".into()];
        let out = lab.directory("tokens")?.join("early");
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let arguments = [&arguments[..], &[path(&pair.west.state()), "--out".into(), path(&out)]].concat();
        let launcher = lab.launcher();
        let (token, started) = tokio::join!(launcher.run(&arguments), async {
            waiting.await?;
            pair.west.start_agent().await
        });
        started?;
        let said = token?;
        ensure!(said.contains("wrote "), "{said}");
        ensure!(launcher.run(&arguments).await.is_err_and(|e| format!("{e:#}").contains("exists")));
        shared_output(lab, &pair).await
    });
}

async fn shared_output(lab: &Lab, pair: &Pair) -> Result<()> {
    let root = lab.directory("newcomer")?;
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let (token, manifests) = (root.join("token"), lab.directory("newcomer/manifests")?);
    pair.federation.sealane(&["token", "create", "--cluster", "north", "--out", &path(&token)]).await?;
    let run = |out: &Path, manifests: &Path| {
        [
            ["agent".to_owned(), "run".into(), "--dir".into(), path(&root.join("state"))],
            ["--join-token-file".into(), path(&token), "--out".into(), path(out)],
            ["--manifests".into(), path(manifests), "--listen".into(), lab.socket(15, 1, 15_000).to_string()],
            [
                "--admin-listen".into(),
                lab.socket(15, 1, 15_100).to_string(),
                "--network".into(),
                "north".into(),
            ],
        ]
        .concat()
    };
    let ended = async |arguments: Vec<String>| match lab.launcher().run(&arguments).await {
        Ok(said) => said,
        Err(error) => format!("{error:#}"),
    };
    let said = ended(run(&pair.west.out(), &manifests)).await;
    ensure!(said.contains("another agent writes there"), "{said}");
    let said = ended(run(&root.join("out"), &root.join("nowhere"))).await;
    ensure!(said.contains("--manifests"), "{said}");
    // The token is still good.
    let mut newcomer = lab.launcher().start("newcomer", &run(&root.join("out"), &manifests))?;
    newcomer.ready().await
}

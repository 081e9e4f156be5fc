//! What explain says is what the proxies do.

use anyhow::{Context, Result, ensure};
use sealane::client::StatusClient;
use sealane::demo::console::Console;
use sealane::demo::enrolment;
use sealane::demo::world::World;
use sealane::local::{Pod, Site, inspect, wait};
use sealane_federation::rest::types::{CandidatePath, DecisionOutcome, Explanation};
use sealane_tests::{PATIENCE, in_lab};
use std::collections::BTreeSet;

/// One place a connection may go to, in the words that both sides share.
type Place = (String, String, String, Option<String>, String);

fn explained(explanation: &Explanation) -> BTreeSet<Place> {
    let chosen = explanation.decisions.iter().filter(|d| d.outcome == DecisionOutcome::Chosen);
    let places = chosen.filter_map(|d| {
        let c = d.candidate.as_ref()?;
        let tier = format!("{:?}", c.tier).to_lowercase();
        Some(match c.path {
            CandidatePath::Gateway => (c.cluster.clone(), tier, "gateway".into(), None, c.address.clone()),
            CandidatePath::Direct => {
                let address = format!("{}:{}", c.address, c.inbound_port.unwrap_or_default());
                (c.cluster.clone(), tier, "direct".into(), c.endpoint.clone(), address)
            }
        })
    });
    places.collect()
}

fn configured(config: &inspect::Config, service: &str) -> BTreeSet<Place> {
    let place = |c: &inspect::Candidate| {
        let address = c.address.clone().unwrap_or_default();
        (c.cluster.clone(), c.tier.clone(), c.path.clone(), c.endpoint.clone(), address)
    };
    config.candidates(service).map(place).collect()
}

/// For every cluster, every service and every pod's proxy: the chosen candidates of `explain` are those of the proxy, at
/// the same revision. Gives how many pairs have candidates at all.
async fn agree(world: &World) -> Result<usize> {
    let mut compared = 0;
    let client = world.federation.client()?;
    for site in [&world.east, &world.west, &world.edge] {
        for service in ["shop/echo", "shop/cart", "shop/stock"] {
            for pod in site.pods.values() {
                compared += usize::from(same(&client, site, pod, service).await? > 0);
            }
        }
    }
    Ok(compared)
}

async fn same(client: &StatusClient, site: &Site, pod: &Pod, service: &str) -> Result<usize> {
    let what = format!("explain and the proxy of {}'s {} agree on {service}", site.name(), pod.spec.name);
    let (places, _) = wait::until(&what, PATIENCE, async || {
        let explanation = client.explain(service, site.name()).await?;
        let config = inspect::config(pod.admin).await?;
        let (ours, theirs) = (&config.revision, &explanation.freshness.revision);
        ensure!(ours == theirs, "the proxy is at revision {ours}, the store at {theirs}");
        let (said, done) = (explained(&explanation), configured(&config, service));
        ensure!(said == done, "at {ours}: explain says {said:?}\nthe proxy has {done:?}");
        Ok(Some(said.len()))
    })
    .await?;
    Ok(places)
}

#[test]
fn explain_says_what_every_proxy_does() {
    in_lab(async |lab| {
        let console = &mut Console::silent();
        let world = &mut enrolment::enrol(lab, console).await?;
        ensure!(agree(world).await? == 0, "something is chosen though nothing is exported");
        world.west.export("shop", "echo")?;
        world.west.export("shop", "cart")?;
        world.east.export("shop", "cart")?;
        world.edge.export("shop", "stock")?;
        wait::until_true("all of it is called", PATIENCE, async || {
            for service in ["echo", "cart", "stock"] {
                World::call(&world.east, service).await?;
                World::call(&world.edge, service).await?;
            }
            Ok(true)
        })
        .await?;
        let pods = world.east.pods.len() + world.west.pods.len() + world.edge.pods.len();
        let compared = agree(world).await?;
        ensure!(compared == 3 * pods, "{compared} of three services in {pods} proxies have candidates");
        world.east.unexport("shop", "cart")?;
        wait::until_true("the un-export arrives", PATIENCE, async || {
            let config = inspect::config(world.edge.pod("client")?.admin).await?;
            Ok(!config.clusters("shop/cart").contains("east"))
        })
        .await?;
        agree(world).await?;
        every_rejection_has_its_reason(world).await
    });
}

async fn every_rejection_has_its_reason(world: &World) -> Result<()> {
    let explanation = world.federation.client()?.explain("shop/echo", "east").await?;
    let behind = explanation.decisions.iter().find(|d| d.outcome == DecisionOutcome::BehindGateway);
    let behind = behind.context("west's endpoint is not in the explanation")?;
    ensure!(behind.cluster == "west" && behind.endpoint.is_some(), "{behind:?}");
    ensure!(explanation.decisions.iter().all(|d| !d.reason.is_empty()), "{explanation:?}");
    Ok(())
}

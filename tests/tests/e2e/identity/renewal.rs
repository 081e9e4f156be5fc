//! Certificates that live for seconds: everybody renews, and nobody who talks notices.

use anyhow::{Context, Result, ensure};
use sealane::app::Greeting;
use sealane::local::{Federation, Lab, Process, SiteSpec, Traffic, http, wait};
use sealane_tests::{Pair, call, in_lab};
use std::time::Duration;

/// How long every certificate lasts, the servers' and the agents' as well as the proxies'.
const LIFE: &str = "5s";
/// How often each is renewed in a test: many times the life of the first ones.
const RENEWALS: usize = 10;
/// How long that may take.
const LONG: Duration = Duration::from_secs(60);

async fn pair(lab: &Lab) -> Result<Pair> {
    let short = |name: &str, block| {
        let mut spec = SiteSpec::new(name, block);
        spec.agent = ["--svid-ttl", LIFE].map(str::to_owned).to_vec();
        spec
    };
    let federation = Federation::with_options(lab, 3, &["--certificate-ttl", LIFE]).await?;
    Pair::of(lab, federation, short("east", 1), short("west", 3)).await
}

/// Everybody who has a certificate.
fn holders(pair: &Pair) -> Result<Vec<&Process>> {
    let mut all: Vec<Option<&Process>> = pair.federation.servers.iter().map(|s| s.process.as_ref()).collect();
    for site in [&pair.east, &pair.west] {
        all.extend([site.agent.as_ref(), site.gateway.as_ref()]);
        all.extend(site.pods.values().map(|pod| pod.sidecar.as_ref()));
    }
    all.into_iter().collect::<Option<Vec<_>>>().context("somebody does not run")
}

fn renewals(holder: &Process) -> usize {
    let renewed =
        |l: &&str| l.contains("certificate renewed") || l.contains("renewed the agent's certificate");
    holder.said().lines().filter(renewed).count()
}

#[test]
fn certificates_of_seconds_are_renewed_ten_times_without_one_failure() {
    in_lab(async |lab| {
        let mut pair = pair(lab).await?;
        let entry = pair.east.pod("client")?.calls("shop/echo:80")?;
        let traffic = Traffic::start(entry);
        let mut open = http::Lasting::open(entry).await?;
        let (mut asked, mut broke) = (0u32, None);
        wait::until_true("everybody has renewed ten times", LONG, async || {
            asked += 1;
            broke = open.ask(&format!("{asked}")).await.and_then(|a| a.json::<Greeting>()).err();
            if broke.is_some() {
                return Ok(true);
            }
            let counts: Vec<(usize, &str)> =
                holders(&pair)?.into_iter().map(|h| (renewals(h), h.name())).collect();
            ensure!(counts.iter().all(|(count, _)| *count >= RENEWALS), "{counts:?}");
            Ok(true)
        })
        .await?;
        ensure!(broke.is_none(), "the connection that was open all the time broke: {broke:?}");
        ensure!(asked > 50, "the open connection was asked {asked} times only");
        let tally = traffic.stop();
        ensure!(tally.failed == 0 && tally.answered() > 100, "{tally:?}");
        ensure!(pair.west.ended().is_empty() && pair.east.ended().is_empty());
        // Renewal is no storm: twice in a life, as the clock says, and not as fast as it goes.
        for holder in holders(&pair)? {
            let count = renewals(holder);
            ensure!(count < 5 * RENEWALS, "{} renewed {count} times", holder.name());
        }
        // And the control plane lives: a change arrives.
        pair.west.unexport("shop", "echo")?;
        wait::until_true("the un-export arrives", LONG, async || Ok(call(&pair.east, "echo").await.is_err()))
            .await?;
        Ok(())
    });
}

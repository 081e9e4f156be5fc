//! Who stands in another's place, with certificates of one's own: nothing is delivered there, and nobody is let in.

use anyhow::{Context, Result, ensure};
use sealane::local::caller::{ALPN, Caller, Refused};
use sealane::local::{Federation, Lab, PodSpec, Relay, Site, SiteSpec, http, inspect, wait};
use sealane_core::identity::SpiffeId;
use sealane_tests::impostor::Impostor;
use sealane_tests::{PATIENCE, forge, in_lab};
use sealane_trust::tls::Identity;
use std::net::SocketAddr;
use std::time::Duration;

/// Three clusters: `east` calls `shop/echo` of `west`, through its gateway, and `shop/stock` of `edge`, directly.
struct Three {
    _federation: Federation,
    east: Site,
    west: Site,
    edge: Site,
}

impl Three {
    async fn new(lab: &Lab) -> Result<Self> {
        let federation = Federation::found(lab, &[]).await?;
        let lan = |name: &str, block| SiteSpec::new(name, block).in_network("lan");
        let (mut east, mut west, mut edge) = tokio::try_join!(
            Site::enrol(&federation, lab, lan("east", 1)),
            Site::enrol(&federation, lab, SiteSpec::new("west", 3).tapped()),
            Site::enrol(&federation, lab, lan("edge", 5))
        )?;
        let client = PodSpec::client("client", "client", lab.address(8, 10), 15_008);
        let client = client.calling("echo", 80, 18_001).calling("stock", 80, 18_002);
        let echo = PodSpec::server("echo-1", "echo", lab.address(9, 10), 8080, 15_008).of("echo");
        let stock = PodSpec::server("stock-1", "stock", lab.address(10, 10), 8080, 15_008).of("stock");
        for (site, service, pod) in [(&mut west, "echo", echo), (&mut edge, "stock", stock.tapped(15_009))] {
            site.serve("shop", service, 80)?;
            site.start_pod(pod).await?;
            site.export("shop", service)?;
        }
        east.start_pod(client).await?;
        let three = Three { _federation: federation, east, west, edge };
        three.answered("echo", "west/echo-1").await?;
        three.answered("stock", "edge/stock-1").await?;
        Ok(three)
    }

    async fn answered(&self, service: &str, by: &str) -> Result<()> {
        wait::until_true(&format!("{service} is answered by {by}"), PATIENCE, async || {
            Ok(sealane_tests::call(&self.east, service).await?.name == by)
        })
        .await?;
        Ok(())
    }
}

/// A stranger, and why it is not taken for whom it stands for.
struct Case {
    who: &'static str,
    identity: Identity,
    reason: &'static str,
}

const WRONG_DOMAIN: &str = "was expected";
const NOT_ACCEPTED: &str = "which is not accepted here";
const UNKNOWN: &str = "UnknownIssuer";
const EXPIRED: &str = "certificate expired";

fn case(who: &'static str, identity: Identity, reason: &'static str) -> Case {
    Case { who, identity, reason }
}

/// Whatever can be presented at the place of `shop/NAME` of `owner` by itself for another account, and by `thief`.
async fn cases(owner: &Site, thief: &Site, name: &str) -> Result<Vec<Case>> {
    let (theirs, own) = (forge::authority(owner)?, forge::authority(thief)?);
    let id = format!("spiffe://{}/ns/shop/sa/{name}", theirs.trust_domain());
    let true_root = std::slice::from_ref(theirs.root_certificate());
    Ok(vec![
        case(
            "the thief's own workload of the same name",
            Caller::enrol(thief, "shop", name).await?.identity,
            WRONG_DOMAIN,
        ),
        case("the thief's gateway", Caller::enrol_as(thief, &["--gateway"]).await?.identity, WRONG_DOMAIN),
        case(
            "another account of the owner",
            Caller::enrol(owner, "shop", "other").await?.identity,
            NOT_ACCEPTED,
        ),
        case("the owner's gateway", Caller::enrol_as(owner, &["--gateway"]).await?.identity, NOT_ACCEPTED),
        case("the owner's identity by the thief's authority", forge::identity(&own, &id, &[])?, UNKNOWN),
        case("the same, with the owner's root behind it", forge::identity(&own, &id, true_root)?, UNKNOWN),
        case("what the owner was", forge::expired(&theirs, &SpiffeId::parse(&id)?)?, EXPIRED),
    ])
}

/// Calls until the caller's proxy refuses for this reason; no marker may ever be answered.
async fn calls_are_refused(three: &Three, service: &str, case: &Case) -> Result<()> {
    let pod = three.east.pod("client")?;
    let entry = pod.calls(&format!("shop/{service}:80"))?;
    let what = format!("{service} is refused, because of {}", case.who);
    wait::until_true(&what, PATIENCE, async || {
        let answer = http::ask(entry, "marker-for-nobody", Duration::from_secs(5)).await;
        ensure!(answer.is_err(), "{}: it was answered", case.who);
        let name = format!("shop/{service}");
        let all = inspect::connections(pod.admin).await?;
        let last = all.into_iter().rfind(|c| c.direction == "outbound" && c.service.as_ref() == Some(&name));
        let reason = last.and_then(|c| c.reason).context("no connection in the record")?;
        ensure!(reason.contains(case.reason), "{reason}");
        Ok(true)
    })
    .await?;
    Ok(())
}

/// All cases at one place, and then the one that may stand there.
async fn stand_in(three: &Three, place: SocketAddr, service: &str, cases: &[Case], own: &Site) -> Result<()> {
    let impostor = Impostor::at(place, &cases[0].identity, ALPN).await?;
    for case in cases {
        impostor.present(&case.identity);
        let refused = impostor.heard().refused;
        calls_are_refused(three, service, case).await?;
        let heard = impostor.heard();
        ensure!(heard.refused > refused, "{}: nobody came", case.who);
        ensure!(heard.bytes.is_empty(), "{}: {heard:?}", case.who);
    }
    // It hears what is delivered: as itself.
    impostor.present(&Caller::enrol(own, "shop", service).await?.identity);
    let entry = three.east.pod("client")?.calls(&format!("shop/{service}:80"))?;
    wait::until_true("the true one hears the marker", PATIENCE, async || {
        let _ = http::ask(entry, "marker-for-the-true-one", Duration::from_millis(500)).await;
        Ok(impostor.heard().has(b"marker-for-the-true-one"))
    })
    .await?;
    let heard = impostor.heard();
    ensure!(!heard.has(b"marker-for-nobody"), "{heard:?}");
    Ok(())
}

#[test]
fn nothing_is_delivered_to_who_stands_in_anothers_place() {
    in_lab(async |lab| {
        let mut three = Three::new(lab).await?;
        let (gateway, inbound) = (three.west.gateway_address(), three.edge.pod("stock-1")?.inbound());
        // The thief of west's place is edge, and the other way round: each a member in good standing.
        let at_gateway = cases(&three.west, &three.edge, "echo").await?;
        let at_endpoint = cases(&three.edge, &three.west, "stock").await?;
        three.west.gateway_tap = None;
        three.edge.pod_mut("stock-1")?.tap = None;
        tokio::try_join!(
            stand_in(&three, gateway, "echo", &at_gateway, &three.west),
            stand_in(&three, inbound, "stock", &at_endpoint, &three.edge)
        )?;
        // With the true ones in their places again, all is as before.
        let listen = three.west.gateway_listen();
        let back = async || Ok(Relay::start(gateway, listen).await.ok());
        three.west.gateway_tap = Some(wait::until("the place is free", PATIENCE, back).await?.0);
        wait::until_true("stock's place is free", PATIENCE, async || {
            Ok(three.edge.pod_mut("stock-1")?.start_tap().await.is_ok())
        })
        .await?;
        three.answered("echo", "west/echo-1").await?;
        three.answered("stock", "edge/stock-1").await
    });
}

/// The other side: who presents another's identity is not let in by the one it calls.
#[test]
fn nobody_is_let_in_under_another_clusters_identity() {
    in_lab(async |lab| {
        let three = Three::new(lab).await?;
        let sni = "p80.echo.shop.svc.clusterset.local";
        let west = forge::authority(&three.west)?;
        let trust = Caller::enrol(&three.west, "shop", "echo").await?.bundle;
        let (east, edge) = (forge::authority(&three.east)?, forge::authority(&three.edge)?);
        let id = format!("spiffe://{}/ns/shop/sa/client", east.trust_domain());
        let root = std::slice::from_ref(east.root_certificate());
        let strangers = [
            ("east's identity by edge's authority", forge::identity(&edge, &id, &[])?),
            ("the same, with east's root behind it", forge::identity(&edge, &id, root)?),
            ("the same, with west's root behind it", forge::identity(&edge, &id, west.chain())?),
            ("what east's client was", forge::expired(&east, &SpiffeId::parse(&id)?)?),
            ("an agent of the federation", forge::agent(&three.edge)?),
        ];
        let places = [three.west.gateway_address(), three.west.pod("echo-1")?.inbound()];
        for place in places {
            for (who, identity) in &strangers {
                let caller = Caller { identity: identity.clone(), bundle: trust.clone() };
                let answer = caller.dial(place, sni, &trust).await?;
                ensure!(matches!(answer, Err(Refused::Alert(_))), "{who} at {place}: {answer:?}");
            }
            // By its own authority it is served.
            let caller = Caller { identity: forge::identity(&east, &id, &[])?, bundle: trust.clone() };
            let peer = caller.dial(place, sni, &trust).await??;
            ensure!(peer == "spiffe://west.sealane.local/ns/shop/sa/echo", "{peer}");
        }
        Ok(())
    });
}

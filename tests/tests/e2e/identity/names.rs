//! The server names that lead somewhere, and all those that do not.

use anyhow::{Context, Result, bail, ensure};
use sealane::local::caller::{ALPN, Caller, Refused};
use sealane::local::{PodSpec, SiteSpec, http, inspect, wait};
use sealane_tests::{PATIENCE, Pair, call, in_lab};
use sealane_trust::tls::{self, FederationPeers};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const ECHO: &str = "p80.echo.shop.svc.clusterset.local";
const LEDGER: &str = "p80.ledger.shop.svc.clusterset.local";
/// What a proxy says to a name that leads nowhere.
const UNRECOGNIZED: &str = "UnrecognisedName";

/// Names that lead nowhere in `west`.
const NOWHERE: [&str; 10] = [
    // Served there, and never exported.
    LEDGER,
    // Of east, and imported by west: a gateway is no way to a third cluster, nor back.
    "p80.cart.shop.svc.clusterset.local",
    "p81.echo.shop.svc.clusterset.local",
    "p8080.echo.shop.svc.clusterset.local",
    "p80.echo.other.svc.clusterset.local",
    "e-aaaaaaaaaaaaa.p80.echo.shop.svc.clusterset.local",
    "p80.echo.shop.svc.cluster.local",
    "echo.shop.svc.clusterset.local",
    "probe.east.sealane.internal",
    // No name at all is sent with an address.
    "127.0.0.1",
];

/// How a stranger without any certificate is answered: the alert, or that the handshake was begun.
async fn stranger(address: SocketAddr, sni: &str, caller: &Caller) -> Result<String> {
    let policy = FederationPeers::matching(caller.bundle.clone(), |_| true);
    let config = tls::client_config(None, Arc::new(policy), &[ALPN]);
    let stream = TcpStream::connect(address).await?;
    let connect = TlsConnector::from(config).connect(sni.to_owned().try_into()?, stream);
    let read = async {
        let mut byte = [0];
        connect.await?.read_exact(&mut byte).await
    };
    let ended = tokio::time::timeout(Duration::from_secs(5), read).await.context("no answer")?;
    let error = ended.err().context("a stranger without a certificate is served")?;
    match error.get_ref().and_then(|e| e.downcast_ref::<sealane_trust::rustls::Error>()) {
        Some(sealane_trust::rustls::Error::AlertReceived(alert)) => Ok(format!("{alert:?}")),
        _ => bail!("no alert: {error}"),
    }
}

/// The clusters, where `west` serves `shop/ledger` too and does not export it, and `east` exports `shop/cart`.
async fn with_a_ledger(lab: &sealane::local::Lab, east: SiteSpec, west: SiteSpec) -> Result<Pair> {
    let mut pair = Pair::with(lab, 1, east, west).await?;
    pair.west.serve("shop", "ledger", 80)?;
    let ledger = PodSpec::server("ledger-1", "ledger", lab.address(9, 20), 8080, 15_008).of("ledger");
    pair.west.start_pod(ledger).await?;
    pair.east.serve("shop", "cart", 80)?;
    let cart = PodSpec::server("cart-1", "cart", lab.address(8, 30), 8080, 15_008).of("cart");
    pair.east.start_pod(cart).await?;
    pair.east.export("shop", "cart")?;
    let imported = pair.west.out().join("serviceimports/shop.cart.yaml");
    wait::until_true("west imports shop/cart", PATIENCE, async || Ok(imported.exists())).await?;
    Ok(pair)
}

#[test]
fn a_gateway_leads_to_its_own_clusters_exports_and_nowhere_else() {
    in_lab(async |lab| {
        let pair = with_a_ledger(lab, SiteSpec::new("east", 1), SiteSpec::new("west", 3)).await?;
        let east = Caller::enrol(&pair.east, "shop", "client").await?;
        let west = Caller::enrol(&pair.west, "shop", "other").await?;
        let gateway = pair.west.gateway_listen();
        let places = [gateway, pair.west.pod("echo-1")?.inbound(), pair.west.pod("ledger-1")?.inbound()];
        for name in NOWHERE {
            for place in places {
                for caller in [&east, &west] {
                    let answer = caller.dial(place, name, &west.bundle).await?;
                    let alert = matches!(&answer, Err(Refused::Alert(alert)) if alert == UNRECOGNIZED);
                    ensure!(alert, "{name} at {place}: {answer:?}");
                }
                let alert =
                    stranger(place, name, &west).await.with_context(|| format!("{name} at {place}"))?;
                ensure!(alert == UNRECOGNIZED, "{name} at {place}: {alert}");
            }
        }
        // The same callers with the right name.
        for name in [ECHO, "P80.Echo.Shop.SVC.clusterset.local"] {
            let peer = east.dial(gateway, name, &west.bundle).await??;
            ensure!(peer == "spiffe://west.sealane.local/ns/shop/sa/echo", "{name}: {peer}");
            let alert = stranger(gateway, name, &west).await?;
            ensure!(alert == "CertificateRequired", "{name}: {alert}");
        }
        for service in ["shop/ledger", "shop/cart"] {
            let labels = [("direction", "gateway"), ("service", service), ("verdict", "closed")];
            let led = inspect::metric(pair.west.gateway_admin(), "sealane_proxy_connections_total", &labels)
                .await?;
            ensure!(led == 0, "the gateway led {led} connections to {service}");
        }
        Ok(())
    });
}

#[test]
fn what_is_not_exported_is_refused_in_a_flat_network_too() {
    in_lab(async |lab| {
        let lan = |name: &str, block| SiteSpec::new(name, block).in_network("lan");
        let mut pair = with_a_ledger(lab, lan("east", 1), lan("west", 3)).await?;
        // Nobody but the pods' own proxies is left to refuse.
        if let Some(gateway) = pair.west.gateway.take() {
            gateway.kill();
        }
        let east = Caller::enrol(&pair.east, "shop", "client").await?;
        let west = Caller::enrol(&pair.west, "shop", "other").await?;
        let (echo, ledger) = (pair.west.pod("echo-1")?.inbound(), pair.west.pod("ledger-1")?.inbound());
        let entry = pair.east.pod("client")?.calls("shop/echo:80")?;
        let mut open = http::Lasting::open(entry).await?;
        open.ask("before").await?;
        let last = inspect::connections(pair.east.pod("client")?.admin).await?;
        let direct = last.iter().rev().find(|c| c.direction == "outbound").map(|c| c.path.as_str());
        ensure!(direct == Some("direct"), "the network is not flat: {direct:?}");
        let refused =
            async |place, name, caller: &Caller| match caller.dial(place, name, &west.bundle).await? {
                Err(Refused::Alert(alert)) if alert == UNRECOGNIZED => Ok(true),
                Ok(_) => Ok(false),
                other => bail!("{other:?}"),
            };
        ensure!(refused(ledger, LEDGER, &east).await?, "what was never exported is served");
        ensure!(!refused(echo, ECHO, &east).await?, "what is exported is refused");
        pair.west.unexport("shop", "echo")?;
        wait::until_true("the pod's own proxy refuses east", PATIENCE, async || {
            refused(echo, ECHO, &east).await
        })
        .await?;
        ensure!(refused(ledger, LEDGER, &east).await? && refused(echo, ECHO, &west).await?);
        wait::until_true("east's call fails", PATIENCE, async || Ok(call(&pair.east, "echo").await.is_err()))
            .await?;
        // What was open stays open, and back it comes with the export.
        open.ask("after").await.context("an open connection was cut by an un-export")?;
        pair.west.export("shop", "echo")?;
        pair.answered("west/echo-1").await?;
        ensure!(!refused(echo, ECHO, &east).await?, "what is exported again is refused");
        Ok(())
    });
}

//! What an agent's certificate lets it write: its own cluster's catalog, and nothing in another's name.

use anyhow::{Context, Result, ensure};
use sealane::local::{Federation, http, wait};
use sealane_core::command::CatalogChange;
use sealane_core::endpoint::Endpoint;
use sealane_core::identity::SpiffeId;
use sealane_core::name::{EndpointId, PortName, ServiceKey, TrustDomain};
use sealane_federation::rest::types::{Cluster, Export, Service};
use sealane_proto::federation::v1::RenewRequest;
use sealane_proto::federation::v1::enroll_client::EnrollClient;
use sealane_tests::uplink::{Uplink, dial};
use sealane_tests::{PATIENCE, Pair, forge, in_lab};
use sealane_trust::bundle::Bundle;
use sealane_trust::key::PrivateKey;
use sealane_trust::tls::Identity;
use std::collections::{BTreeMap, BTreeSet};

/// What the federation has of `west`: its record and its export of `shop/echo`.
async fn of_west(federation: &Federation) -> Result<(Cluster, Option<Export>)> {
    let client = federation.client()?;
    let Service { exports, .. } = client.service("shop/echo").await?.service;
    let cluster = client.cluster("west").await?.cluster;
    Ok((cluster, exports.into_iter().find(|e| e.cluster == "west")))
}

/// All that a cluster says of itself; what is observed of it changes all the time.
async fn said_by_west(federation: &Federation) -> Result<impl PartialEq + std::fmt::Debug + use<>> {
    let (c, export) = of_west(federation).await?;
    let export = export.context("west does not export shop/echo")?;
    Ok((
        c.id,
        c.trust_domain,
        c.network,
        c.gateways,
        c.probes,
        c.interest,
        c.bundle_sequence,
        c.exports,
        export,
    ))
}

fn echo() -> Result<ServiceKey> {
    Ok(ServiceKey::parse("shop/echo")?)
}

/// An endpoint that claims this identity.
fn endpoint(id: &str) -> Result<Endpoint> {
    Ok(Endpoint {
        id: EndpointId::parse("e-abcdefghij234")?,
        address: std::net::Ipv4Addr::new(127, 1, 1, 1).into(),
        ports: BTreeMap::from([(PortName::parse("http")?, 8080)]),
        ready: true,
        locality: Default::default(),
        spiffe_id: Some(SpiffeId::parse(id)?),
        inbound_port: Some(15_008),
        hostname: None,
        network: None,
    })
}

/// The session that is open for a cluster, as its agent tells.
async fn session_of(agent: std::net::SocketAddr) -> Result<[u8; 16]> {
    let status: serde_json::Value = http::get(agent, "/status").await?.json()?;
    let id = status["session"]["id"].as_str().context("no session is open")?;
    let byte = |at: usize| id.get(2 * at..2 * at + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
    let bytes: Option<Vec<u8>> = (0..16).map(byte).collect();
    bytes.and_then(|b| b.try_into().ok()).with_context(|| format!("{id} is no session id"))
}

#[test]
fn a_cluster_can_not_write_anothers_catalog() {
    in_lab(async |lab| {
        let mut pair = Pair::new(lab, 1).await?;
        let before = said_by_west(&pair.federation).await?;
        // Whoever runs east has its certificate, and its own agent does not stand in the way.
        pair.east.kill_agent();
        let identity = forge::agent(&pair.east)?;
        let server = pair.federation.servers[0].grpc;
        let roots = forge::roots(&pair.east)?;
        let session = session_of(pair.west.agent_admin()).await?;
        // Under west's own session id: a session is its cluster's.
        let opened =
            async || Ok(Some(Uplink::open(dial(server, &identity, &roots)?, session, [1; 16]).await?));
        // Its agent's session has to be found dead first.
        let (mut uplink, _) = wait::until("a session opens", PATIENCE, opened).await?;
        let west = forge::authority(&pair.west)?;
        let bundle = sealane_core::trust::Bundle {
            trust_domain: TrustDomain::parse("west.sealane.local")?,
            sequence: 1_000,
            refresh_hint_s: 60,
            roots: vec![forge::authority(&pair.east)?.root_certificate().to_vec()],
        };
        ensure!(bundle.trust_domain == *west.trust_domain());
        let theirs = endpoint("spiffe://west.sealane.local/ns/shop/sa/echo")?;
        let changes = [
            CatalogChange::RemoveExport { service: echo()? },
            CatalogChange::RetainEndpoints { service: echo()?, ids: BTreeSet::new() },
            CatalogChange::PutBundle { bundle },
            CatalogChange::PutExport { service: echo()?, export: forge::export()? },
            CatalogChange::PutEndpoints { service: echo()?, endpoints: vec![theirs] },
        ];
        let refused = uplink.write(&changes).await?.refused;
        let refused: Vec<(u32, String)> = refused.into_iter().map(|(at, r)| (at, r.message)).collect();
        let told = [
            (
                2,
                "the bundle is of west.sealane.local, but cluster east may publish that of east.sealane.local only",
            ),
            (4, "spiffe://west.sealane.local/ns/shop/sa/echo is not in east.sealane.local"),
        ];
        let as_told = |((at, message), (expected, part)): (&(u32, String), &(u32, &str))| {
            at == expected && message.contains(part)
        };
        ensure!(refused.len() == told.len() && refused.iter().zip(&told).all(as_told), "{refused:?}");
        uplink.write(&[CatalogChange::Synced { services: BTreeSet::new() }]).await?;
        let after = said_by_west(&pair.federation).await?;
        ensure!(after == before, "west's catalog was {before:?} and is {after:?}");
        ensure!(
            session_of(pair.west.agent_admin()).await? == session,
            "west was shut out of its own session"
        );
        only_ever_itself(&pair, &roots).await?;
        pair.answered("west/echo-1").await?;
        Ok(())
    });
}

/// However its agent asks, it is `east`.
async fn only_ever_itself(pair: &Pair, roots: &Bundle) -> Result<()> {
    let server = pair.federation.servers[0].grpc;
    let west = "spiffe://sealane.local/agent/west";
    // A request for another name is answered with one's own.
    let key = PrivateKey::generate()?;
    let csr = forge::request(&key, west)?;
    let channel = dial(server, &forge::agent(&pair.east)?, roots)?;
    let reply = EnrollClient::new(channel).renew(RenewRequest { csr }).await?.into_inner();
    let chain = reply.chain.into_iter().map(sealane_trust::CertificateDer::from).collect();
    let renewed = Identity::new(chain, &key)?.current().spiffe_id;
    ensure!(renewed.to_string() == "spiffe://sealane.local/agent/east", "{renewed}");
    // What east's own authority says of the federation's principals is nothing to the servers.
    let own = forge::authority(&pair.east)?;
    for root in [&[][..], roots.roots()] {
        let forged = forge::identity(&own, west, root)?;
        let refused = Uplink::open(dial(server, &forged, roots)?, [5; 16], [5; 16]).await;
        ensure!(refused.is_err(), "a forged agent is admitted");
    }
    // Nor is the certificate of a workload, or of an agent that took the right to sign upon itself.
    let domain = TrustDomain::parse("sealane.local")?;
    let signing = forge::signing_leaf(&forge::agent(&pair.east)?, &forge::agent_key(&pair.east)?, &domain)?;
    let forged = forge::identity(&signing, west, &[])?;
    let refused = Uplink::open(dial(server, &forged, roots)?, [6; 16], [6; 16]).await;
    ensure!(refused.is_err(), "who was signed by an agent is admitted");
    Ok(())
}

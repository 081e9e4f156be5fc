//! A proxy that does nothing but listen to its agent.
//!
//! It gets its identity by a workload token and opens the agent's stream, as every proxy does; a sidecar without a pod
//! gets every import. It notes when a delta is here, parsed; it acknowledges what it got.

use anyhow::{Context, Result, bail, ensure};
use sealane_core::identity::SpiffeId;
use sealane_core::name::TrustDomain;
use sealane_proto::agent::v1 as wire;
use sealane_proto::agent::v1::config_client::ConfigClient;
use sealane_proto::agent::v1::identity_client::IdentityClient;
use sealane_proto::agent::v1::proxy_item::Kind as Item;
use sealane_proto::agent::v1::proxy_reply::Kind as Reply;
use sealane_proto::agent::v1::proxy_request::Kind as Request;
use sealane_proto::hello;
use sealane_proto::types::v1::{Import, candidate};
use sealane_trust::bundle::Bundle;
use sealane_trust::csr::Csr;
use sealane_trust::grpc::{DialOptions, channel};
use sealane_trust::key::PrivateKey;
use sealane_trust::tls::{ALPN_H2, FederationPeers, Identity, client_config};
use sealane_trust::{CertificateDer, file, pem};
use serde::Deserialize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// The service that is measured.
pub(crate) const PROBE: &str = "probe";
/// The namespace of all.
pub(crate) const NAMESPACE: &str = "shop";
/// Whom it gets its identity as.
pub(crate) const WHOM: [&str; 4] = ["--namespace", NAMESPACE, "--service-account", "listener"];

/// The largest delta.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// Listens until it is dropped.
pub(crate) struct Listener {
    seen: Arc<Seen>,
    arrivals: mpsc::Receiver<(u32, Instant)>,
    wanted: u32,
    stream: JoinSet<Result<()>>,
}

/// What came so far.
#[derive(Debug, Default)]
struct Seen {
    /// Imports of other services, in the first delta and later ones.
    others: AtomicU64,
    /// How many are known.
    known: AtomicU32,
}

/// A token file, as far as it matters here.
#[derive(Deserialize)]
struct TokenFile {
    agent: Vec<String>,
    trust_domain: String,
    roots: Vec<String>,
    secret: String,
}

impl Listener {
    /// Becomes a proxy by a workload token.
    pub(crate) async fn open(token: &Path) -> Result<Self> {
        let channel = identified(token).await?;
        let (requests, outgoing) = mpsc::channel(8);
        let hello = wire::ProxyHello {
            hello: Some(hello::hello(None)),
            role: wire::Role::Sidecar.into(),
            inbound_address: "127.0.0.1:1".to_owned(),
            ..Default::default()
        };
        requests.send(wire::ProxyRequest { kind: Some(Request::Hello(hello)) }).await?;
        let mut client = ConfigClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let replies = client.watch(ReceiverStream::new(outgoing)).await?.into_inner();
        let (seen, (teller, arrivals)) = (Arc::<Seen>::default(), mpsc::channel(256));
        let mut stream = JoinSet::new();
        stream.spawn(listen(replies, requests, seen.clone(), teller));
        Ok(Listener { seen, arrivals, wanted: 0, stream })
    }

    /// Waits until so many services are known.
    pub(crate) async fn until_known(&mut self, services: u32, limit: Duration) -> Result<()> {
        let known = async {
            while self.seen.known.load(Ordering::Relaxed) < services {
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(20)) => {}
                    // The probe's first arrivals are of no interest.
                    _ = self.arrivals.recv() => {}
                    ended = self.stream.join_next() => return over(ended),
                }
            }
            Ok(())
        };
        timeout(limit, known).await.context("the services did not all come to the proxy")?
    }

    /// Imports of other services that came.
    pub(crate) fn others(&self) -> u64 {
        self.seen.others.load(Ordering::Relaxed)
    }

    /// From now on this weight is waited for.
    pub(crate) fn expect(&mut self, weight: u32) {
        while self.arrivals.try_recv().is_ok() {}
        self.wanted = weight;
    }

    /// When the weight arrived.
    pub(crate) async fn came(&mut self) -> Result<Instant> {
        loop {
            tokio::select! {
                arrival = self.arrivals.recv() => match arrival {
                    Some((weight, at)) if weight == self.wanted => return Ok(at),
                    Some(_) => {}
                    None => bail!("the agent's stream ended"),
                },
                ended = self.stream.join_next() => { over(ended)?; }
            }
        }
    }
}

fn over(ended: Option<Result<Result<()>, tokio::task::JoinError>>) -> Result<()> {
    ended.context("nobody listens any more")???;
    bail!("the agent's stream ended")
}

async fn listen(
    mut replies: Streaming<wire::ProxyReply>,
    requests: mpsc::Sender<wire::ProxyRequest>,
    seen: Arc<Seen>,
    teller: mpsc::Sender<(u32, Instant)>,
) -> Result<()> {
    let mut known = std::collections::BTreeSet::new();
    loop {
        let reply = replies.message().await?.context("the agent ended the stream")?;
        let now = Instant::now();
        let Some(Reply::Delta(delta)) = reply.kind else { continue };
        let outbound = delta.upserts.into_iter().filter_map(|item| match item.kind {
            Some(Item::Outbound(outbound)) => outbound.import,
            _ => None,
        });
        for import in outbound {
            let Some((name, weight)) = import.service.as_ref().map(|s| s.name.clone()).zip(weight(&import))
            else {
                continue;
            };
            if name == PROBE {
                teller.send((weight, now)).await?;
            } else {
                seen.others.fetch_add(1, Ordering::Relaxed);
            }
            if known.insert(name) {
                seen.known.store(u32::try_from(known.len())?, Ordering::Relaxed);
            }
        }
        let applied =
            wire::ProxyApplied { revision: delta.revision, version: delta.version, error: String::new() };
        // When there is no room, a later one tells more.
        let _ = requests.try_send(wire::ProxyRequest { kind: Some(Request::Applied(applied)) });
    }
}

/// The weights of the gateways of an import together, or its direct endpoints.
fn weight(import: &Import) -> Option<u32> {
    let of = |path: &candidate::Path| match path {
        candidate::Path::Direct(_) => 1,
        candidate::Path::Gateway(gateway) => gateway.weights.iter().map(|w| w.weight).sum(),
    };
    let weights: Vec<u32> = import.candidates.iter().filter_map(|c| c.path.as_ref()).map(of).collect();
    (!weights.is_empty()).then(|| weights.iter().sum())
}

/// A channel to the agent under an identity that the token brought.
async fn identified(token: &Path) -> Result<Channel> {
    let token: TokenFile = serde_json::from_slice(&file::read_private(token, 256 * 1024)?)?;
    let domain = TrustDomain::parse(&token.trust_domain)?;
    let roots: Result<Vec<Vec<_>>, _> = token.roots.iter().map(|r| pem::certificates(r.as_bytes())).collect();
    let bundle = Bundle::new(domain.clone(), roots?.concat())?;
    let policy = Arc::new(FederationPeers::exactly(bundle, SpiffeId::cluster_agent(&domain)));
    let dial = |identity: Option<&Identity>| {
        channel(&token.agent, client_config(identity, policy.clone(), &[ALPN_H2]), &DialOptions::default())
    };
    let key = PrivateKey::generate()?;
    let secret = data_encoding::BASE64URL_NOPAD.decode(token.secret.trim_end_matches('=').as_bytes());
    let request = wire::IssueRequest {
        token: secret.context("the token's secret is not base64url")?,
        csr: Csr::create(&key)?.der().to_vec(),
    };
    let issued = IdentityClient::new(dial(None)?).issue(request).await?.into_inner();
    let chain: Vec<CertificateDer<'static>> = issued.chain.into_iter().map(CertificateDer::from).collect();
    ensure!(!chain.is_empty(), "the agent issued nothing");
    Ok(dial(Some(&Identity::new(chain, &key)?))?)
}

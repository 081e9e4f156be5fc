//! `Config.Watch`: one stream a proxy.
//!
//! Law: a proxy gets what its certificate entitles it to. A change that is none for it sends nothing; one that takes
//! its time gets the latest values when it is ready for more, so a slow proxy costs one delta.

use super::{Common, Role, Told, wire as convert};
use crate::catalog::Own;
use crate::index::{Index, PodKey};
use crate::lanes::{Probe, Reporter};
use crate::status::Status;
use sealane_core::identity::SpiffeId;
use sealane_core::name::{ClusterName, Namespace};
use sealane_core::time::Revision;
use sealane_proto::agent::v1 as wire;
use sealane_proto::agent::v1::config_server::Config;
use sealane_proto::agent::v1::proxy_reply::Kind as Reply;
use sealane_proto::agent::v1::proxy_request::Kind as Request;
use sealane_proto::convert::field;
use sealane_proto::{Wire, hello};
use sealane_trust::acceptor::Peer;
use sealane_trust::svid::Svid;
use serde::Serialize;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status as Refusal, Streaming};

/// How long a proxy may take to say who it is.
const HELLO: Duration = Duration::from_secs(5);
/// Deltas that may wait for a proxy's connection: one on the wire, one behind it. More would only be older.
const OUTGOING: usize = 1;
/// A proxy that nothing changes for is told at most this often how far the view is.
const REVISION_ALONE: Duration = Duration::from_millis(50);
/// Probe results that may wait to be counted.
pub const PROBES: usize = 256;
/// The most results of one report.
const MAX_RESULTS: usize = 4_096;

/// What a gateway's connection means to the lanes.
#[derive(Debug, Clone, PartialEq)]
pub enum LaneEvent {
    /// It is there.
    Join(Reporter),
    /// It is gone.
    Leave(Reporter),
    /// It probed.
    Report(Reporter, Vec<Probe>),
}

/// A connected proxy, for status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProxyStatus {
    /// `sidecar` or `gateway`.
    pub role: &'static str,
    /// Its identity.
    pub spiffe_id: String,
    /// Its pod, where it serves one.
    pub pod: Option<String>,
    /// Where it says that it is reached.
    pub inbound_address: String,
    /// The version of its configuration that was sent last.
    pub sent_version: u64,
    /// The version that it runs.
    pub applied_version: u64,
    /// The view revision that this version was made from.
    pub applied_revision: String,
    /// What went wrong when it applied it; empty when nothing did.
    pub error: String,
}

/// The service.
#[derive(Debug, Clone)]
pub struct ConfigService {
    /// Who this cluster is.
    pub own: Arc<Own>,
    /// What all proxies share; `None` until manifests and view are known: nobody is sent less than it had.
    pub common: watch::Receiver<Option<Arc<Common>>>,
    /// The objects of the cluster.
    pub index: Arc<RwLock<Index>>,
    /// Where probe results go.
    pub probes: mpsc::Sender<LaneEvent>,
    /// Where what happens is told.
    pub status: Arc<Status>,
    /// Streams end when it is cancelled.
    pub stop: CancellationToken,
    /// Numbers the connections.
    pub connections: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Proxy {
    id: u64,
    role: Role,
    spiffe_id: SpiffeId,
}

type Replies = Pin<Box<dyn Stream<Item = Result<wire::ProxyReply, Refusal>> + Send>>;

#[tonic::async_trait]
impl Config for ConfigService {
    type WatchStream = Replies;

    async fn watch(
        &self,
        request: tonic::Request<Streaming<wire::ProxyRequest>>,
    ) -> Result<Response<Replies>, Refusal> {
        let svid = request.extensions().get::<Peer>().and_then(Peer::verified).map(|v| Svid::clone(v));
        let svid = svid.ok_or_else(|| Refusal::unauthenticated("a certificate of this cluster is needed"))?;
        let mut requests = request.into_inner();
        let hello = match tokio::time::timeout(HELLO, requests.message()).await {
            Ok(Ok(Some(wire::ProxyRequest { kind: Some(Request::Hello(hello)) }))) => hello,
            Ok(Err(error)) => return Err(error),
            Ok(_) => return Err(Refusal::invalid_argument("the first message must be a hello")),
            Err(_) => return Err(Refusal::deadline_exceeded("no hello within 5 s")),
        };
        let inbound_address = hello.inbound_address.chars().take(80).collect();
        let proxy = self.admit(&svid, hello)?;
        self.status.proxy_connected(
            proxy.id,
            ProxyStatus {
                role: if matches!(proxy.role, Role::Gateway) { "gateway" } else { "sidecar" },
                spiffe_id: proxy.spiffe_id.to_string(),
                pod: match &proxy.role {
                    Role::Sidecar(Some(pod)) => Some(pod.to_string()),
                    _ => None,
                },
                inbound_address,
                sent_version: 0,
                applied_version: 0,
                applied_revision: Revision::default().to_string(),
                error: String::new(),
            },
        );
        let (sender, receiver) = mpsc::channel(OUTGOING);
        tokio::spawn(self.clone().converse(proxy, requests, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl ConfigService {
    fn admit(&self, svid: &Svid, hello: wire::ProxyHello) -> Result<Proxy, Refusal> {
        hello::negotiate(&hello::hello(None), &hello.hello.unwrap_or_default())
            .map_err(|e| Refusal::failed_precondition(e.to_string()))?;
        let role = match wire::Role::try_from(hello.role) {
            Ok(wire::Role::Gateway) => Role::Gateway,
            Ok(wire::Role::Sidecar) if hello.pod_name.is_empty() => Role::Sidecar(None),
            Ok(wire::Role::Sidecar) => {
                let namespace = Namespace::parse(&hello.pod_namespace)
                    .map_err(|e| Refusal::invalid_argument(e.to_string()))?;
                Role::Sidecar(Some(PodKey { namespace, name: hello.pod_name }))
            }
            _ => return Err(Refusal::invalid_argument("this agent serves sidecars and gateways")),
        };
        self.entitled(&svid.spiffe_id, &role)?;
        let id = self.connections.fetch_add(1, Ordering::Relaxed);
        Ok(Proxy { id, role, spiffe_id: svid.spiffe_id.clone() })
    }

    /// Whether a certificate entitles to a role: a gateway's to a gateway's, a workload's to the pods that run under
    /// its ServiceAccount.
    fn entitled(&self, id: &SpiffeId, role: &Role) -> Result<(), Refusal> {
        let domain = &self.own.trust_domain;
        let expected = match role {
            Role::Gateway => SpiffeId::gateway(domain),
            Role::Sidecar(None) if id.trust_domain() == domain && id.path().starts_with("ns/") => {
                return Ok(());
            }
            Role::Sidecar(None) => {
                return Err(Refusal::permission_denied("a sidecar needs a workload's certificate"));
            }
            Role::Sidecar(Some(pod)) => {
                let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
                let found = index.pods.get(pod);
                let found =
                    found.ok_or_else(|| Refusal::not_found(format!("this cluster has no Pod {pod}")))?;
                SpiffeId::workload(domain, &pod.namespace, &found.account)
            }
        };
        if *id == expected {
            return Ok(());
        }
        Err(Refusal::permission_denied(format!("this needs the certificate of {expected}, not of {id}")))
    }

    async fn converse(
        self,
        proxy: Proxy,
        requests: Streaming<wire::ProxyRequest>,
        sender: mpsc::Sender<Result<wire::ProxyReply, Refusal>>,
    ) {
        let reporter = Reporter(proxy.id);
        let is_gateway = matches!(proxy.role, Role::Gateway);
        tracing::info!(proxy = proxy.id, spiffe_id = %proxy.spiffe_id, role = ?proxy.role, "proxy connected");
        if is_gateway {
            // The receiver lives as long as the agent; when it is gone nobody counts any more.
            let _ = self.probes.send(LaneEvent::Join(reporter)).await;
        }
        let ended = tokio::select! {
            () = self.stop.cancelled() => Err(Refusal::unavailable("the agent is stopping")),
            ended = self.send_config(&proxy, &sender) => ended,
            ended = self.take_reports(&proxy, requests) => ended,
        };
        if let Err(refusal) = ended {
            tracing::info!(proxy = proxy.id, reason = refusal.message(), "proxy stream ended by the agent");
            // It may be gone already; then nobody is to be told.
            let _ = sender.try_send(Err(refusal));
        }
        if is_gateway {
            let _ = self.probes.send(LaneEvent::Leave(reporter)).await;
        }
        self.status.proxy_gone(proxy.id);
        tracing::info!(proxy = proxy.id, spiffe_id = %proxy.spiffe_id, "proxy disconnected");
    }

    async fn send_config(
        &self,
        proxy: &Proxy,
        sender: &mpsc::Sender<Result<wire::ProxyReply, Refusal>>,
    ) -> Result<(), Refusal> {
        if sender.send(Ok(reply(Reply::Welcome(self.welcome())))).await.is_err() {
            return Ok(());
        }
        let mut common = self.common.clone();
        let mut told = Told::default();
        let mut sent: Option<Revision> = None;
        let (mut version, mut last) = (0, Instant::now());
        loop {
            // Room first, values after: what is sent is the latest there is.
            let Ok(room) = sender.reserve().await else { return Ok(()) };
            let Ok(now) = common.wait_for(Option::is_some).await.map(|c| c.clone()) else { return Ok(()) };
            let Some(now) = now else { return Ok(()) };
            self.entitled(&proxy.spiffe_id, &proxy.role).or_else(pod_may_be_gone)?;
            let (upserts, deletes) = told.tell(&proxy.role, &now);
            // A revision that changed nothing here is told too, only not each: whoever asks a proxy how far it is gets
            // the truth.
            let news = sent.is_none() || !upserts.is_empty() || !deletes.is_empty();
            if news || (sent != Some(now.revision) && last.elapsed() >= REVISION_ALONE) {
                (version, last) = (version + 1, Instant::now());
                self.status.proxy_sent(proxy.id, version);
                room.send(Ok(reply(Reply::Delta(wire::ProxyDelta {
                    version,
                    revision: Some(now.revision.to_wire()),
                    full: sent.is_none(),
                    upserts: upserts.iter().map(convert::item).collect(),
                    deletes: deletes.iter().map(convert::key).collect(),
                }))));
                sent = Some(now.revision);
            } else {
                drop(room);
            }
            tokio::select! {
                changed = common.changed() => if changed.is_err() { return Ok(()) },
                () = tokio::time::sleep_until(last + REVISION_ALONE), if sent != Some(now.revision) => {}
                () = sender.closed() => return Ok(()),
            }
        }
    }

    fn welcome(&self) -> wire::ProxyWelcome {
        wire::ProxyWelcome {
            hello: Some(hello::hello(None)),
            cluster: self.own.cluster.to_string(),
            trust_domain: self.own.trust_domain.to_string(),
            network: self.own.network.to_string(),
            locality: Some(self.own.locality.to_wire()),
        }
    }

    async fn take_reports(
        &self,
        proxy: &Proxy,
        mut requests: Streaming<wire::ProxyRequest>,
    ) -> Result<(), Refusal> {
        while let Some(request) = requests.message().await? {
            match request.kind {
                Some(Request::Applied(applied)) => self.on_applied(proxy, applied),
                Some(Request::Probes(report)) => self.on_probes(proxy, report).await?,
                Some(Request::Hello(_)) => return Err(Refusal::invalid_argument("a second hello")),
                None => tracing::debug!(proxy = proxy.id, "a message of a newer proxy was passed over"),
            }
        }
        Ok(())
    }

    fn on_applied(&self, proxy: &Proxy, applied: wire::ProxyApplied) {
        let revision: Revision = field::present(applied.revision, "applied.revision").unwrap_or_default();
        if !applied.error.is_empty() {
            let error = applied.error.as_str();
            tracing::warn!(
                proxy = proxy.id,
                version = applied.version,
                error,
                "proxy could not apply its configuration"
            );
        }
        self.status.proxy_applied(proxy.id, applied.version, revision, applied.error);
    }

    async fn on_probes(&self, proxy: &Proxy, report: wire::ProbeReport) -> Result<(), Refusal> {
        if !matches!(proxy.role, Role::Gateway) {
            return Ok(());
        }
        if report.results.len() > MAX_RESULTS {
            return Err(Refusal::invalid_argument("a report of too many probes"));
        }
        let known = self.common.borrow().clone();
        let known = |cluster: &ClusterName| known.as_ref().is_some_and(|c| c.peers.contains_key(cluster));
        let mut probes: Vec<Probe> = Vec::new();
        for result in report.results {
            let Ok(cluster) = ClusterName::parse(&result.cluster) else { continue };
            // Own lanes only: to peers that the view names, and not to ourselves.
            if !known(&cluster) || cluster == self.own.cluster {
                continue;
            }
            let result =
                if result.ok { Ok(result.rtt_us) } else { Err(result.error.chars().take(200).collect()) };
            merge(&mut probes, Probe { cluster, result });
        }
        let event = LaneEvent::Report(Reporter(proxy.id), probes);
        self.probes.send(event).await.map_err(|_| Refusal::unavailable("the agent is stopping"))
    }
}

/// A pod that left while its sidecar is connected ends nothing: the sidecar just serves no export any more.
fn pod_may_be_gone(refusal: Refusal) -> Result<(), Refusal> {
    if refusal.code() == tonic::Code::NotFound { Ok(()) } else { Err(refusal) }
}

/// Several addresses of one cluster in one report are one result: one that passes is a way.
fn merge(probes: &mut Vec<Probe>, probe: Probe) {
    match probes.iter_mut().find(|p| p.cluster == probe.cluster) {
        None => probes.push(probe),
        Some(known) if known.result.is_err() => *known = probe,
        Some(known) => {
            if let (Ok(old), Ok(new)) = (&known.result, &probe.result) {
                known.result = Ok((*old).min(*new));
            }
        }
    }
}

fn reply(kind: Reply) -> wire::ProxyReply {
    wire::ProxyReply { kind: Some(kind) }
}

#[cfg(test)]
mod tests;

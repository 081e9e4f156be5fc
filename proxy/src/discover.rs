//! The configuration from the agent: one stream of deltas down, what was applied and probed up.
//!
//! Lost, it is opened again after a pause of full jitter; meanwhile the last configuration stays in use. An agent that
//! is away takes nothing from anyone.

pub(crate) mod build;
pub(crate) mod items;
pub(crate) mod persist;

use crate::probe::Round;
use crate::snapshot::Current;
use crate::telemetry::Metrics;
use build::Builder;
use items::{Change, Key};
use persist::Store;
use sealane_core::name::{ClusterName, NameError};
use sealane_core::time::Revision;
use sealane_proto::Invalid;
use sealane_proto::agent::v1 as wire;
use sealane_proto::agent::v1::config_client::ConfigClient;
use sealane_proto::agent::v1::proxy_reply::Kind as Reply;
use sealane_proto::agent::v1::proxy_request::Kind as Request;
use sealane_proto::convert::Wire;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// Requests on their way to the agent: it reads them at once or is not well.
const REQUESTS: usize = 64;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A stream that lived this long was a good one: the next pause is short again.
const GOOD_STREAM: Duration = Duration::from_secs(10);
/// The configuration is saved at most this often.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);
/// The largest delta that is taken: a full one of many imports.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("{}", sealane_trust::grpc::causes(.0))]
    Rpc(#[from] tonic::Status),
    #[error("the agent ended the stream")]
    Ended,
    #[error("the agent's message is refused: {0}")]
    Invalid(#[from] Invalid),
    #[error("the agent's welcome is refused: {0}")]
    Name(#[from] NameError),
    #[error(transparent)]
    Incompatible(#[from] sealane_proto::hello::Incompatible),
    #[error("the agent's stream does not begin with a welcome")]
    NoWelcome,
    #[error("the agent does not read what is reported to it")]
    Stuck,
    #[error("the agent is at revision {found}, behind {held} that is in use here already")]
    Behind { found: Revision, held: Revision },
}

/// Keeps the configuration.
#[derive(Debug)]
pub(crate) struct Discovery {
    channel: Channel,
    hello: wire::ProxyHello,
    current: Arc<Current>,
    metrics: Arc<Metrics>,
    store: Option<Store>,
    builder: Builder,
    items: BTreeMap<Key, wire::ProxyItem>,
    welcome: wire::ProxyWelcome,
    applied: (u64, Revision),
    unsaved_since: Option<Instant>,
}

impl Discovery {
    /// Over a channel to the agent.
    pub(crate) fn new(
        channel: Channel,
        hello: wire::ProxyHello,
        builder: Builder,
        current: Arc<Current>,
        metrics: Arc<Metrics>,
        store: Option<Store>,
    ) -> Self {
        Discovery {
            channel,
            hello,
            current,
            metrics,
            store,
            builder,
            items: BTreeMap::new(),
            welcome: wire::ProxyWelcome::default(),
            applied: (0, Revision::default()),
            unsaved_since: None,
        }
    }

    /// Takes the saved configuration into use, where there is one.
    pub(crate) fn restore(&mut self) {
        let Some((welcome, delta)) = self.store.as_ref().and_then(Store::load) else { return };
        match self.welcome(welcome).and_then(|()| self.apply(delta)) {
            Ok(_) => {
                tracing::info!(version = self.applied.0, revision = %self.applied.1, "saved configuration in use")
            }
            Err(error) => tracing::warn!(%error, "the saved configuration is not used"),
        }
    }

    /// Follows the agent for ever; probe results go up with it.
    pub(crate) async fn run(mut self, mut probes: mpsc::Receiver<Round>) {
        let mut failures = 0u32;
        loop {
            let began = Instant::now();
            let Err(error) = self.stream(&mut probes).await;
            self.metrics.agent_connected.set(0);
            if began.elapsed() > GOOD_STREAM {
                failures = 0;
            }
            tracing::warn!(%error, failures, "no configuration stream from the agent; the last configuration stays in use");
            let longest = FIRST_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
            failures = failures.saturating_add(1);
            self.save().await;
            tokio::time::sleep(longest.mul_f64(rand::random())).await;
        }
    }

    async fn stream(
        &mut self,
        probes: &mut mpsc::Receiver<Round>,
    ) -> Result<std::convert::Infallible, StreamError> {
        let (requests, outgoing) = mpsc::channel(REQUESTS);
        send(&requests, Request::Hello(self.hello.clone()))?;
        let mut client = ConfigClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let mut replies = client.watch(ReceiverStream::new(outgoing)).await?.into_inner();
        match replies.message().await?.and_then(|r| r.kind) {
            Some(Reply::Welcome(welcome)) => self.welcome(welcome)?,
            _ => return Err(StreamError::NoWelcome),
        }
        tracing::info!(cluster = self.welcome.cluster, "configuration stream open");
        self.metrics.agent_connected.set(1);
        // Results of before are stale; each address is probed again within a second.
        while probes.try_recv().is_ok() {}
        loop {
            let save_at = self.unsaved_since.map(|at| at + SAVE_INTERVAL);
            tokio::select! {
                reply = replies.message() => match reply?.ok_or(StreamError::Ended)?.kind {
                    Some(Reply::Delta(delta)) => send(&requests, Request::Applied(self.apply(delta)?))?,
                    Some(Reply::Welcome(_)) | None => return Err(StreamError::NoWelcome),
                },
                Some(results) = probes.recv() => {
                    send(&requests, Request::Probes(wire::ProbeReport { results }))?;
                }
                () = tokio::time::sleep_until(save_at.unwrap_or_else(Instant::now)), if save_at.is_some() => self.save().await,
            }
        }
    }

    fn welcome(&mut self, welcome: wire::ProxyWelcome) -> Result<(), StreamError> {
        let theirs = welcome.hello.clone().unwrap_or_default();
        sealane_proto::hello::negotiate(&sealane_proto::hello::hello(None), &theirs)?;
        self.builder.welcome(ClusterName::parse(&welcome.cluster)?);
        self.welcome = welcome;
        Ok(())
    }

    fn apply(&mut self, delta: wire::ProxyDelta) -> Result<wire::ProxyApplied, StreamError> {
        let change = Change::parse(delta)?;
        // An agent that restarted from an older disk while the store is away must not take back what it once gave.
        if change.full && change.revision < self.applied.1 {
            return Err(StreamError::Behind { found: change.revision, held: self.applied.1 });
        }
        let error = change.error();
        if !error.is_empty() {
            tracing::error!(
                error,
                "the agent sent items that this proxy does not understand: they are not in use"
            );
        }
        self.remember(&change);
        let applied = (change.version, change.revision);
        let snapshot = self.builder.apply(change);
        tracing::debug!(version = applied.0, revision = %applied.1, outbound = snapshot.outbound.len(),
            inbound = snapshot.inbound.len(), peers = snapshot.peers.len(), "configuration applied");
        self.current.store(snapshot);
        self.applied = applied;
        self.metrics.config_version.set(i64::try_from(applied.0).unwrap_or(i64::MAX));
        Ok(wire::ProxyApplied { revision: Some(applied.1.to_wire()), version: applied.0, error })
    }

    fn remember(&mut self, change: &Change) {
        if change.full {
            self.items.clear();
        }
        for key in change.deletes.iter().chain(change.refused.iter().filter_map(|(key, _)| key.as_ref())) {
            self.items.remove(key);
        }
        self.items.extend(change.upserts.iter().map(|(key, _, message)| (key.clone(), message.clone())));
        // A mere revision is not worth a write: a restart with the older one asks for the same again.
        if change.full
            || !change.upserts.is_empty()
            || !change.deletes.is_empty()
            || !change.refused.is_empty()
        {
            self.unsaved_since.get_or_insert_with(Instant::now);
        }
    }

    async fn save(&mut self) {
        let (Some(store), Some(_)) = (self.store.clone(), self.unsaved_since.take()) else { return };
        let delta = persist::full(self.applied.0, self.applied.1, &self.items);
        let welcome = self.welcome.clone();
        if tokio::task::spawn_blocking(move || store.save(&welcome, &delta)).await.is_err() {
            tracing::error!("saving the configuration panicked");
        }
    }
}

fn send(requests: &mpsc::Sender<wire::ProxyRequest>, kind: Request) -> Result<(), StreamError> {
    requests.try_send(wire::ProxyRequest { kind: Some(kind) }).map_err(|_| StreamError::Stuck)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(index: u64, full: bool) -> wire::ProxyDelta {
        let revision = Some(Revision { generation: 1, index }.to_wire());
        wire::ProxyDelta { version: index, revision, full, ..wire::ProxyDelta::default() }
    }

    #[tokio::test]
    async fn what_an_agent_took_back_to_an_older_disk_is_refused() {
        let builder = Builder::new(crate::tls::tests::identity("east.test", "ns/shop/sa/web"));
        let channel = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let (current, metrics) = (Current::new(), Arc::new(Metrics::new()));
        let hello = wire::ProxyHello::default();
        let mut discovery = Discovery::new(channel, hello, builder, Arc::clone(&current), metrics, None);
        discovery.apply(delta(7, true)).unwrap();
        discovery.apply(delta(9, false)).unwrap();
        let refused = discovery.apply(delta(8, true)).unwrap_err();
        assert!(matches!(refused, StreamError::Behind { .. }), "{refused}");
        assert_eq!(current.load().revision.index, 9, "the last configuration stays in use");
        discovery.apply(delta(9, true)).unwrap();
    }
}

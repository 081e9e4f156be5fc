//! A watched view, as an agent watches it: what comes is counted, acknowledged and forgotten.

use super::member::Member;
use anyhow::{Context, Result};
use prost::Message;
use sealane_proto::federation::v1 as pb;
use sealane_proto::federation::v1::discovery_client::DiscoveryClient;
use sealane_proto::federation::v1::watch_reply::Kind;
use sealane_proto::federation::v1::watch_request::Kind as Request;
use sealane_proto::hello;
use sealane_proto::types::v1::view_item::Kind as Item;
use sealane_proto::types::v1::{Import, candidate};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// What all agents received together.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// Deltas.
    pub(crate) deltas: AtomicU64,
    /// Their bytes, as encoded.
    pub(crate) delta_bytes: AtomicU64,
}

/// The service that flaps came to an agent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    /// The last byte of the address of its only endpoint.
    pub(crate) value: u8,
    /// When.
    pub(crate) at: Instant,
}

/// Who looks at what.
#[derive(Debug, Clone)]
pub(crate) struct Watching {
    /// Where everything is counted.
    pub(crate) received: Arc<Received>,
    /// The service whose arrivals are told, by its name.
    pub(crate) service: &'static str,
    /// Where they are told.
    pub(crate) arrivals: mpsc::Sender<Arrival>,
}

impl Watching {
    /// Watches until the stream ends; says when the view was received whole.
    ///
    /// # Errors
    /// When the stream ends.
    pub(crate) async fn run(
        self,
        member: Member,
        channel: Channel,
        synced: oneshot::Sender<()>,
    ) -> Result<()> {
        let (requests, stream) = mpsc::channel(4);
        let hello = Some(hello::hello(Some(member.federation)));
        let subscribe = pb::Subscribe { hello, ..Default::default() };
        requests.send(pb::WatchRequest { kind: Some(Request::Subscribe(subscribe)) }).await?;
        let mut client = DiscoveryClient::new(channel);
        let mut replies: Streaming<pb::WatchReply> =
            client.watch(ReceiverStream::new(stream)).await?.into_inner();
        let mut synced = Some(synced);
        loop {
            let reply = replies.message().await?.context("the server ended the watch")?;
            let bytes = reply.encoded_len() as u64;
            match reply.kind {
                Some(Kind::Delta(delta)) => {
                    self.received.deltas.fetch_add(1, Ordering::Relaxed);
                    self.received.delta_bytes.fetch_add(bytes, Ordering::Relaxed);
                    self.tell(&delta).await?;
                    acknowledge(&requests, delta.revision);
                }
                Some(Kind::Synced(done)) => {
                    if let Some(synced) = synced.take() {
                        // Who asked may have given up.
                        let _ = synced.send(());
                    }
                    acknowledge(&requests, done.revision);
                }
                _ => {}
            }
        }
    }

    async fn tell(&self, delta: &pb::ViewDelta) -> Result<()> {
        let at = Instant::now();
        let imports = delta.upserts.iter().filter_map(|item| match &item.kind {
            Some(Item::Import(import)) => Some(import),
            _ => None,
        });
        for value in imports.filter(|i| name(i) == Some(self.service)).filter_map(value) {
            self.arrivals.send(Arrival { value, at }).await?;
        }
        Ok(())
    }
}

fn name(import: &Import) -> Option<&str> {
    import.service.as_ref().map(|s| s.name.as_str())
}

/// The last byte of the address of the first endpoint.
fn value(import: &Import) -> Option<u8> {
    match import.candidates.first()?.path.as_ref()? {
        candidate::Path::Direct(direct) => direct.address.last().copied(),
        candidate::Path::Gateway(_) => None,
    }
}

/// As the real agent: when there is no room, a later one tells more.
fn acknowledge(
    requests: &mpsc::Sender<pb::WatchRequest>,
    revision: Option<sealane_proto::types::v1::Revision>,
) {
    let applied = pb::Applied { revision, error: String::new() };
    let _ = requests.try_send(pb::WatchRequest { kind: Some(Request::Applied(applied)) });
}

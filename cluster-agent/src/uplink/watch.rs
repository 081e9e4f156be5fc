//! The view stream, and the view's way to disk.

use super::{FIRST, MAX_MESSAGE, MOST, OPENING, StreamError, goodbye, removed};
use crate::backoff::{Backoff, rest_after};
use crate::desired::refusal;
use crate::status::Status;
use crate::store::Store;
use crate::view::{self, Held, Origin, Receiver, Step};
use sealane_core::command::Refusal;
use sealane_core::identity::FederationId;
use sealane_core::name::ServiceKey;
use sealane_core::time::Revision;
use sealane_proto::federation::v1 as wire;
use sealane_proto::federation::v1::discovery_client::DiscoveryClient;
use sealane_proto::federation::v1::watch_request::Kind as Request;
use sealane_proto::{Wire, trouble};
use sealane_trust::clock;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// Messages that may wait for the connection; acknowledgements that find no room are made again when there is some.
const OUTGOING: usize = 4;

/// What the loop needs.
#[derive(Debug)]
pub struct WatchLoop {
    /// The way to the store.
    pub store: Arc<Store>,
    /// Where the view goes, and what is held at the start.
    pub held: watch::Sender<Arc<Held>>,
    /// Where what happens is told.
    pub status: Arc<Status>,
}

/// Keeps watching until stopped.
pub async fn keep_watching(inner: WatchLoop, stop: CancellationToken) {
    let mut backoff = Backoff::new(FIRST, MOST);
    loop {
        let began = Instant::now();
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = inner.stream() => ended,
        };
        let Err(error) = ended;
        if began.elapsed() > MOST {
            backoff.reset();
        }
        let pause = backoff.pause();
        match &error {
            StreamError::View(_) => {
                tracing::warn!(error = %error, "the store's view was refused, the last one stands")
            }
            StreamError::Removed { said, goodbye } => {
                removed(&inner.status, &inner.store, said);
                inner.heed(goodbye);
            }
            _ => tracing::info!(error = %error, retry_in = ?pause, "view stream ended"),
        }
        inner.status.watch_lost(&error.to_string());
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl WatchLoop {
    /// The store said goodbye: nothing of its view holds any more. Kept on disk as every view, so that a restart without
    /// the store does not bring it back.
    fn heed(&self, said: &[u8]) {
        let held = self.held.borrow().clone();
        if said.is_empty() || held.is_over() {
            return;
        }
        let membership = self.store.membership();
        match goodbye::verify(said, &membership, &self.store.roots(), held.revision, clock::now()) {
            Ok(revision) => {
                tracing::warn!(cluster = %membership.cluster, %revision, "the federation said goodbye: what was imported goes");
                self.held.send_replace(Arc::new(Held::over(revision)));
            }
            Err(error) => tracing::error!(error = %error, "a goodbye is refused, and the last view stands"),
        }
    }

    async fn stream(&self) -> Result<std::convert::Infallible, StreamError> {
        let membership = self.store.membership();
        let held = self.held.borrow().clone();
        let mut receiver = Receiver::new(membership.federation, membership.cluster, held);
        let (sender, requests) = mpsc::channel(OUTGOING);
        send(&sender, Request::Subscribe(receiver.subscribe())).await?;
        let mut client = DiscoveryClient::new(self.store.channel()?).max_decoding_message_size(MAX_MESSAGE);
        let call = timeout(OPENING, client.watch(ReceiverStream::new(requests))).await;
        let mut replies = call.map_err(|_| StreamError::Silent(OPENING))??.into_inner();
        let mut troubles = Troubles::of(&self.status);
        // Whether there was no room for what was last applied.
        let mut unsent = false;
        loop {
            let message = tokio::select! {
                message = replies.message() => Some(message?.ok_or(StreamError::Ended)?),
                () = troubles.changed() => None,
                room = sender.reserve(), if unsent => {
                    drop(room.map_err(|_| StreamError::Ended)?);
                    None
                }
            };
            let Some(message) = message else {
                let revision = self.held.borrow().revision;
                unsent = !applied(&sender, revision, troubles.say());
                continue;
            };
            let kind = message.kind.ok_or_else(|| StreamError::Protocol("an empty message".to_owned()))?;
            match receiver.on(kind) {
                Ok(Step::Wait) => {}
                Ok(Step::Publish(held)) => {
                    let revision = held.revision;
                    self.status.watching(revision);
                    self.held.send_replace(held);
                    unsent = !applied(&sender, revision, troubles.say());
                }
                Ok(Step::Resubscribe(reason)) => {
                    tracing::info!(reason, "resume refused, comparing digests");
                    send(&sender, Request::Subscribe(receiver.resubscribe())).await?;
                }
                Err(error) => {
                    applied(&sender, self.held.borrow().revision, error.to_string());
                    // The refusal should reach the server before the stream is dropped.
                    tokio::task::yield_now().await;
                    return Err(error.into());
                }
            }
        }
    }
}

/// What is wrong with services in this cluster, as far as others can not see it: what its objects show, and the exports that
/// the store refuses.
struct Troubles {
    shown: watch::Receiver<Arc<BTreeMap<ServiceKey, String>>>,
    refused: watch::Receiver<Arc<BTreeMap<ServiceKey, Refusal>>>,
}

impl Troubles {
    /// As of now; where there are any, they are news.
    fn of(status: &Status) -> Self {
        let mut troubles = Troubles { shown: status.troubles(), refused: status.refused() };
        if !troubles.shown.borrow().is_empty() {
            troubles.shown.mark_changed();
        }
        if !troubles.refused.borrow().is_empty() {
            troubles.refused.mark_changed();
        }
        troubles
    }

    /// Waits until they are others. Cancel-safe.
    async fn changed(&mut self) {
        let changed = tokio::select! {
            changed = self.shown.changed() => changed,
            changed = self.refused.changed() => changed,
        };
        if changed.is_err() {
            // Nobody tells any more: the process ends.
            std::future::pending::<()>().await;
        }
    }

    fn say(&mut self) -> String {
        let shown = self.shown.borrow_and_update().clone();
        let refused = self.refused.borrow_and_update().clone();
        let refused = refused.iter().map(|(service, why)| (service.clone(), refusal(&why.message)));
        trouble::say(&refused.chain(BTreeMap::clone(&shown)).collect())
    }
}

/// Says what was applied, where there is room for it: there is none while the server has not read the last ones.
fn applied(sender: &mpsc::Sender<wire::WatchRequest>, revision: Revision, error: String) -> bool {
    let applied = wire::Applied { revision: Some(revision.to_wire()), error };
    sender.try_send(wire::WatchRequest { kind: Some(Request::Applied(applied)) }).is_ok()
}

async fn send(sender: &mpsc::Sender<wire::WatchRequest>, kind: Request) -> Result<(), StreamError> {
    sender.send(wire::WatchRequest { kind: Some(kind) }).await.map_err(|_| StreamError::Ended)
}

/// Keeps the view on disk as it changes, and once more when stopped.
pub async fn persist(
    path: PathBuf,
    federation: FederationId,
    mut held: watch::Receiver<Arc<Held>>,
    status: Arc<Status>,
    stop: CancellationToken,
) {
    let mut kept = held.borrow_and_update().clone();
    loop {
        let stopped = tokio::select! {
            () = stop.cancelled() => true,
            changed = held.changed() => changed.is_err(),
        };
        let now = held.borrow_and_update().clone();
        let mut pause = Duration::ZERO;
        if now.origin == Origin::Store && !Arc::ptr_eq(&now, &kept) {
            let (path, revision) = (path.clone(), now.revision);
            kept = now.clone();
            let began = Instant::now();
            let saved = tokio::task::spawn_blocking(move || view::save(&path, federation, &now)).await;
            pause = rest_after(began.elapsed());
            let result = match saved {
                Ok(Ok(())) => Ok(revision),
                Ok(Err(error)) => Err(error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = &result {
                tracing::error!(
                    error,
                    "can not keep the view on disk: a restart without the store would go back"
                );
            }
            status.persisted(result);
        }
        if stopped {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

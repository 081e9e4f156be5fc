//! The catalog stream: one session after another.

use super::changes::Upward;
use super::session::Session;
use super::{FIRST, MAX_MESSAGE, MOST, OPENING, StreamError, TTL, removed};
use crate::backoff::Backoff;
use crate::catalog::{Catalog, Own};
use crate::lanes::Verdicts;
use crate::lease::Leadership;
use crate::status::{SessionState, Status};
use crate::store::Store;
use sealane_core::identity::{FederationId, InstanceId, SessionId};
use sealane_core::name::ClusterUid;
use sealane_proto::federation::v1 as wire;
use sealane_proto::federation::v1::catalog_client::CatalogClient;
use sealane_proto::federation::v1::export_reply::Kind as Reply;
use sealane_proto::federation::v1::export_request::Kind as Request;
use sealane_proto::hello;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

/// How often the store hears from us.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long a server may leave a heartbeat or a write unanswered before another one is tried.
const SILENCE: Duration = Duration::from_secs(6);
/// Where a term's number stands in its sessions' numbers.
const TERM: u32 = 32;
/// How long to stay away where another cluster is the member: only a person ends that.
const OTHER: Duration = Duration::from_secs(30);
/// Messages that may wait for the connection: one write and heartbeats, which are worthless when late.
const OUTGOING: usize = 4;

/// What the loop needs.
#[derive(Debug, Clone)]
pub struct ExportLoop {
    /// The way to the store.
    pub store: Arc<Store>,
    /// This process.
    pub instance: InstanceId,
    /// The number of the session that it opened last: those of a later term have higher ones.
    pub opened: u64,
    /// Of several replicas one exports.
    pub leadership: Leadership,
    /// Who this cluster is.
    pub own: Arc<Own>,
    /// Which Kubernetes cluster it is.
    pub uid: Option<ClusterUid>,
    /// What it exports; `None` until its source was read whole.
    pub catalog: watch::Receiver<Option<Arc<Catalog>>>,
    /// Its lanes.
    pub lanes: watch::Receiver<Arc<Verdicts>>,
    /// Where what happens is told.
    pub status: Arc<Status>,
}

/// Keeps a session open until stopped. It begins once the catalog is known as a whole: a session without one would
/// have the store drop everything.
pub async fn keep_exporting(mut inner: ExportLoop, stop: CancellationToken) {
    let mut backoff = Backoff::new(FIRST, MOST);
    tokio::select! {
        () = stop.cancelled() => return,
        ready = inner.catalog.wait_for(Option::is_some) => if ready.is_err() { return },
    }
    let mut leadership = inner.leadership.clone();
    loop {
        let term = tokio::select! {
            () = stop.cancelled() => return,
            term = leadership.begun() => term,
        };
        // The replicas are one instance to the store, in which the sessions of a later term follow those of a former one.
        inner.instance = leadership.agent().unwrap_or(inner.instance);
        inner.opened = inner.opened.max(u64::from(term) << TERM);
        let began = Instant::now();
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            () = leadership.over(term) => {
                tracing::info!(term, "another replica exports from now on");
                inner.status.session(SessionState::Lost { error: "another replica exports".to_owned() });
                continue;
            }
            ended = inner.session() => ended,
        };
        let Err(error) = ended;
        if began.elapsed() > MOST {
            backoff.reset();
        }
        let pause = pause(&error, &mut backoff);
        let instance = inner.instance;
        match &error {
            StreamError::Fenced(by) => {
                tracing::warn!(%instance, reason = by, "shut out by another agent instance");
            }
            StreamError::Held(by) => {
                tracing::warn!(%instance, reason = by, retry_in = ?pause, "another agent instance holds the session");
            }
            StreamError::OtherCluster(said) => {
                tracing::error!(reason = said, retry_in = ?pause, "another Kubernetes cluster is the member of this name");
            }
            StreamError::Removed { said, .. } => removed(&inner.status, &inner.store, said),
            _ => tracing::info!(error = %error, retry_in = ?pause, "catalog stream ended"),
        }
        inner.status.session(SessionState::Lost { error: error.to_string() });
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// How long to stay away: a whole lease after another instance shut us out. One that holds the session may be what is
/// left of this agent's former process: that passes soon.
fn pause(error: &StreamError, backoff: &mut Backoff) -> Duration {
    match error {
        StreamError::Fenced(_) => TTL + backoff.pause(),
        StreamError::OtherCluster(_) => OTHER,
        _ => backoff.pause(),
    }
}

impl ExportLoop {
    fn upward(&mut self) -> Upward {
        let catalog = self.catalog.borrow_and_update().clone().unwrap_or_default();
        let lanes = self.lanes.borrow_and_update().clone();
        Upward { own: self.own.clone(), catalog, lanes }
    }

    async fn session(&mut self) -> Result<std::convert::Infallible, StreamError> {
        self.opened += 1;
        let id = SessionId::numbered(self.opened, sealane_trust::random()?);
        let federation = self.store.membership().federation;
        let (sender, receiver) = mpsc::channel(OUTGOING);
        let open = wire::Open {
            hello: Some(hello::hello(Some(federation))),
            session: id.0.to_vec(),
            instance: self.instance.0.to_vec(),
            uid: self.uid.as_ref().map(ToString::to_string),
        };
        send(&sender, Request::Open(open)).await?;
        let mut client = CatalogClient::new(self.store.channel()?).max_decoding_message_size(MAX_MESSAGE);
        let opening = async {
            let mut replies = client.export(ReceiverStream::new(receiver)).await?.into_inner();
            opened(next(&mut replies).await?, federation)?;
            let digested = self.upward();
            send(&sender, Request::Digests(digested.digests())).await?;
            match next(&mut replies).await? {
                Reply::Want(want) => Ok((replies, Session::begin(digested, want)?)),
                _ => Err(StreamError::Protocol("something else than what it wants".to_owned())),
            }
        };
        let (replies, session) =
            timeout(OPENING, opening).await.unwrap_or(Err(StreamError::Silent(OPENING)))?;
        self.status.session(SessionState::Open { session: id });
        if self.status.removed(None) {
            tracing::info!("the store knows this cluster again");
        }
        tracing::info!(session = %id, "catalog session open");
        self.converse(session, sender, replies).await
    }

    async fn converse(
        &mut self,
        mut session: Session,
        sender: mpsc::Sender<wire::ExportRequest>,
        mut replies: Streaming<wire::ExportReply>,
    ) -> Result<std::convert::Infallible, StreamError> {
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut beats = 0;
        let mut heard = Instant::now();
        loop {
            let desired = self.upward();
            // Before more is sent, and again: what changed may be nothing to the store.
            self.acknowledge(&mut session);
            if let Some(write) = session.next(&desired) {
                send(&sender, Request::Write(write)).await?;
            }
            self.acknowledge(&mut session);
            tokio::select! {
                reply = next(&mut replies) => {
                    heard = Instant::now();
                    self.on_reply(&mut session, reply?)?;
                }
                changed = self.catalog.changed() => changed.map_err(|_| StreamError::Ended)?,
                changed = self.lanes.changed() => changed.map_err(|_| StreamError::Ended)?,
                _ = heartbeat.tick() => {
                    if heard.elapsed() > SILENCE {
                        return Err(StreamError::Silent(SILENCE));
                    }
                    beats += 1;
                    send(&sender, Request::Heartbeat(wire::Heartbeat { number: beats })).await?;
                }
            }
        }
    }

    fn acknowledge(&self, session: &mut Session) {
        if let Some((catalog, revision)) = session.settle() {
            self.status.acknowledge(&catalog.shards, revision);
        }
    }

    fn on_reply(&self, session: &mut Session, reply: Reply) -> Result<(), StreamError> {
        match reply {
            Reply::Written(written) => {
                let done = session.on_written(written)?;
                for (service, refusal) in done.services.iter().filter_map(|(s, r)| Some((s, r.as_ref()?))) {
                    tracing::warn!(%service, reason = refusal.message, "the store refused an export");
                }
                for refusal in &done.others {
                    tracing::warn!(reason = refusal.message, "the store refused a change");
                }
                self.status.written(done.revision, done.services, done.others, done.synced);
                Ok(())
            }
            Reply::Heartbeat(_) => {
                self.status.heard();
                Ok(())
            }
            Reply::Opened(_) | Reply::Want(_) => Err(StreamError::Protocol("a second opening".to_owned())),
        }
    }
}

fn opened(reply: Reply, federation: FederationId) -> Result<(), StreamError> {
    let Reply::Opened(opened) = reply else {
        return Err(StreamError::Protocol("something else than an opening".to_owned()));
    };
    let theirs = opened.hello.unwrap_or_default();
    hello::negotiate(&hello::hello(None), &theirs).map_err(crate::view::ViewError::from)?;
    match hello::federation(&theirs)? {
        Some(id) if id == federation => Ok(()),
        found => Err(crate::view::ViewError::WrongFederation {
            found: found.map_or_else(|| "none".to_owned(), |id| id.to_string()),
            pinned: federation,
        }
        .into()),
    }
}

async fn send(sender: &mpsc::Sender<wire::ExportRequest>, kind: Request) -> Result<(), StreamError> {
    let message = wire::ExportRequest { kind: Some(kind) };
    // A connection that takes nothing for so long is as good as gone.
    match timeout(SILENCE, sender.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(StreamError::Ended),
        Err(_) => Err(StreamError::Silent(SILENCE)),
    }
}

async fn next(replies: &mut Streaming<wire::ExportReply>) -> Result<Reply, StreamError> {
    let message = replies.message().await?.ok_or(StreamError::Ended)?;
    message.kind.ok_or_else(|| StreamError::Protocol("an empty message".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_fenced_stays_away_for_a_lease() {
        let status = |code, text: &str| StreamError::from(tonic::Status::new(code, text));
        let pauses = |error: StreamError| pause(&error, &mut Backoff::new(FIRST, MOST)) >= TTL;
        assert!(pauses(status(
            tonic::Code::FailedPrecondition,
            "fenced: a newer session writes this catalog"
        )));
        let held = "held: agent instance 01 holds the session of this cluster";
        assert!(!pauses(status(tonic::Code::FailedPrecondition, held)));
        assert!(!pauses(status(tonic::Code::FailedPrecondition, "expected write 2, got 3")));
        assert!(!pauses(status(tonic::Code::Unavailable, "no leader")));
    }
}

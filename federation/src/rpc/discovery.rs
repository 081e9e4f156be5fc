//! The stream by which an agent receives its cluster's view.
//!
//! One delta at a time is on its way into the connection; what a slow client has not taken stays a place in the
//! channel, where a newer value replaces the older.

use super::streams::Streams;
use super::{AgentIdentity, Serving, invalid};
use crate::metrics::{Call, ViewMessage};
use crate::publish::{NotMember, PullError, ResumeError, Watcher};
use sealane_core::time::Revision;
use sealane_core::view::ViewKey;
use sealane_proto::convert::field;
use sealane_proto::federation::v1 as pb;
use sealane_proto::federation::v1::discovery_server::Discovery;
use sealane_proto::federation::v1::watch_reply::Kind;
use sealane_proto::federation::v1::watch_request;
use sealane_trust::sha256;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// How long the first message may take.
const OPENING: Duration = Duration::from_secs(10);
/// How long a server that lags may take to reach what a client has seen elsewhere.
const CATCH_UP: Duration = Duration::from_secs(5);
/// How often an idle client is told how far it is.
const PROGRESS: Duration = Duration::from_secs(1);

/// Serves [`Discovery`].
#[derive(Debug, Clone)]
pub struct DiscoveryService {
    serving: Serving,
    streams: Streams,
}

impl DiscoveryService {
    /// Serves with these parts.
    #[must_use]
    pub fn new(serving: Serving) -> Self {
        DiscoveryService { serving, streams: Streams::default() }
    }
}

type Answers = mpsc::Sender<Result<pb::WatchReply, Status>>;

#[tonic::async_trait]
impl Discovery for DiscoveryService {
    type WatchStream = ReceiverStream<Result<pb::WatchReply, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let agent = self.serving.agent(&request)?;
        let place = self.streams.enter(&agent)?;
        // One delta waits here, the next is made when it was taken.
        let (answers, stream) = mpsc::channel(1);
        let serving = self.serving.clone();
        let guard = serving.metrics.stream(Call::Watch);
        let requests = request.into_inner();
        tokio::spawn(async move {
            let _ends_with_it = (guard, place);
            let cluster = agent.name.clone();
            let watch = Watch { serving: serving.clone(), agent, requests, answers: answers.clone() };
            tokio::select! {
                ended = watch.run() => {
                    if let Err(status) = ended {
                        tracing::info!(%cluster, reason = status.message(), "watch stream ended");
                        serving.metrics.error(Call::Watch);
                        // A client that takes nothing any more gets no status either.
                        let _ = timeout(PROGRESS, answers.send(Err(status))).await;
                    }
                }
                () = answers.closed() => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

struct Watch {
    serving: Serving,
    agent: AgentIdentity,
    requests: Streaming<pb::WatchRequest>,
    answers: Answers,
}

impl Watch {
    fn removed(&self, _: NotMember) -> Status {
        self.serving.goodbye(&self.agent, "the cluster was removed from the federation".to_owned())
    }

    fn ended(&self, error: PullError) -> Status {
        match error {
            PullError::NotMember(gone) => self.removed(gone),
            PullError::Outrun(_) => Status::aborted(format!("{error}; subscribe again and compare digests")),
        }
    }

    /// A message on its way, counted.
    fn reply(&self, kind: Kind) -> Result<pb::WatchReply, Status> {
        let message = match &kind {
            Kind::Delta(_) => ViewMessage::Delta,
            Kind::Synced(_) => ViewMessage::Synced,
            Kind::Subscribed(_) | Kind::ResumeRefused(_) => ViewMessage::Opening,
        };
        let reply = pb::WatchReply { kind: Some(kind) };
        self.serving.metrics.view_sent(message, prost::Message::encoded_len(&reply));
        Ok(reply)
    }

    async fn run(mut self) -> Result<(), Status> {
        let late = |_| Status::deadline_exceeded("nothing was subscribed to in time");
        let first = timeout(OPENING, self.requests.message()).await.map_err(late)??;
        let Some(watch_request::Kind::Subscribe(subscribe)) = first.and_then(|m| m.kind) else {
            return Err(Status::invalid_argument("a watch begins with subscribe"));
        };
        let mut watcher = self.watcher().await?;
        self.subscribe(&mut watcher, subscribe).await?;
        let mut progress = tokio::time::interval(PROGRESS);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut more = true;
        loop {
            tokio::select! {
                biased;
                () = self.serving.drain.cancelled() => return Err(Status::unavailable("this server shuts down")),
                message = self.requests.message() => match message?.map(|m| m.kind) {
                    Some(Some(watch_request::Kind::Applied(applied))) => self.applied(applied)?,
                    Some(Some(watch_request::Kind::Subscribe(again))) => {
                        self.subscribe(&mut watcher, again).await?;
                        more = true;
                    }
                    Some(None) => return Err(Status::invalid_argument("kind: is missing, or of a newer protocol")),
                    None => return Ok(()),
                },
                changed = watcher.changed(), if !more => {
                    changed.map_err(|gone| self.removed(gone))?;
                    more = true;
                }
                permit = self.answers.reserve(), if more => {
                    let permit = permit.map_err(|_| Status::cancelled("the client is gone"))?;
                    match watcher.pull().map_err(|error| self.ended(error))? {
                        Some(kind) => permit.send(self.reply(kind)),
                        None => more = false,
                    }
                }
                _ = progress.tick(), if !more => {
                    if let Ok(permit) = self.answers.try_reserve()
                        && let Some(kind) = watcher.progress().map_err(|error| self.ended(error))?
                    {
                        permit.send(self.reply(kind));
                        more = true;
                    }
                }
            }
        }
    }

    /// The publisher may be a moment behind the state that knows the agent.
    async fn watcher(&self) -> Result<Watcher, Status> {
        let index = self.serving.replica.state().0;
        self.reach(index).await;
        self.serving.publisher.watch(self.agent.id).map_err(|gone| self.removed(gone))
    }

    /// Waits until an index is published, at most for a while.
    async fn reach(&self, index: u64) {
        let deadline = Instant::now() + CATCH_UP;
        if self.serving.replica.wait_applied(index, deadline).await.is_err() {
            return;
        }
        self.serving.publisher.advance(self.serving.replica.state().1.clone());
    }

    /// What the view covers: a token of one scope resumes no other.
    fn scope(&self) -> Vec<u8> {
        sha256(format!("view 1 of {} for cluster {}", self.serving.federation, self.agent.id).as_bytes())
            .to_vec()
    }

    async fn answer(&self, kind: Kind) -> Result<(), Status> {
        self.answers.send(self.reply(kind)).await.map_err(|_| Status::cancelled("the client is gone"))
    }

    async fn subscribe(&self, watcher: &mut Watcher, subscribe: pb::Subscribe) -> Result<(), Status> {
        let hello = Some(self.serving.greet(subscribe.hello.as_ref())?);
        let (cluster, scope) = (self.agent.name.to_string(), self.scope());
        let subscribed = Kind::Subscribed(pb::Subscribed { hello, cluster, scope });
        let Some(token) = subscribe.resume else {
            // First of all, so that the digests do not wait here for a client that does not read.
            watcher.restart(held(subscribe.held)?).map_err(|gone| self.removed(gone))?;
            return self.answer(subscribed).await;
        };
        self.answer(subscribed).await?;
        match self.resume(watcher, token).await? {
            Ok(()) => Ok(()),
            Err(reason) => self.answer(Kind::ResumeRefused(pb::ResumeRefused { reason })).await,
        }
    }

    async fn resume(
        &self,
        watcher: &mut Watcher,
        token: pb::ResumeToken,
    ) -> Result<Result<(), String>, Status> {
        if token.federation != self.serving.federation.0 {
            return Ok(Err("the token is another federation's".to_owned()));
        }
        if token.scope != self.scope() {
            return Ok(Err("the token is of another scope".to_owned()));
        }
        let after: Revision = field::present(token.revision, "resume.revision").map_err(|e| invalid(&e))?;
        let mut waited = false;
        loop {
            match watcher.resume(after).map_err(|gone| self.removed(gone))? {
                Ok(()) => return Ok(Ok(())),
                Err(error @ ResumeError::Compacted { .. }) => return Ok(Err(error.to_string())),
                Err(ResumeError::Ahead { .. }) if !waited => {
                    waited = true;
                    self.reach(after.index).await;
                }
                // Never send a client back: another server may be further.
                Err(error @ ResumeError::Ahead { .. }) => return Err(Status::unavailable(error.to_string())),
            }
        }
    }

    fn applied(&self, applied: pb::Applied) -> Result<(), Status> {
        let revision: Revision =
            field::present(applied.revision, "applied.revision").map_err(|e| invalid(&e))?;
        let error = applied.error;
        if self.serving.leasing.applied(self.agent.id, revision, error.clone()) && !error.is_empty() {
            tracing::warn!(cluster = %self.agent.name, %revision, error, "an agent says that something is wrong in its cluster");
        }
        Ok(())
    }
}

fn held(digests: Vec<pb::ItemDigest>) -> Result<BTreeMap<ViewKey, [u8; 32]>, Status> {
    let one = |item: pb::ItemDigest| {
        let key: ViewKey = field::present(item.key, "held.key").map_err(|e| invalid(&e))?;
        Ok((key, field::hash(&item.digest, "held.digest").map_err(|e| invalid(&e))?))
    };
    digests.into_iter().map(one).collect()
}

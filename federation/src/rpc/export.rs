//! One export stream: open a session, compare digests, then writes in order and signs of life.
//!
//! Writes are proposed as they come, up to a window, and answered in their order once they are applied. One that met
//! an election is tried again when all before it are answered; the state knows a sequence that it has seen.

use super::{AgentIdentity, Serving, invalid, refused, unexpected};
use crate::writer::{self, WriteError, Written};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, StreamExt};
use sealane_core::command::{Action, CatalogChange, CatalogError, Reply, SessionError};
use sealane_core::identity::{InstanceId, SessionId};
use sealane_core::name::ServiceKey;
use sealane_core::state::Cluster;
use sealane_proto::convert::field;
use sealane_proto::federation::v1 as pb;
use sealane_proto::federation::v1::export_reply::Kind as Answer;
use sealane_proto::federation::v1::export_request::Kind;
use sealane_proto::{Wire, digest};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tonic::{Status, Streaming};

/// How long the first message may take.
const OPENING: Duration = Duration::from_secs(10);
/// How long a client may be silent: some heartbeats more than a lease lasts.
const SILENCE: Duration = Duration::from_secs(15);
/// Writes under way: what a round trip to a majority takes at the pace of a fast writer.
const WINDOW: usize = 32;
/// How long this server may take to see what it acknowledged.
const SEEN: Duration = Duration::from_secs(5);

pub(super) struct Export {
    serving: Serving,
    agent: AgentIdentity,
    requests: Streaming<pb::ExportRequest>,
    answers: mpsc::Sender<Result<pb::ExportReply, Status>>,
    opened: Opened,
}

/// The session that a stream opened, for whoever looks after its end.
pub(super) type Opened = Arc<OnceLock<SessionId>>;

/// A write under way: its sequence, its bytes, and how the first try ended.
struct Tried {
    sequence: u64,
    command: Bytes,
    result: Result<Written, WriteError>,
}

type Window = FuturesOrdered<BoxFuture<'static, Tried>>;

impl Export {
    pub(super) fn new(
        serving: Serving,
        agent: AgentIdentity,
        requests: Streaming<pb::ExportRequest>,
        answers: mpsc::Sender<Result<pb::ExportReply, Status>>,
        opened: Opened,
    ) -> Self {
        Export { serving, agent, requests, answers, opened }
    }

    pub(super) async fn run(mut self) -> Result<(), Status> {
        let session = self.open().await?;
        let mut window = Window::new();
        // The write at the head of the window, tried again.
        let mut again: Option<BoxFuture<'static, Tried>> = None;
        let mut heard = Instant::now();
        loop {
            let room = window.len() < WINDOW;
            tokio::select! {
                biased;
                () = self.serving.drain.cancelled() => return Err(Status::unavailable("this server shuts down")),
                tried = async { again.as_mut().expect("guarded").await }, if again.is_some() => {
                    again = None;
                    self.settle(tried).await?;
                }
                Some(tried) = window.next(), if again.is_none() => match needs_retry(&tried) {
                    true => again = Some(retry(self.serving.clone(), tried)),
                    false => self.settle(tried).await?,
                },
                message = self.requests.message(), if room => {
                    heard = Instant::now();
                    match message? {
                        Some(message) => self.take(session, message, &mut window).await?,
                        None => return self.finish(window, again).await,
                    }
                }
                () = tokio::time::sleep_until(heard + SILENCE), if room => {
                    return Err(Status::deadline_exceeded("nothing was heard for 15 s: heartbeats are due every second"));
                }
            }
        }
    }

    /// The client says no more: what is under way is still answered.
    async fn finish(
        &self,
        mut window: Window,
        again: Option<BoxFuture<'static, Tried>>,
    ) -> Result<(), Status> {
        if let Some(again) = again {
            self.settle(again.await).await?;
        }
        while let Some(tried) = window.next().await {
            let tried = if needs_retry(&tried) { retry(self.serving.clone(), tried).await } else { tried };
            self.settle(tried).await?;
        }
        Ok(())
    }

    async fn answer(&self, kind: Answer) -> Result<(), Status> {
        let sent = self.answers.send(Ok(pb::ExportReply { kind: Some(kind) })).await;
        sent.map_err(|_| Status::cancelled("the client is gone"))
    }

    async fn open(&mut self) -> Result<SessionId, Status> {
        let late = |_| Status::deadline_exceeded("the stream was not opened in time");
        let first = timeout(OPENING, self.requests.message()).await.map_err(late)??;
        let Some(pb::ExportRequest { kind: Some(Kind::Open(open)) }) = first else {
            return Err(Status::invalid_argument("an export stream begins with open"));
        };
        let hello = self.serving.greet(open.hello.as_ref())?;
        let session = SessionId(field::id(&open.session, "session").map_err(|e| invalid(&e))?);
        let instance = InstanceId(field::id(&open.instance, "instance").map_err(|e| invalid(&e))?);
        let uid = field::optional_name(open.uid.as_deref(), "uid").map_err(|e| invalid(&e))?;
        // An older federation has no place for it yet.
        let uid = uid.filter(|_| self.serving.replica.state().1.state.meta.cluster_version >= 2);
        let action = Action::OpenSession { cluster: self.agent.id, session, instance, uid };
        let written = self.serving.writer.write(Some(self.agent.principal()), action).await?;
        match written.reply {
            // A stream opens one session, so the cell is empty.
            Reply::Session(Ok(())) => self.opened.set(session).unwrap_or_default(),
            Reply::Session(Err(error @ SessionError::NotMember)) => {
                return Err(Status::permission_denied(error.to_string()));
            }
            Reply::Session(Err(SessionError::OtherCluster(other))) => {
                tracing::warn!(cluster = %self.agent.name, %instance, reason = %other, "session refused");
                return Err(Status::failed_precondition(format!("other-cluster: {other}")));
            }
            Reply::Session(Err(error)) => {
                tracing::warn!(cluster = %self.agent.name, %instance, reason = %error, "session refused");
                return Err(Status::failed_precondition(format!("held: {error}")));
            }
            Reply::Refused(refusal) => return Err(refused(&refusal)),
            _ => return Err(unexpected()),
        }
        // Digests are compared with this server's state: it must know the session that it opened.
        let seen = self.serving.replica.wait_applied(written.index, Instant::now() + SEEN).await;
        seen.map_err(|_| Status::unavailable("this server lags behind: try another"))?;
        self.serving.leasing.heard(self.agent.id, session);
        tracing::info!(cluster = %self.agent.name, %session, %instance, "session opened");
        self.answer(Answer::Opened(pb::Opened { hello: Some(hello) })).await?;
        Ok(session)
    }

    async fn take(
        &mut self,
        session: SessionId,
        message: pb::ExportRequest,
        window: &mut Window,
    ) -> Result<(), Status> {
        self.current(session)?;
        self.serving.leasing.heard(self.agent.id, session);
        match message.kind {
            Some(Kind::Heartbeat(beat)) => {
                self.answer(Answer::Heartbeat(pb::HeartbeatAck { number: beat.number })).await
            }
            Some(Kind::Digests(digests)) => {
                let want = self.want(digests)?;
                self.answer(Answer::Want(want)).await
            }
            Some(Kind::Write(write)) => {
                let (sequence, command) = self.command(session, write)?;
                let writer = self.serving.writer.clone();
                window.push_back(Box::pin(async move {
                    let result = writer.attempt(command.clone()).await;
                    Tried { sequence, command, result }
                }));
                Ok(())
            }
            Some(Kind::Open(_)) => Err(Status::invalid_argument("the session is open already")),
            None => Err(Status::invalid_argument("kind: is missing, or of a newer protocol")),
        }
    }

    /// Who was shut out is told so by the answer to its next heartbeat, not only when it has something to write.
    fn current(&self, session: SessionId) -> Result<(), Status> {
        let machine = self.serving.replica.state();
        let cluster = machine.1.state.clusters.get(&self.agent.id);
        let cluster = cluster.ok_or_else(|| ended(&CatalogError::NotMember))?;
        match &cluster.session {
            Some(current) if current.id == session => Ok(()),
            _ => Err(ended(&CatalogError::Fenced)),
        }
    }

    fn command(&self, session: SessionId, write: pb::Write) -> Result<(u64, Bytes), Status> {
        let changes = write.changes.into_iter().enumerate().map(|(at, change)| {
            CatalogChange::from_wire(change).map_err(|e| invalid(&e.within(&format!("changes[{at}]"))))
        });
        let changes = changes.collect::<Result<Vec<_>, _>>()?;
        let (cluster, sequence) = (self.agent.id, write.sequence);
        let action = Action::Catalog { cluster, session, sequence, changes };
        Ok((sequence, writer::command(Some(self.agent.principal()), action)?))
    }

    /// What the store lacks or has otherwise.
    fn want(&self, digests: pb::Digests) -> Result<pb::Want, Status> {
        let machine = self.serving.replica.state();
        let state = &machine.1.state;
        let cluster = state.clusters.get(&self.agent.id);
        let cluster =
            cluster.ok_or_else(|| self.serving.goodbye(&self.agent, "the cluster was removed".to_owned()))?;
        let mut shards = BTreeMap::new();
        for shard in digests.shards {
            let service: ServiceKey =
                field::present(shard.service, "shards.service").map_err(|e| invalid(&e))?;
            let theirs = field::hash(&shard.digest, "shards.digest").map_err(|e| invalid(&e))?;
            let ours = state.shard(&service, self.agent.id).map(|s| digest::of_shard(s));
            if ours != Some(theirs) {
                shards.insert(service.clone(), service.to_wire());
            }
        }
        let differs = |theirs: &[u8], ours: [u8; 32]| theirs != ours.as_slice();
        let Cluster { network, locality, probes, gateways, bundle, interest, .. } = &**cluster;
        Ok(pb::Want {
            shards: shards.into_values().collect(),
            profile: differs(&digests.profile, digest::profile(network, locality, probes)),
            gateways: differs(&digests.gateways, digest::gateways(gateways)),
            bundle: differs(&digests.bundle, digest::bundle(bundle.as_deref())),
            interest: differs(&digests.interest, digest::interest(interest)),
        })
    }

    /// Answers a write whose fate is decided.
    async fn settle(&self, tried: Tried) -> Result<(), Status> {
        let written = tried.result?;
        match written.reply {
            Reply::Catalog(Ok(result)) => {
                let revision = Some(self.serving.writer.revision(written.index).to_wire());
                let (sequence, result) = (tried.sequence, Some(result.to_wire()));
                self.answer(Answer::Written(pb::Written { sequence, revision, result })).await
            }
            Reply::Catalog(Err(error)) => Err(ended(&error)),
            Reply::Refused(refusal) => Err(refused(&refusal)),
            _ => Err(unexpected()),
        }
    }
}

/// Whether a write was not applied, but may be now that all before it are.
fn needs_retry(tried: &Tried) -> bool {
    match &tried.result {
        Err(error) => error.may_pass(),
        Ok(written) => matches!(written.reply, Reply::Catalog(Err(CatalogError::Gap { .. }))),
    }
}

fn retry(serving: Serving, tried: Tried) -> BoxFuture<'static, Tried> {
    Box::pin(async move {
        let result = serving.writer.retry(tried.command.clone()).await;
        Tried { result, ..tried }
    })
}

fn ended(error: &CatalogError) -> Status {
    match error {
        CatalogError::NotMember => Status::permission_denied(error.to_string()),
        CatalogError::Fenced => Status::failed_precondition(format!("fenced: {error}")),
        CatalogError::Gap { .. } => Status::failed_precondition(error.to_string()),
        CatalogError::Expired => Status::aborted(format!("{error}; open a new session and compare digests")),
    }
}

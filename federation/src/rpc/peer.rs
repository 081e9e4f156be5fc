//! Raft's messages, snapshots, and commands that another server authenticated and passes on, one hop.

use super::Serving;
use crate::consensus::replica::ProposeError;
use crate::consensus::transport::grpc::{serve_raft, serve_snapshot};
use futures::future::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use sealane_core::command::{Action, Command, Reply};
use sealane_core::identity::{Principal, ServerId};
use sealane_proto::Wire;
use sealane_proto::peer::v1 as pb;
use sealane_proto::peer::v1::forwarded::Kind;
use sealane_proto::peer::v1::peer_server::Peer;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Commands of one server that wait for their decision.
const UNDER_WAY: usize = 4096;
/// Outcomes in one message.
const BATCH: usize = 256;

type Answers = mpsc::Sender<Result<pb::ForwardedBatch, Status>>;

/// Serves [`Peer`].
#[derive(Debug, Clone)]
pub struct PeerService {
    serving: Serving,
}

impl PeerService {
    /// Serves with these parts.
    #[must_use]
    pub fn new(serving: Serving) -> Self {
        PeerService { serving }
    }

    /// Proposes what another server passes on, in its order, and answers each command once it is decided.
    async fn serve_forward(
        &self,
        by: ServerId,
        mut commands: Streaming<pb::ForwardBatch>,
        answers: &Answers,
    ) -> Result<(), Status> {
        let mut under_way = FuturesUnordered::new();
        let mut outcomes = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = self.serving.closing.cancelled() => return Err(Status::unavailable("this server shuts down")),
                permit = answers.reserve(), if !outcomes.is_empty() => match permit {
                    Ok(permit) => permit.send(Ok(pb::ForwardedBatch { outcomes: std::mem::take(&mut outcomes) })),
                    Err(_) => return Ok(()),
                },
                Some(decided) = under_way.next(), if outcomes.len() < BATCH => {
                    outcomes.push(decided);
                    // A round of the log decides many at once.
                    while outcomes.len() < BATCH && let Some(Some(decided)) = under_way.next().now_or_never() {
                        outcomes.push(decided);
                    }
                }
                batch = commands.message(), if under_way.len() < UNDER_WAY => match batch? {
                    Some(batch) => {
                        under_way.extend(batch.commands.into_iter().map(|c| self.forwarded(by, c)));
                    }
                    // Whoever would be answered is gone.
                    None => return Ok(()),
                },
            }
        }
    }

    /// Proposes a command for another server; this one must lead. It takes its place in the log's order when this is
    /// called, not when it is awaited.
    fn forwarded(&self, by: ServerId, forward: pb::Forward) -> impl Future<Output = pb::Forwarded> + use<> {
        let proposed = passable(by, &forward.command).map(|()| self.serving.replica.propose(forward.command));
        async move {
            let kind = match proposed {
                Ok(proposed) => outcome(proposed.await),
                Err(reason) => Kind::Refused(pb::Refused { reason }),
            };
            pb::Forwarded { number: forward.number, kind: Some(kind) }
        }
    }
}

/// Whether a server may pass this on: its clients' commands and its own only.
fn passable(by: ServerId, command: &[u8]) -> Result<(), String> {
    let command = Command::decode(command).map_err(|e| e.to_string())?;
    let foreign = matches!(command.principal, Some(Principal::Server(other)) if other != by);
    if foreign || matches!(command.action, Action::Found { .. }) {
        return Err("a server may pass on its clients' commands and its own only".to_owned());
    }
    Ok(())
}

fn outcome(proposed: Result<(u64, Reply), ProposeError>) -> Kind {
    match proposed {
        Ok((index, reply)) => Kind::Committed(pb::Committed { index, reply: reply.encode().into() }),
        Err(ProposeError::NotLeader { leader }) => {
            Kind::NotLeader(pb::NotLeader { leader: leader.map(|l| l.0) })
        }
        Err(ProposeError::Unknown) => Kind::Unknown(pb::Unknown {}),
        Err(ProposeError::Busy) => Kind::Busy(pb::Busy {}),
        Err(error @ ProposeError::TooLarge) => Kind::Refused(pb::Refused { reason: error.to_string() }),
        Err(ProposeError::Stopped(_)) => Kind::NotLeader(pb::NotLeader { leader: None }),
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn raft(
        &self,
        request: Request<Streaming<pb::RaftBatch>>,
    ) -> Result<Response<pb::RaftAck>, Status> {
        let peer = self.serving.server(&request)?;
        let link = self.serving.replica.link();
        tokio::select! {
            ack = serve_raft(&link, peer, request.into_inner()) => ack.map(Response::new),
            () = self.serving.closing.cancelled() => Err(Status::unavailable("this server shuts down")),
        }
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Result<Response<pb::SnapshotAck>, Status> {
        let peer = self.serving.server(&request)?;
        serve_snapshot(&self.serving.replica.link(), peer, request.into_inner()).await.map(Response::new)
    }

    type ForwardStream = ReceiverStream<Result<pb::ForwardedBatch, Status>>;

    async fn forward(
        &self,
        request: Request<Streaming<pb::ForwardBatch>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let by = self.serving.server(&request)?;
        let (answers, stream) = mpsc::channel(1);
        let (service, commands) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            let served = tokio::select! {
                served = service.serve_forward(by, commands, &answers) => served,
                () = answers.closed() => return,
            };
            if let Err(status) = served {
                tracing::debug!(server = %by, reason = status.message(), "a stream of commands ended");
                // A server that takes nothing any more gets no status either.
                let _ = answers.try_send(Err(status));
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

//! Raft's messages, snapshots, and commands that another server authenticated and passes on, one hop.

use super::Serving;
use crate::consensus::replica::ProposeError;
use crate::consensus::transport::grpc::{serve_raft, serve_snapshot};
use bytes::Bytes;
use sealane_core::command::{Action, Command};
use sealane_core::identity::{Principal, ServerId};
use sealane_proto::Wire;
use sealane_proto::peer::v1 as pb;
use sealane_proto::peer::v1::forward_reply::Kind;
use sealane_proto::peer::v1::peer_server::Peer;
use sealane_proto::servers::v1 as servers;
use tonic::{Request, Response, Status, Streaming};

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

    /// Proposes a command for another server; this one must lead.
    async fn forwarded(&self, by: ServerId, command: Bytes) -> Result<Kind, Status> {
        let known = Command::decode(&command).map_err(|e| super::invalid(&e))?;
        let foreign = matches!(known.principal, Some(Principal::Server(other)) if other != by);
        if foreign || matches!(known.action, Action::Found { .. }) {
            return Err(Status::permission_denied(
                "a server may pass on its clients' commands and its own only",
            ));
        }
        Ok(match self.serving.replica.propose(command).await {
            Ok((index, reply)) => Kind::Committed(pb::Committed { index, reply: reply.encode().into() }),
            Err(ProposeError::NotLeader { leader }) => {
                Kind::NotLeader(pb::NotLeader { leader: leader.map(|l| l.0) })
            }
            Err(ProposeError::Unknown) => Kind::Unknown(pb::Unknown {}),
            Err(ProposeError::Busy) => Kind::Busy(pb::Busy {}),
            Err(error @ ProposeError::TooLarge) => return Err(Status::invalid_argument(error.to_string())),
            Err(error @ ProposeError::Stopped(_)) => return Err(Status::unavailable(error.to_string())),
        })
    }

    fn heard(&self, by: ServerId, heartbeats: pb::Heartbeats) -> Kind {
        let heard = heartbeats.heartbeats.into_iter();
        let heard =
            heard.map(|h| servers::Heard { cluster: h.cluster, session: h.session.to_vec() }).collect();
        match self.serving.leasing.told(by, servers::BeatRequest { heard, ..Default::default() }) {
            Ok(_) => Kind::Heartbeats(pb::HeartbeatsTaken {}),
            Err(_) => Kind::NotLeader(pb::NotLeader { leader: None }),
        }
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

    async fn forward(
        &self,
        request: Request<pb::ForwardRequest>,
    ) -> Result<Response<pb::ForwardReply>, Status> {
        let by = self.serving.server(&request)?;
        let kind = match request.into_inner().kind {
            Some(pb::forward_request::Kind::Command(command)) => self.forwarded(by, command).await?,
            Some(pb::forward_request::Kind::Heartbeats(heartbeats)) => self.heard(by, heartbeats),
            None => return Err(Status::invalid_argument("kind: is missing")),
        };
        Ok(Response::new(pb::ForwardReply { kind: Some(kind) }))
    }
}

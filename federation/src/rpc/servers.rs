//! What servers ask of each other besides raft.

use super::{Serving, refused, unexpected};
use crate::metrics::Call;
use crate::rpc::admin::change;
use sealane_core::command::{Action, Reply, VERSION};
use sealane_core::identity::{Principal, ServerId};
use sealane_core::name::ServiceAccount;
use sealane_proto::servers::v1 as pb;
use sealane_proto::servers::v1::servers_server::Servers;
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

/// How long a new server may take to catch up in one call; it asks again.
const CATCH_UP: Duration = Duration::from_secs(60);

/// Serves [`Servers`].
#[derive(Debug, Clone)]
pub struct ServersService {
    serving: Serving,
}

impl ServersService {
    /// Serves with these parts.
    #[must_use]
    pub fn new(serving: Serving) -> Self {
        ServersService { serving }
    }

    /// Records where the new server is, so that everyone can send to it, and takes it in.
    async fn take_in(&self, id: ServerId, request: pb::AddServerRequest) -> Result<(), Status> {
        if !self.serving.replica.status().borrow().is_leader() {
            return Err(Status::unavailable("this server does not lead: ask another"));
        }
        let pb::AddServerRequest { address, status_address } = request;
        let action = Action::PutServer { id, address, status_address };
        match self.serving.writer.write(Some(Principal::Server(id)), action).await?.reply {
            Reply::Done => {}
            Reply::Refused(refusal) => return Err(refused(&refusal)),
            _ => return Err(unexpected()),
        }
        let added = self.serving.replica.add_server(id, Instant::now() + CATCH_UP).await;
        added.map_err(|e| change(&e))?;
        tracing::info!(server = %id, "server is a voter");
        Ok(())
    }
}

fn admin(name: &str) -> Result<ServiceAccount, Status> {
    ServiceAccount::parse(name).map_err(|e| Status::invalid_argument(e.to_string()))
}

#[tonic::async_trait]
impl Servers for ServersService {
    async fn add_server(
        &self,
        request: Request<pb::AddServerRequest>,
    ) -> Result<Response<pb::AddServerReply>, Status> {
        let id = self.serving.server(&request)?;
        let done = self.take_in(id, request.into_inner()).await;
        done.inspect_err(|_| self.serving.metrics.error(Call::Server))?;
        Ok(Response::new(pb::AddServerReply { voter: true }))
    }

    async fn remove_server(
        &self,
        request: Request<pb::RemoveServerRequest>,
    ) -> Result<Response<pb::RemoveServerReply>, Status> {
        self.serving.server(&request)?;
        let request = request.into_inner();
        let done = self.serving.remove_server(admin(&request.admin)?, ServerId(request.id)).await;
        done.inspect_err(|_| self.serving.metrics.error(Call::Server))?;
        Ok(Response::new(pb::RemoveServerReply {}))
    }

    async fn confirm_lapses(
        &self,
        request: Request<pb::ConfirmLapsesRequest>,
    ) -> Result<Response<pb::ConfirmLapsesReply>, Status> {
        self.serving.server(&request)?;
        admin(&request.get_ref().admin)?;
        Ok(Response::new(pb::ConfirmLapsesReply { lapsed: self.serving.confirm_lapses()? }))
    }

    async fn understands(
        &self,
        request: Request<pb::UnderstandsRequest>,
    ) -> Result<Response<pb::UnderstandsReply>, Status> {
        self.serving.server(&request)?;
        Ok(Response::new(pb::UnderstandsReply { version: VERSION }))
    }

    async fn beat(&self, request: Request<pb::BeatRequest>) -> Result<Response<pb::BeatReply>, Status> {
        let id = self.serving.server(&request)?;
        let told = self.serving.leasing.told(id, request.into_inner());
        told.map(Response::new).map_err(|e| Status::unavailable(e.to_string()))
    }
}

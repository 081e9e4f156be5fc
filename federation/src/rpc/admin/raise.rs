//! Raising the federation's command version once every server understands the next one.

use crate::rpc::{Serving, refused, unexpected};
use sealane_core::command::{Action, Reply, VERSION};
use sealane_core::identity::{Principal, ServerId};
use sealane_core::name::ServiceAccount;
use sealane_proto::servers::v1 as peers;
use sealane_proto::servers::v1::servers_client::ServersClient;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::timeout;
use tonic::{Code, Status};

/// How long a server may take to say what it understands.
const ANSWER: Duration = Duration::from_secs(3);

impl Serving {
    /// Asks every server, and raises the version when all understand what this one does. Says which version holds.
    pub(super) async fn raise_version(&self, admin: ServiceAccount) -> Result<u32, Status> {
        let status = self.replica.status().borrow().clone();
        let recorded = self.replica.state().1.state.servers.keys().copied().collect::<BTreeSet<_>>();
        let others =
            recorded.iter().chain(&status.voters).chain(&status.learners).filter(|id| **id != self.id);
        for server in others.copied().collect::<BTreeSet<_>>() {
            let version = self.understood_by(server).await?;
            if version < VERSION {
                return Err(Status::failed_precondition(format!(
                    "server {server} understands command version {version}, and this one {VERSION}: upgrade it first"
                )));
            }
        }
        let action = Action::RaiseVersion { version: VERSION };
        match self.writer.write(Some(Principal::Admin(admin)), action).await?.reply {
            Reply::Done => Ok(VERSION),
            Reply::Refused(refusal) => Err(refused(&refusal)),
            _ => Err(unexpected()),
        }
    }

    async fn understood_by(&self, server: ServerId) -> Result<u32, Status> {
        let channel = self.peers.channel(server).map_err(|e| Status::unavailable(e.to_string()))?;
        let mut client = ServersClient::new(channel);
        match timeout(ANSWER, client.understands(peers::UnderstandsRequest {})).await {
            Ok(Ok(reply)) => Ok(reply.into_inner().version),
            // Builds of version 1 are not asked, and do not know the question.
            Ok(Err(status)) if status.code() == Code::Unimplemented => Ok(1),
            _ => Err(Status::unavailable(format!(
                "server {server} does not say which command version it understands: start it, or take it out with `sealane \
                 server remove {server}`"
            ))),
        }
    }
}

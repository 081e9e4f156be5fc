//! What administrators ask for.

mod add;
mod raise;

use super::{Serving, invalid, refused, unexpected};
use crate::consensus::replica::ChangeError;
use crate::metrics::Call;
use sealane_core::command::{self, Action, AdminAction, RefusalCode, Reply};
use sealane_core::identity::{Principal, ServerId};
use sealane_core::name::{ClusterName, ServiceAccount, TrustDomain};
use sealane_core::state::{Grant, TokenScope};
use sealane_proto::Wire;
use sealane_proto::convert::field;
use sealane_proto::federation::v1 as pb;
use sealane_proto::federation::v1::admin_server::Admin;
use sealane_proto::servers::v1 as peers;
use sealane_proto::servers::v1::servers_client::ServersClient;
use sealane_trust::clock;
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

/// The longest life of a token.
const MAX_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a change of membership may take.
const CHANGE: Duration = Duration::from_secs(10);

/// Serves [`Admin`].
#[derive(Debug, Clone)]
pub struct AdminService {
    serving: Serving,
}

impl AdminService {
    /// Serves with these parts.
    #[must_use]
    pub fn new(serving: Serving) -> Self {
        AdminService { serving }
    }

    async fn command(
        &self,
        admin: ServiceAccount,
        key: &[u8],
        action: AdminAction,
    ) -> Result<(u64, Reply), Status> {
        let key = field::id(key, "key").map_err(|e| invalid(&e))?;
        let ahead = command::issued(&key).since(clock::now());
        if ahead > command::ADMIN_SKEW_MS {
            return Err(Status::invalid_argument(format!(
                "key: says that the command was issued {} s from now: set the clock",
                ahead / 1000
            )));
        }
        let written =
            self.serving.writer.write(Some(Principal::Admin(admin)), Action::Admin { key, action }).await?;
        // Who asks here next sees it.
        let seen = Instant::now() + Duration::from_secs(2);
        let _ = self.serving.replica.wait_applied(written.index, seen).await;
        Ok((written.index, written.reply))
    }

    async fn token(&self, request: Request<pb::CreateTokenRequest>) -> Result<pb::CreateTokenReply, Status> {
        let admin = self.serving.admin(&request)?;
        let request = request.into_inner();
        let ttl = Duration::from_secs(request.ttl_s);
        if ttl.is_zero() || ttl > MAX_TTL {
            return Err(Status::invalid_argument("ttl_s: must be 1 second to 30 days"));
        }
        let hash = field::hash(&request.secret_hash, "secret_hash").map_err(|e| invalid(&e))?;
        let scope = scope(request.scope, &self.serving.trust_domain)?;
        let expires = clock::now().plus(request.ttl_s.saturating_mul(1000));
        let action = AdminAction::CreateToken { hash, scope, expires };
        match self.command(admin.clone(), &request.key, action).await?.1 {
            Reply::TokenCreated { .. } => {}
            Reply::Refused(refusal) => return Err(refused(&refusal)),
            _ => return Err(unexpected()),
        }
        tracing::info!(%admin, "join token created");
        // A retry is told the expiry of the token that exists.
        let kept = self.serving.replica.state().1.state.tokens.get(&hash).map(|t| t.expires);
        Ok(pb::CreateTokenReply {
            federation: self.serving.federation.0.to_vec(),
            root_hash: self.serving.pki.root_hash().0.to_vec(),
            servers: self.serving.addresses(),
            expires_ms: kept.unwrap_or(expires).0,
        })
    }

    async fn without_cluster(
        &self,
        request: Request<pb::RemoveClusterRequest>,
    ) -> Result<pb::RemoveClusterReply, Status> {
        let admin = self.serving.admin(&request)?;
        let request = request.into_inner();
        let name: ClusterName = field::name(&request.name, "name").map_err(|e| invalid(&e))?;
        let action = AdminAction::RemoveCluster { name: name.clone() };
        match self.command(admin.clone(), &request.key, action).await? {
            (index, Reply::Done) => {
                tracing::info!(%admin, cluster = %name, "cluster removed");
                let revision = Some(self.serving.writer.revision(index).to_wire());
                Ok(pb::RemoveClusterReply { revision })
            }
            (_, Reply::Refused(refusal)) => Err(refused(&refusal)),
            _ => Err(unexpected()),
        }
    }
}

fn scope(
    scope: Option<pb::create_token_request::Scope>,
    federation: &TrustDomain,
) -> Result<TokenScope, Status> {
    use pb::create_token_request::Scope;
    match scope {
        Some(Scope::Server(_)) => Ok(TokenScope::Server { id: ServerId(0) }),
        Some(Scope::Cluster(cluster)) => {
            let name: ClusterName = field::name(&cluster.name, "cluster.name").map_err(|e| invalid(&e))?;
            let domain = match cluster.trust_domain.as_str() {
                "" => format!("{name}.{federation}"),
                stated => stated.to_owned(),
            };
            let trust_domain = field::name(&domain, "cluster.trust_domain").map_err(|e| invalid(&e))?;
            let (exports, imports) =
                (grant(cluster.exports, Grant::exports), grant(cluster.imports, Grant::all));
            Ok(TokenScope::Cluster { name, trust_domain, exports, imports })
        }
        None => Err(Status::invalid_argument("scope: is missing")),
    }
}

/// Nothing stated is the default.
fn grant(namespaces: Vec<String>, default: fn() -> Grant) -> Grant {
    if namespaces.is_empty() { default() } else { Grant { namespaces } }
}

impl Serving {
    /// A channel to the leader, when that is another server.
    fn leader(&self) -> Result<Option<ServersClient<Channel>>, Status> {
        let status = self.replica.status().borrow().clone();
        match status.leader {
            Some(leader) if leader == self.id => Ok(None),
            Some(leader) => {
                let channel = self.peers.channel(leader).map_err(|e| Status::unavailable(e.to_string()))?;
                Ok(Some(ServersClient::new(channel)))
            }
            None => {
                Err(Status::unavailable("the federation has no leader now; nothing was changed, try again"))
            }
        }
    }

    /// Removes a server from the raft group and then from the state. A leader that is to go hands over first.
    pub(crate) async fn remove_server(&self, admin: ServiceAccount, id: ServerId) -> Result<(), Status> {
        let deadline = Instant::now() + CHANGE;
        let status = self.replica.status().borrow().clone();
        let machine = self.replica.state();
        let state = &machine.1.state;
        let known = status.voters.contains(&id)
            || status.learners.contains(&id)
            || state.servers.contains_key(&id)
            || state.tokens.values().any(|token| token.scope == TokenScope::Server { id });
        if !known {
            return Err(Status::not_found(format!("there is no server {id}")));
        }
        if status.voters == [id] {
            return Err(Status::failed_precondition(format!(
                "server {id} is the last one: it can not be removed"
            )));
        }
        if id == self.id {
            let next = status.voters.iter().find(|v| **v != id);
            let next = *next.ok_or_else(|| Status::failed_precondition("there is no other voter"))?;
            self.replica.transfer_leader(next, deadline).await.map_err(|e| change(&e))?;
            let channel = self.peers.channel(next).map_err(|e| Status::unavailable(e.to_string()))?;
            let request = peers::RemoveServerRequest { key: Vec::new(), id: id.0, admin: admin.to_string() };
            return ServersClient::new(channel).remove_server(request).await.map(drop);
        }
        self.replica.remove_server(id, deadline).await.map_err(|e| change(&e))?;
        let action = Action::RemoveServer { id };
        match self.writer.write(Some(Principal::Admin(admin)), action).await?.reply {
            Reply::Done => Ok(()),
            // An earlier try did it, or it never recorded itself.
            Reply::Refused(refusal) if refusal.code == RefusalCode::NotFound => Ok(()),
            Reply::Refused(refusal) => Err(refused(&refusal)),
            _ => Err(unexpected()),
        }
    }
}

pub(crate) fn change(error: &ChangeError) -> Status {
    let message = error.to_string();
    match error {
        ChangeError::NotLeader { .. } | ChangeError::Stopped(_) | ChangeError::Busy => {
            Status::unavailable(message)
        }
        ChangeError::Unknown => Status::aborted(message),
        ChangeError::Refused(_) => Status::failed_precondition(message),
        ChangeError::NotCaughtUp { .. } | ChangeError::Expired => Status::deadline_exceeded(message),
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn create_token(
        &self,
        request: Request<pb::CreateTokenRequest>,
    ) -> Result<Response<pb::CreateTokenReply>, Status> {
        let done = self.token(request).await;
        done.map(Response::new).inspect_err(|_| self.serving.metrics.error(Call::Admin))
    }

    async fn add_cluster(
        &self,
        request: Request<pb::AddClusterRequest>,
    ) -> Result<Response<pb::AddClusterReply>, Status> {
        let done = self.with_cluster(request).await;
        done.map(Response::new).inspect_err(|_| self.serving.metrics.error(Call::Admin))
    }

    async fn remove_cluster(
        &self,
        request: Request<pb::RemoveClusterRequest>,
    ) -> Result<Response<pb::RemoveClusterReply>, Status> {
        let done = self.without_cluster(request).await;
        done.map(Response::new).inspect_err(|_| self.serving.metrics.error(Call::Admin))
    }

    async fn remove_server(
        &self,
        request: Request<pb::RemoveServerRequest>,
    ) -> Result<Response<pb::RemoveServerReply>, Status> {
        let admin = self.serving.admin(&request)?;
        let pb::RemoveServerRequest { key, id } = request.into_inner();
        match self.serving.leader()? {
            None => self.serving.remove_server(admin, ServerId(id)).await?,
            Some(mut leader) => {
                let request = peers::RemoveServerRequest { key, id, admin: admin.to_string() };
                leader.remove_server(request).await?;
            }
        }
        Ok(Response::new(pb::RemoveServerReply {}))
    }

    async fn raise_version(
        &self,
        request: Request<pb::RaiseVersionRequest>,
    ) -> Result<Response<pb::RaiseVersionReply>, Status> {
        let admin = self.serving.admin(&request)?;
        let version = self.serving.raise_version(admin.clone()).await;
        let version = version.inspect_err(|_| self.serving.metrics.error(Call::Admin))?;
        tracing::info!(%admin, version, "command version raised");
        Ok(Response::new(pb::RaiseVersionReply { version }))
    }

    async fn confirm_lapses(
        &self,
        request: Request<pb::ConfirmLapsesRequest>,
    ) -> Result<Response<pb::ConfirmLapsesReply>, Status> {
        let admin = self.serving.admin(&request)?;
        tracing::info!(%admin, "lapses confirmed");
        let lapsed = match self.serving.leader()? {
            None => self.serving.confirm_lapses()?,
            Some(mut leader) => {
                let request = peers::ConfirmLapsesRequest { admin: admin.to_string() };
                leader.confirm_lapses(request).await?.into_inner().lapsed
            }
        };
        Ok(Response::new(pb::ConfirmLapsesReply { lapsed }))
    }
}

impl Serving {
    pub(crate) fn confirm_lapses(&self) -> Result<u32, Status> {
        let count = self.leasing.confirm().map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }
}

//! Who asks, and whether the state still knows them.

use super::Serving;
use prost::Message;
use sealane_core::identity::{ClusterId, Principal, ServerId};
use sealane_core::name::{ClusterName, ServiceAccount};
use sealane_core::state::{State, TokenScope};
use sealane_proto::Wire;
use sealane_proto::federation::v1 as pb;
use sealane_trust::acceptor::Peer;
use sealane_trust::statement::Signed;
use sealane_trust::verify::Verified;
use tonic::{Code, Request, Status};

/// A member's agent, as its certificate names it and the state confirms it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentIdentity {
    /// The cluster.
    pub id: ClusterId,
    /// Its name.
    pub name: ClusterName,
}

impl AgentIdentity {
    /// As commands carry it.
    #[must_use]
    pub fn principal(&self) -> Principal {
        Principal::Agent(self.name.clone())
    }
}

/// Whether a server belongs to the federation, or was admitted to join it. A state that was not founded yet (a new
/// server's) knows nobody and refuses nobody.
#[must_use]
pub fn is_member_server(state: &State, id: ServerId) -> bool {
    let admitted = |scope: &TokenScope| *scope == TokenScope::Server { id };
    !state.is_founded()
        || state.servers.contains_key(&id)
        || state.tokens.values().any(|t| t.consumed.is_some() && admitted(&t.scope))
        // A server that lags does not know the newest yet; ids are never given twice.
        || id.0 >= state.meta.next_server
}

fn verified<T>(request: &Request<T>) -> Result<Verified, Status> {
    match request.extensions().get::<Peer>() {
        Some(Peer::Verified(verified)) => Ok(verified.clone()),
        Some(Peer::Expired(_)) => Err(Status::unauthenticated(
            "the client certificate expired: it opens nothing but Enroll.Renew now",
        )),
        Some(Peer::Anonymous) | None => Err(Status::unauthenticated("a client certificate is needed")),
    }
}

impl Serving {
    fn principal<T>(&self, request: &Request<T>) -> Result<(Principal, Verified), Status> {
        let verified = verified(request)?;
        let principal = verified.spiffe_id.principal(&self.trust_domain);
        let principal =
            principal.ok_or_else(|| Status::permission_denied("the certificate names no principal"))?;
        Ok((principal, verified))
    }

    /// The agent that asks.
    pub(crate) fn agent<T>(&self, request: &Request<T>) -> Result<AgentIdentity, Status> {
        let (principal, verified) = self.principal(request)?;
        self.agent_of(&principal, &verified)
    }

    /// The agent that asks; its certificate may have expired.
    pub(crate) fn agent_to_renew<T>(&self, request: &Request<T>) -> Result<AgentIdentity, Status> {
        let Some(Peer::Expired(expired)) = request.extensions().get::<Peer>() else {
            return self.agent(request);
        };
        let principal = expired.spiffe_id.principal(&self.trust_domain);
        let principal =
            principal.ok_or_else(|| Status::permission_denied("the certificate names no principal"))?;
        self.agent_of(&principal, expired)
    }

    fn agent_of(&self, principal: &Principal, verified: &Verified) -> Result<AgentIdentity, Status> {
        let (Principal::Agent(name), Some(id)) = (principal, verified.cluster_id) else {
            return Err(Status::permission_denied("only a cluster's agent may do this"));
        };
        let machine = self.replica.state();
        let state = &machine.1.state;
        match state.clusters.get(&id) {
            Some(cluster) if cluster.name == *name => Ok(AgentIdentity { id, name: name.clone() }),
            None if !state.is_founded() || id.0 >= state.meta.next_cluster => Err(Status::unavailable(
                "this server has not heard of the cluster yet: try again, or another server",
            )),
            _ => {
                let message = format!(
                    "cluster {name} was removed from the federation; to become a member again it needs a new token"
                );
                Err(self.goodbye(&AgentIdentity { id, name: name.clone() }, message))
            }
        }
    }

    /// Refuses a cluster that was removed, with a signed goodbye. An id that is another cluster's now was lost by a restore
    /// and not removed by anybody: then nothing is signed.
    pub(crate) fn goodbye(&self, agent: &AgentIdentity, message: String) -> Status {
        let machine = self.replica.state();
        let state = &machine.1.state;
        let removed = !state.clusters.contains_key(&agent.id) && agent.id.0 < state.meta.next_cluster;
        if !state.is_founded() || !removed {
            return Status::permission_denied(message);
        }
        let departure = pb::Departure {
            federation: self.federation.0.to_vec(),
            cluster_id: agent.id.0,
            cluster: agent.name.to_string(),
            revision: Some(state.meta.revision.to_wire()),
        };
        match Signed::new(&self.pki.identity, sealane_proto::GOODBYE, departure.encode_to_vec()) {
            Ok(Signed { statement, signature, chain }) => {
                let chain = chain.iter().map(|certificate| certificate.to_vec()).collect();
                let goodbye = pb::Goodbye { departure: statement, signature, chain };
                let details = goodbye.encode_to_vec().into();
                Status::with_details(Code::PermissionDenied, message, details)
            }
            Err(error) => {
                tracing::error!(%error, "can not sign a goodbye");
                Status::permission_denied(message)
            }
        }
    }

    /// The administrator who asks.
    pub(crate) fn admin<T>(&self, request: &Request<T>) -> Result<ServiceAccount, Status> {
        match self.principal(request)? {
            (Principal::Admin(name), _) => Ok(name),
            _ => Err(Status::permission_denied("an administrator's certificate is needed")),
        }
    }

    /// The server that asks.
    pub(crate) fn server<T>(&self, request: &Request<T>) -> Result<ServerId, Status> {
        match self.principal(request)? {
            (Principal::Server(id), _) if is_member_server(&self.replica.state().1.state, id) => Ok(id),
            (Principal::Server(id), _) => {
                Err(Status::permission_denied(format!("server {id} was removed from the federation")))
            }
            _ => Err(Status::permission_denied("only a federation server may do this")),
        }
    }
}

//! `Identity`: how a proxy gets its certificate, and keeps it.
//!
//! Law: the token decides who the proxy is, then its current certificate does; what a request asks for is ignored.

mod grant;
mod grants;
mod seal;
mod token;

pub(crate) use grant::Grant;
pub use grant::{Checked, Claim, Redeemed};
pub use grants::Grants;
pub use seal::Seal;
pub use token::{TokenFileError, await_agent, make_workload_token, write_workload_token};

use crate::ca::Ca;
use crate::metrics::Metrics;
use sealane_core::identity::SpiffeId;
use sealane_core::name::TrustDomain;
use sealane_proto::Wire;
use sealane_proto::agent::v1 as wire;
use sealane_proto::agent::v1::identity_server::Identity;
use sealane_trust::acceptor::Peer;
use sealane_trust::csr::Csr;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug, Clone)]
pub struct IdentityService {
    /// The cluster's authority.
    pub ca: Arc<Ca>,
    /// The tokens.
    pub grants: Arc<Grants>,
    /// The cluster's trust domain.
    pub trust_domain: TrustDomain,
    /// How long certificates last.
    pub ttl: Duration,
    /// Where issues are counted.
    pub metrics: Arc<Metrics>,
}

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn issue(
        &self,
        request: Request<wire::IssueRequest>,
    ) -> Result<Response<wire::IssueReply>, Status> {
        let wire::IssueRequest { token, csr } = request.into_inner();
        let csr = Csr::parse(&csr).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let claim = match self.grants.redeem(&token, csr.public_key_hash()).await {
            Redeemed::Granted(claim) => claim,
            Redeemed::Refused(reason) => return Err(Status::permission_denied(reason)),
            Redeemed::Failed(error) => {
                tracing::error!(error, "can not redeem a workload token");
                return Err(Status::internal("the agent can not redeem tokens now; its log says why"));
            }
        };
        self.reply(&csr, claim.spiffe_id(&self.trust_domain))
    }

    async fn renew(
        &self,
        request: Request<wire::RenewRequest>,
    ) -> Result<Response<wire::IssueReply>, Status> {
        let peer = request.extensions().get::<Peer>().and_then(Peer::verified);
        let id = peer.map(|p| p.spiffe_id.clone());
        let id = id.ok_or_else(|| Status::unauthenticated("the current certificate is needed"))?;
        if id == SpiffeId::cluster_agent(&self.trust_domain) {
            return Err(Status::permission_denied("the agent renews its own certificate"));
        }
        let csr =
            Csr::parse(&request.into_inner().csr).map_err(|e| Status::invalid_argument(e.to_string()))?;
        self.reply(&csr, id)
    }
}

impl IdentityService {
    fn reply(&self, csr: &Csr, id: SpiffeId) -> Result<Response<wire::IssueReply>, Status> {
        let issued = self.ca.issue(csr.public_key(), id.clone(), self.ttl).map_err(|error| {
            tracing::error!(error = %error, "can not issue a certificate");
            Status::internal("the agent can not issue certificates now; its log says why")
        })?;
        self.metrics.issued.inc();
        tracing::info!(spiffe_id = %id, serial = %issued.serial, not_after = issued.not_after.0, "certificate issued");
        Ok(Response::new(wire::IssueReply {
            spiffe_id: id.to_string(),
            chain: issued.chain.iter().map(|c| c.to_vec()).collect(),
            not_after_ms: issued.not_after.0,
            bundle: Some(self.ca.record().to_wire()),
        }))
    }
}

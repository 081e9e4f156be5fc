//! Joining by a token, and renewing by a certificate.
//!
//! Law: a stranger without a token's secret, or a token of an added cluster's issuer, writes nothing, here or in the log.

mod projected;
mod rate;

use super::{Serving, invalid, refused, unexpected};
use crate::metrics::Call;
use rate::Rates;
use sealane_core::command::{Action, Joined, Reply};
use sealane_core::identity::{ClusterId, ServerId};
use sealane_core::name::{ClusterName, TrustDomain};
use sealane_core::state::TokenScope;
use sealane_core::time::Millis;
use sealane_proto::convert::field;
use sealane_proto::federation::v1 as pb;
use sealane_proto::federation::v1::enroll_server::Enroll;
use sealane_trust::acceptor::source;
use sealane_trust::csr::Csr;
use sealane_trust::grpc::RemoteAddr;
use sealane_trust::issue::Validity;
use sealane_trust::{CertificateDer, clock, sha256};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tonic::{Request, Response, Status};

/// How long a look at the current state may take.
const LOOK: Duration = Duration::from_secs(5);
/// How long a joiner waits for this server to know it.
const SEEN: Duration = Duration::from_secs(2);

/// Serves [`Enroll`].
#[derive(Debug, Clone)]
pub struct EnrollService {
    serving: Serving,
    rates: Arc<Mutex<Rates>>,
}

impl EnrollService {
    /// Serves with these parts.
    #[must_use]
    pub fn new(serving: Serving) -> Self {
        EnrollService { serving, rates: Arc::default() }
    }

    fn admit(&self, source: IpAddr) -> Result<(), Status> {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        match rates.admit(source, Instant::now()) {
            true => Ok(()),
            false => {
                Err(Status::resource_exhausted("too many joins at once from there: try again in a second"))
            }
        }
    }

    /// What a token admits. Only the token's secret opens the way into the log: what is not known here may be new, so
    /// the look is as of now.
    async fn scope(&self, token: &[u8; 32]) -> Result<TokenScope, Status> {
        let known = || self.serving.replica.state().1.state.tokens.get(token).map(|t| t.scope.clone());
        if let Some(scope) = known() {
            return Ok(scope);
        }
        let end = tokio::time::Instant::now() + LOOK;
        self.serving.replica.read_index(end).await.map_err(|e| Status::unavailable(e.to_string()))?;
        known().ok_or_else(|| {
            Status::not_found("there is no such join token: make one with `sealane token create`")
        })
    }

    async fn joined(&self, source: IpAddr, request: pb::JoinRequest) -> Result<pb::JoinReply, Status> {
        self.admit(source)?;
        if let Some(shown) = &request.projected {
            return self.joined_by_issuer(source, &request.csr, shown).await;
        }
        let secret: [u8; 32] = field::hash(&request.secret, "secret").map_err(|e| invalid(&e))?;
        let csr = parse(&request.csr)?;
        let token = sha256(&secret);
        let scope = self.scope(&token).await?;
        if matches!(scope, TokenScope::Server { .. }) && self.serving.pki.root.is_none() {
            return Err(no_root());
        }
        let validity = self.validity();
        let action = Action::Join { token, key: csr.public_key_hash(), not_after: validity.not_after };
        let written = self.serving.writer.write(None, action).await?;
        // The joiner's next call may come here: this server should know it then.
        let _ = self.serving.replica.wait_applied(written.index, tokio::time::Instant::now() + SEEN).await;
        match written.reply {
            Reply::Joined(Joined::Cluster { id, name, trust_domain }) => {
                tracing::info!(cluster = %name, %id, "cluster joined");
                self.cluster(&csr, id, &name, &trust_domain, validity)
            }
            Reply::Joined(Joined::Server { id }) => {
                tracing::info!(server = %id, "server admitted");
                self.server(&csr, id)
            }
            Reply::Refused(refusal) => Err(refused(&refusal)),
            _ => Err(unexpected()),
        }
    }

    async fn joined_by_issuer(
        &self,
        source: IpAddr,
        csr: &[u8],
        shown: &pb::ProjectedToken,
    ) -> Result<pb::JoinReply, Status> {
        let csr = parse(csr)?;
        let projected::Shown { proof, id: token } = self.verified(source, shown).await?;
        let validity = self.validity();
        let action =
            Action::JoinByIssuer { proof, key: csr.public_key_hash(), not_after: validity.not_after };
        let written = self.serving.writer.write(None, action).await?;
        let _ = self.serving.replica.wait_applied(written.index, tokio::time::Instant::now() + SEEN).await;
        match written.reply {
            Reply::Joined(Joined::Cluster { id, name, trust_domain }) => {
                tracing::info!(cluster = %name, %id, %source, token, "cluster joined by a token of its issuer");
                self.cluster(&csr, id, &name, &trust_domain, validity)
            }
            Reply::Refused(refusal) => {
                tracing::warn!(cluster = shown.cluster, %source, token, reason = %refusal, "a join was refused");
                Err(refused(&refusal))
            }
            _ => Err(unexpected()),
        }
    }

    fn validity(&self) -> Validity {
        let wanted = Validity::starting(clock::now(), self.serving.pki.ttl);
        // As the certificate will say it: whole seconds, and not beyond its issuer.
        let end = wanted.not_after.min(self.serving.pki.issuer.not_after());
        Validity { not_after: Millis(end.0 / 1000 * 1000), ..wanted }
    }

    fn cluster(
        &self,
        csr: &Csr,
        id: ClusterId,
        name: &ClusterName,
        trust_domain: &TrustDomain,
        validity: Validity,
    ) -> Result<pb::JoinReply, Status> {
        let issued = self.serving.pki.issue_agent(csr.public_key(), (id, name), validity).map_err(issue)?;
        let (name, trust_domain) = (name.to_string(), trust_domain.to_string());
        let joined = pb::join_reply::Joined::Cluster(pb::JoinedCluster { id: id.0, name, trust_domain });
        Ok(self.reply(issued.chain, joined))
    }

    fn server(&self, csr: &Csr, id: ServerId) -> Result<pb::JoinReply, Status> {
        let chain =
            self.serving.pki.certify_server(csr.public_key(), id).ok_or_else(no_root)?.map_err(issue)?;
        let machine = self.serving.replica.state();
        let peers = machine.1.state.servers.values().map(|s| pb::PeerServer {
            id: s.id.0,
            address: s.address.clone(),
            status_address: s.status_address.clone(),
        });
        let joined = pb::join_reply::Joined::Server(pb::JoinedServer { id: id.0, peers: peers.collect() });
        Ok(self.reply(chain, joined))
    }

    fn reply(&self, chain: Vec<CertificateDer<'static>>, joined: pb::join_reply::Joined) -> pb::JoinReply {
        pb::JoinReply {
            federation: self.serving.federation.0.to_vec(),
            trust_domain: self.serving.trust_domain.to_string(),
            chain: ders(&chain),
            roots: self.serving.pki.roots(),
            servers: self.serving.addresses(),
            joined: Some(joined),
        }
    }

    async fn renewed(&self, request: Request<pb::RenewRequest>) -> Result<pb::RenewReply, Status> {
        let agent = self.serving.agent_to_renew(&request)?;
        let csr = parse(&request.get_ref().csr)?;
        let validity = self.validity();
        let (cluster, key, not_after) = (agent.id, csr.public_key_hash(), validity.not_after);
        let action = Action::Renew { cluster, key, not_after };
        match self.serving.writer.write(Some(agent.principal()), action).await?.reply {
            Reply::Done => {}
            Reply::Refused(refusal) => return Err(refused(&refusal)),
            _ => return Err(unexpected()),
        }
        let issued = self.serving.pki.issue_agent(csr.public_key(), (agent.id, &agent.name), validity);
        let chain = ders(&issued.map_err(issue)?.chain);
        Ok(pb::RenewReply { chain, roots: self.serving.pki.roots(), servers: self.serving.addresses() })
    }
}

fn ders(chain: &[CertificateDer<'static>]) -> Vec<Vec<u8>> {
    chain.iter().map(|c| c.to_vec()).collect()
}

fn parse(csr: &[u8]) -> Result<Csr, Status> {
    Csr::parse(csr).map_err(|e| Status::invalid_argument(format!("csr: {e}")))
}

fn issue(error: sealane_trust::issue::IssueError) -> Status {
    tracing::error!(%error, "can not issue a certificate");
    Status::failed_precondition(format!("this server can not issue the certificate: {error}"))
}

fn no_root() -> Status {
    Status::failed_precondition(
        "this server does not hold the federation's root key (pki/root.key), which admits servers: join through the \
         server where `sealane-federation init` was run",
    )
}

#[tonic::async_trait]
impl Enroll for EnrollService {
    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<pb::JoinReply>, Status> {
        let remote = request.extensions().get::<RemoteAddr>().map(|remote| remote.0.ip());
        let from = source(remote.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        let done = self.joined(from, request.into_inner()).await;
        done.map(Response::new).inspect_err(|_| self.serving.metrics.error(Call::Join))
    }

    async fn renew(&self, request: Request<pb::RenewRequest>) -> Result<Response<pb::RenewReply>, Status> {
        let done = self.renewed(request).await;
        done.map(Response::new).inspect_err(|_| self.serving.metrics.error(Call::Renew))
    }
}

//! Joining the federation, and keeping the certificate that joining brought.

mod renewal;
mod ticket;

pub use renewal::{Renewal, keep_renewed};
pub use ticket::{Projected, Ticket, read_token};

use crate::state::Membership;
use crate::store::Store;
use crate::vault::{Credentials, Vault, VaultError};
use sealane_core::identity::{ClusterId, FederationId, Principal};
use sealane_core::name::NameError;
use sealane_proto::federation::v1 as wire;
use sealane_proto::federation::v1::enroll_client::EnrollClient;
use sealane_proto::federation::v1::join_reply::Joined;
use sealane_trust::bundle::{Bundle, BundleError};
use sealane_trust::csr::{Csr, CsrError};
use sealane_trust::file::FileError;
use sealane_trust::grpc::{ChannelError, DialOptions, channel};
use sealane_trust::join::{PinnedRoot, TokenError};
use sealane_trust::key::{KeyError, PrivateKey};
use sealane_trust::tls::{self, Identity, IdentityError};
use sealane_trust::{CertificateDer, pem};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// How long one call may take.
const CALL: Duration = Duration::from_secs(10);

/// Joining or renewing failed.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The token is refused, or not for a cluster.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The token admits a server.
    #[error("the join token is for a federation server: make one with `sealane token create --cluster NAME`")]
    NotForACluster,
    /// No token was given and the cluster has not joined.
    #[error(
        "this cluster has not joined: give --join-token-file (from `sealane token create --cluster NAME`), or \
         --join-token-projected (see `sealane cluster add`)"
    )]
    NoToken,
    /// A token of an issuer was given in a join token's place.
    #[error("this is a token of an issuer and no join token: give it as --join-token-projected")]
    Projected,
    /// The store refused.
    #[error("{}", .0.message())]
    Call(Box<tonic::Status>),
    /// No server could be dialled.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The reply makes no sense; the server is to blame.
    #[error("the federation's reply is refused: {0}")]
    Reply(String),
    /// A key could not be made or kept.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The request could not be made.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// What joining brought, or is to bring, can not be kept or found.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The certificate can not be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The roots can not be used.
    #[error(transparent)]
    Roots(#[from] BundleError),
    /// A PEM file is damaged.
    #[error(transparent)]
    Pem(#[from] pem::PemError),
}

impl EnrollError {
    /// Whether trying again later can help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        use tonic::Code;
        match self {
            EnrollError::Call(status) => !matches!(
                status.code(),
                Code::PermissionDenied
                    | Code::Unauthenticated
                    | Code::InvalidArgument
                    | Code::NotFound
                    | Code::AlreadyExists
                    // A used or expired token.
                    | Code::FailedPrecondition
            ),
            EnrollError::Vault(error) => error.is_transient(),
            _ => false,
        }
    }
}

// Not as a source: its text would follow once more, with the code that is for programs.
impl From<Box<tonic::Status>> for EnrollError {
    fn from(status: Box<tonic::Status>) -> Self {
        EnrollError::Call(status)
    }
}

impl From<NameError> for EnrollError {
    fn from(e: NameError) -> Self {
        EnrollError::Reply(e.to_string())
    }
}

/// Joins. The key is kept before it is shown, so that a joiner that fell over half-way may retry.
///
/// # Errors
/// When no server admits it; [`Ticket::may_pass`] tells whether to try again.
pub async fn join(vault: &Vault, ticket: &Ticket) -> Result<Credentials, EnrollError> {
    let key = vault.joining_key().await?;
    let brought = admit(ticket, &key).await?;
    Ok(vault.keep(None, brought).await?)
}

/// Asks to be admitted with a key.
async fn admit(ticket: &Ticket, key: &PrivateKey) -> Result<Credentials, EnrollError> {
    let request = ticket.request(&Csr::create(key)?)?;
    let pinned = Arc::new(PinnedRoot::new(ticket.root()));
    let tls = tls::client_config(None, pinned.clone(), &[tls::ALPN_H2]);
    let channel = channel(ticket.servers(), tls, &DialOptions::default())?;
    let reply = bounded(EnrollClient::new(channel).join(request)).await?;
    let bundle = pinned.bundle().ok_or_else(|| EnrollError::Reply("no server was verified".to_owned()))?;
    let membership = membership(&reply, ticket.federation(), &bundle)?;
    let roots = roots(reply.roots, &bundle, &membership)?;
    let chain: Vec<CertificateDer<'static>> = reply.chain.into_iter().map(CertificateDer::from).collect();
    let identity = Identity::new(chain, key)?;
    check_identity(&identity, &membership)?;
    Ok(credentials(membership, &identity, key, &roots))
}

fn credentials(membership: Membership, identity: &Identity, key: &PrivateKey, roots: &Bundle) -> Credentials {
    let text = format!("{}{}", key.to_pem().as_str(), pem::encode_certificates(&identity.chain()));
    Credentials {
        membership,
        identity: Zeroizing::new(text.into_bytes()),
        roots: pem::encode_certificates(roots.roots()),
    }
}

fn membership(
    reply: &wire::JoinReply,
    federation: FederationId,
    pinned: &Bundle,
) -> Result<Membership, EnrollError> {
    let refuse = |reason: &str| EnrollError::Reply(reason.to_owned());
    let Some(Joined::Cluster(cluster)) = &reply.joined else {
        return Err(refuse("it does not admit a cluster"));
    };
    if reply.federation != federation.0 {
        return Err(refuse("it comes from another federation than the token's"));
    }
    let membership = Membership {
        federation,
        federation_domain: reply.trust_domain.parse()?,
        cluster_id: ClusterId(cluster.id),
        cluster: cluster.name.parse()?,
        trust_domain: cluster.trust_domain.parse()?,
        servers: reply.servers.clone(),
    };
    if membership.federation_domain != *pinned.trust_domain() {
        return Err(refuse("its trust domain is not the one of the pinned root"));
    }
    if membership.servers.is_empty() {
        return Err(refuse("it names no servers"));
    }
    Ok(membership)
}

/// The federation's roots: those of the reply, which must hold the one that was verified.
fn roots(given: Vec<Vec<u8>>, verified: &Bundle, membership: &Membership) -> Result<Bundle, EnrollError> {
    let roots: Vec<CertificateDer<'static>> = given.into_iter().map(CertificateDer::from).collect();
    if !verified.roots().iter().any(|root| roots.contains(root)) {
        return Err(EnrollError::Reply("its roots lack the one that this server was verified by".to_owned()));
    }
    Ok(Bundle::new(membership.federation_domain.clone(), roots)?)
}

fn check_identity(identity: &Identity, membership: &Membership) -> Result<(), EnrollError> {
    let svid = identity.current();
    let principal = svid.spiffe_id.principal(&membership.federation_domain);
    let ours = principal == Some(Principal::Agent(membership.cluster.clone()))
        && svid.cluster_id == Some(membership.cluster_id);
    if ours {
        Ok(())
    } else {
        Err(EnrollError::Reply(format!("its certificate speaks for {}", svid.spiffe_id)))
    }
}

/// What joining or renewing brought, to be used: the identity and the federation's roots.
///
/// # Errors
/// When they are damaged.
pub fn load(kept: &Credentials) -> Result<(Identity, Bundle), EnrollError> {
    let identity = Identity::new(pem::certificates(&kept.identity)?, &PrivateKey::from_pem(&kept.identity)?)?;
    check_identity(&identity, &kept.membership)?;
    let roots = pem::certificates(kept.roots.as_bytes())?;
    Ok((identity, Bundle::new(kept.membership.federation_domain.clone(), roots)?))
}

async fn ask(store: &Store) -> Result<Credentials, EnrollError> {
    let key = PrivateKey::generate()?;
    let request = wire::RenewRequest { csr: Csr::create(&key)?.der().to_vec() };
    let reply = bounded(EnrollClient::new(store.channel()?).renew(request)).await?;
    let mut membership = store.membership();
    let roots = roots(reply.roots, &store.roots(), &membership)?;
    let chain: Vec<CertificateDer<'static>> = reply.chain.into_iter().map(CertificateDer::from).collect();
    let renewed = Identity::new(chain, &key)?;
    check_identity(&renewed, &membership)?;
    if !reply.servers.is_empty() {
        membership.servers = reply.servers;
    }
    Ok(credentials(membership, &renewed, &key, &roots))
}

async fn bounded<T>(
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, EnrollError> {
    match tokio::time::timeout(CALL, call).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) => Err(Box::new(status).into()),
        Err(_) => Err(Box::new(tonic::Status::deadline_exceeded("no server answered within 10 s")).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_used_or_expired_is_refused_for_good_and_by_its_reason_alone() {
        let said = "the join token was consumed by another key: make another";
        let used = EnrollError::from(Box::new(tonic::Status::failed_precondition(said)));
        assert!(!used.is_transient());
        let error = anyhow::Error::from(used).context("not admitted");
        assert_eq!(format!("{error:#}"), format!("not admitted: {said}"));
        assert!(EnrollError::from(Box::new(tonic::Status::unavailable("no leader"))).is_transient());
    }
}

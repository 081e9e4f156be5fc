//! Our SVID: got once by a single-use token, renewed at half-life by itself, exchanged under running connections.
//!
//! The key is made here and never leaves. With a state directory it is kept there (0600), so that a restarted proxy
//! needs neither token nor agent. The agent is known by the roots in the token and its identity `sealane/agent`.

mod token;

pub(crate) use token::{Agent, TokenError};

use crate::telemetry::Metrics;
use rustls::pki_types::CertificateDer;
use sealane_core::identity::SpiffeId;
use sealane_core::name::TrustDomain;
use sealane_proto::agent::v1 as wire;
use sealane_proto::agent::v1::identity_client::IdentityClient;
use sealane_trust::bundle::{Bundle, BundleError};
use sealane_trust::csr::{Csr, CsrError};
use sealane_trust::file::{self, Access, FileError};
use sealane_trust::grpc::{ChannelError, DialOptions, channel};
use sealane_trust::key::{KeyError, PrivateKey};
use sealane_trust::svid::Svid;
use sealane_trust::tls::{self, FederationPeers, Identity, IdentityError};
use sealane_trust::{clock, pem};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::Channel;
use zeroize::Zeroizing;

/// The key that the token is used with, until there is an SVID.
const TOKEN_KEY: &str = "token.key";
/// The SVID: chain and key in one file, so that they always belong together.
const SVID: &str = "svid.pem";
const MAX_CHAIN_FILE: u64 = 128 * 1024;
const CALL: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The least time between two renewals, whatever the certificates say: one that its issuer's own end cut short may be
/// past half of its life when it comes.
const LEAST_BETWEEN: Duration = Duration::from_millis(500);
/// How often a token file that is waited for is looked for.
const TOKEN_LOOK: Duration = Duration::from_secs(1);
/// The wall clock is looked at this often: it may jump, and timers do not follow it.
const LOOK: Duration = Duration::from_secs(15);

/// No identity, and no sense in trying again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityRefused {
    /// The token file.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A file in the state directory.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The request.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// What the agent issued.
    #[error("the agent issued what can not be used: {0}")]
    Identity(#[from] IdentityError),
    /// The agent's roots.
    #[error("the roots of the agent are refused: {0}")]
    Bundle(#[from] BundleError),
    /// The agent's addresses.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The agent says no.
    #[error(
        "the agent refuses to issue an identity: {0}. Make a new token with `sealane-agent workload-token`"
    )]
    Agent(String),
    /// The agent issued for another trust domain than the token's.
    #[error("the agent issued {0}, which is not of the token's trust domain")]
    ForeignIdentity(SpiffeId),
    /// The saved certificate is over, and there is no token.
    #[error(
        "the saved identity is not usable ({0}) and no token is left: make one with `sealane-agent workload-token`"
    )]
    NoToken(&'static str),
}

/// An identity in use, and all that keeps it so.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// What we present.
    pub(crate) identity: Identity,
    agent: Agent,
    policy: Arc<FederationPeers>,
    channel: Channel,
    directory: Option<PathBuf>,
}

/// Where to look for an identity.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    /// The token file.
    pub(crate) token: PathBuf,
    /// Wait for it where it is needed and not there.
    pub(crate) wait: bool,
    /// The state directory.
    pub(crate) directory: Option<PathBuf>,
    /// Dial the agent here, whatever the token says.
    pub(crate) agent: Vec<String>,
    /// The mark on connections to the agent.
    pub(crate) mark: Option<u32>,
}

/// How the agent is dialled.
fn dialling(mark: Option<u32>) -> DialOptions {
    DialOptions { mark, ..DialOptions::default() }
}

fn policy(bundle: Bundle) -> Arc<FederationPeers> {
    let agent = SpiffeId::cluster_agent(bundle.trust_domain());
    Arc::new(FederationPeers::matching(bundle, move |svid| svid.spiffe_id == agent))
}

impl Keeper {
    /// Takes the saved identity, or gets one by the token; waits for the agent as long as that takes.
    ///
    /// # Errors
    /// When it can not be had at all.
    pub(crate) async fn obtain(sources: Sources) -> Result<Self, IdentityRefused> {
        let Sources { token, wait, directory, agent: addresses, mark } = sources;
        let saved = directory.as_deref().and_then(saved);
        let known = directory.as_deref().and_then(Agent::load);
        if wait && (saved.is_none() || known.is_none()) {
            appears(&token).await;
        }
        let token = token::Token::read(&token);
        let (agent, token) = match (token, known) {
            (Ok(token), Some(known)) if saved.is_some() && known.trust_domain == token.agent.trust_domain => {
                (known, Some(token))
            }
            (Ok(token), _) => (token.agent.clone(), Some(token)),
            (Err(_), Some(known)) => (known, None),
            (Err(error), None) => return Err(error.into()),
        };
        let agent = agent.at(addresses);
        let policy = policy(agent.bundle()?);
        let usable =
            saved.filter(|identity| identity.current().spiffe_id.trust_domain() == &agent.trust_domain);
        let identity = match (usable, &token) {
            (Some(identity), _) => identity,
            (None, Some(token)) => issue(&agent, &policy, token, directory.as_deref(), mark).await?,
            (None, None) => return Err(IdentityRefused::NoToken("it is missing, damaged or expired")),
        };
        let tls = tls::client_config(Some(&identity), Arc::clone(&policy) as _, &[tls::ALPN_H2]);
        let channel = channel(&agent.addresses, tls, &dialling(mark))?;
        let keeper = Keeper { identity, agent, policy, channel, directory };
        keeper.remember_agent();
        Ok(keeper)
    }

    /// The channel to the agent, under our identity.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Renews at half-life, for ever.
    pub(crate) async fn keep(self, metrics: Arc<Metrics>) {
        let mut failures = 0u32;
        loop {
            let svid = self.identity.current();
            metrics.certificate_expiry.set(i64::try_from(svid.not_after.0 / 1000).unwrap_or(i64::MAX));
            if failures == 0 {
                wait_until_due(&svid).await;
            }
            match self.renew().await {
                Ok(()) => {
                    failures = 0;
                    tokio::time::sleep(LEAST_BETWEEN).await;
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    let left_s = svid.not_after.since(clock::now()) / 1000;
                    if left_s == 0 {
                        tracing::error!(error, "our certificate expired and can not be renewed");
                    } else {
                        tracing::warn!(error, left_s, "our certificate can not be renewed yet");
                    }
                    tokio::time::sleep(pause(failures, Duration::from_secs(60))).await;
                }
            }
        }
    }

    async fn renew(&self) -> Result<(), String> {
        let key = PrivateKey::generate().map_err(|e| e.to_string())?;
        let csr = Csr::create(&key).map_err(|e| e.to_string())?;
        let mut client = IdentityClient::new(self.channel.clone());
        let call = client.renew(wire::RenewRequest { csr: csr.der().to_vec() });
        let reply =
            tokio::time::timeout(CALL, call).await.map_err(|_| "the agent does not answer".to_owned())?;
        let reply = reply.map_err(|status| sealane_trust::grpc::causes(&status))?.into_inner();
        let chain: Vec<CertificateDer<'static>> = reply.chain.into_iter().map(CertificateDer::from).collect();
        let issued = Identity::new(chain.clone(), &key).map_err(|e| e.to_string())?.current();
        if issued.spiffe_id != self.identity.current().spiffe_id {
            return Err(format!("the agent issued {} instead", issued.spiffe_id));
        }
        self.take_bundle(reply.bundle);
        if let Some(directory) = &self.directory {
            save(directory, &chain, &key).map_err(|e| e.to_string())?;
        }
        self.identity.replace(chain, &key).map_err(|e| e.to_string())?;
        tracing::info!(spiffe_id = %issued.spiffe_id, serial = %issued.serial, "certificate renewed");
        Ok(())
    }

    /// New roots of our own cluster: the agent is known by them from now on.
    fn take_bundle(&self, message: Option<sealane_proto::types::v1::Bundle>) {
        let Some(bundle) = message.and_then(|m| own_bundle(m, &self.agent.trust_domain)) else { return };
        if self.policy.replace(bundle) {
            self.remember_agent();
        }
    }

    fn remember_agent(&self) {
        if let Some(directory) = &self.directory
            && let Err(error) = self.agent.clone().with_roots(&self.policy.bundle()).save(directory)
        {
            tracing::warn!(%error, "can not save where the agent is");
        }
    }
}

fn own_bundle(message: sealane_proto::types::v1::Bundle, own: &TrustDomain) -> Option<Bundle> {
    use sealane_proto::convert::Wire;
    let bundle = sealane_core::trust::Bundle::from_wire(message).ok().filter(|b| b.trust_domain == *own)?;
    let roots = bundle.roots.into_iter().map(CertificateDer::from).collect();
    Bundle::new(bundle.trust_domain, roots).ok()
}

/// Waits until there is a token file, whatever is in it.
async fn appears(token: &Path) {
    if token.exists() {
        return;
    }
    tracing::warn!(path = %token.display(), "waiting for the token file: make it with `sealane-agent workload-token`");
    while !token.exists() {
        tokio::time::sleep(TOKEN_LOOK).await;
    }
}

/// The identity kept on disk, when it still serves.
fn saved(directory: &Path) -> Option<Identity> {
    let text = file::read_private(&directory.join(SVID), MAX_CHAIN_FILE).ok()?;
    let identity = Identity::new(pem::certificates(&text).ok()?, &PrivateKey::from_pem(&text).ok()?).ok()?;
    (!identity.current().is_expired(clock::now())).then_some(identity)
}

fn save(
    directory: &Path,
    chain: &[CertificateDer<'static>],
    key: &PrivateKey,
) -> Result<(), IdentityRefused> {
    let mut text = Zeroizing::new(pem::encode_certificates(chain));
    text.push_str(&key.to_pem());
    file::write(&directory.join(SVID), text.as_bytes(), Access::Private)?;
    Ok(())
}

/// The key that the token is bound to, or will be: the same one after a crash, because only it may retry.
fn key_for_token(directory: Option<&Path>) -> Result<PrivateKey, IdentityRefused> {
    let Some(path) = directory.map(|d| d.join(TOKEN_KEY)) else { return Ok(PrivateKey::generate()?) };
    if path.exists() {
        return Ok(PrivateKey::read_file(&path)?);
    }
    let key = PrivateKey::generate()?;
    key.write_file(&path)?;
    Ok(key)
}

async fn issue(
    agent: &Agent,
    policy: &Arc<FederationPeers>,
    token: &token::Token,
    directory: Option<&Path>,
    mark: Option<u32>,
) -> Result<Identity, IdentityRefused> {
    let key = key_for_token(directory)?;
    let csr = Csr::create(&key)?;
    let tls = tls::client_config(None, Arc::clone(policy) as _, &[tls::ALPN_H2]);
    let channel = channel(&agent.addresses, tls, &dialling(mark))?;
    let reply = ask(channel, token, &csr).await?;
    let chain: Vec<CertificateDer<'static>> = reply.chain.into_iter().map(CertificateDer::from).collect();
    let identity = Identity::new(chain.clone(), &key)?;
    let spiffe_id = identity.current().spiffe_id;
    if spiffe_id.trust_domain() != &agent.trust_domain {
        return Err(IdentityRefused::ForeignIdentity(spiffe_id));
    }
    if let Some(directory) = directory {
        save(directory, &chain, &key)?;
    }
    if let Some(bundle) = reply.bundle.and_then(|b| own_bundle(b, &agent.trust_domain)) {
        policy.replace(bundle);
    }
    tracing::info!(%spiffe_id, "identity issued");
    Ok(identity)
}

/// Asks until the agent answers; a refusal is final.
async fn ask(channel: Channel, token: &token::Token, csr: &Csr) -> Result<wire::IssueReply, IdentityRefused> {
    use tonic::Code;
    let mut client = IdentityClient::new(channel);
    let mut failures = 0u32;
    loop {
        let request = wire::IssueRequest { token: token.secret().to_vec(), csr: csr.der().to_vec() };
        let why = match tokio::time::timeout(CALL, client.issue(request)).await {
            Ok(Ok(reply)) => return Ok(reply.into_inner()),
            Ok(Err(status)) => match status.code() {
                Code::InvalidArgument
                | Code::PermissionDenied
                | Code::Unauthenticated
                | Code::NotFound
                | Code::FailedPrecondition
                | Code::AlreadyExists => {
                    return Err(IdentityRefused::Agent(status.message().to_owned()));
                }
                _ => sealane_trust::grpc::causes(&status),
            },
            Err(_) => "no answer".to_owned(),
        };
        failures = failures.saturating_add(1);
        tracing::warn!(error = why, failures, "the agent can not be asked for an identity yet");
        tokio::time::sleep(pause(failures, LONGEST_PAUSE)).await;
    }
}

fn pause(failures: u32, longest: Duration) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.min(12)).min(longest).mul_f64(rand::random_range(0.5..1.0))
}

/// Waits for half-life, less up to a tenth of it so that proxies started together do not renew together.
async fn wait_until_due(svid: &Svid) {
    let half = svid.half_life().since(svid.not_before);
    let early = half / 10;
    let jitter = if early == 0 { 0 } else { rand::random_range(0..early) };
    let due = svid.half_life().0.saturating_sub(jitter);
    loop {
        let left = Duration::from_millis(due.saturating_sub(clock::now().0));
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK)).await;
    }
}

//! Clusters that are members by enrolment, as any agent is: a token of the administrator, a key, a certificate.

use anyhow::{Context, Result, bail, ensure};
use sealane::commands::admin;
use sealane::context::Context as AdminContext;
use sealane::local::Federation;
use sealane_core::identity::FederationId;
use sealane_core::name::TrustDomain;
use sealane_proto::federation::v1 as pb;
use sealane_proto::federation::v1::admin_client::AdminClient;
use sealane_proto::federation::v1::create_token_request::Scope;
use sealane_proto::federation::v1::enroll_client::EnrollClient;
use sealane_trust::CertificateDer;
use sealane_trust::bundle::{Bundle, RootHash};
use sealane_trust::csr::Csr;
use sealane_trust::grpc::{DialOptions, channel};
use sealane_trust::join::{JoinToken, PinnedRoot, TokenKind};
use sealane_trust::key::PrivateKey;
use sealane_trust::tls::{ALPN_H2, FederationPeers, Identity, client_config};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// How long a server may say that it is not ready yet.
const PATIENCE: Duration = Duration::from_secs(20);
/// The time between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// Has clusters admitted. Clones share its connection.
#[derive(Debug, Clone)]
pub(crate) struct Registrar {
    admin: AdminClient<Channel>,
    federation: FederationId,
    bundle: Bundle,
    /// Where the servers are.
    pub(crate) servers: Vec<String>,
}

/// A cluster that joined.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// Its name.
    pub(crate) name: String,
    /// The trust domain of its workloads.
    pub(crate) trust_domain: TrustDomain,
    /// The federation that it joined.
    pub(crate) federation: FederationId,
    identity: Identity,
    servers: Bundle,
}

impl Registrar {
    /// Of a federation that runs.
    ///
    /// # Errors
    /// When the administrator's context can not be used.
    pub(crate) fn of(federation: &Federation) -> Result<Self> {
        let context = AdminContext::load(&federation.context)?;
        let bundle = Bundle::new(context.trust_domain().clone(), context.roots().to_vec())?;
        Ok(Registrar {
            admin: admin::connect(&context)?,
            federation: context.federation().parse()?,
            bundle,
            servers: federation.servers.iter().map(|s| s.grpc.to_string()).collect(),
        })
    }

    /// A new member.
    ///
    /// # Errors
    /// When it is not admitted.
    pub(crate) async fn enrol(&self, name: &str) -> Result<Member> {
        let token = self.token(name).await.with_context(|| format!("a token for {name}"))?;
        self.join(name, &token).await.with_context(|| format!("{name} can not join"))
    }

    async fn token(&self, name: &str) -> Result<JoinToken> {
        let root = RootHash::of(self.bundle.roots().first().context("no root")?);
        let token = JoinToken::new(self.federation, TokenKind::Cluster, root, self.servers.clone())?;
        let any = vec!["*".to_owned()];
        let scope = pb::ClusterScope {
            name: name.to_owned(),
            trust_domain: String::new(),
            exports: any.clone(),
            imports: any,
        };
        let request = pb::CreateTokenRequest {
            key: admin::key()?,
            secret_hash: token.secret_hash().to_vec(),
            ttl_s: 600,
            scope: Some(Scope::Cluster(scope)),
        };
        self.admin.clone().create_token(request).await?;
        Ok(token)
    }

    async fn join(&self, name: &str, token: &JoinToken) -> Result<Member> {
        let key = PrivateKey::generate()?;
        let tls = client_config(None, Arc::new(PinnedRoot::new(token.root_hash)), &[ALPN_H2]);
        let channel = channel(&self.servers, tls, &DialOptions::default())?;
        let request = pb::JoinRequest {
            secret: token.secret().to_vec(),
            csr: Csr::create(&key)?.der().to_vec(),
            projected: None,
        };
        let client = EnrollClient::new(channel);
        let reply = patiently(|| {
            let (mut client, request) = (client.clone(), request.clone());
            async move { Ok(client.join(request).await?.into_inner()) }
        })
        .await?;
        let Some(pb::join_reply::Joined::Cluster(joined)) = reply.joined else {
            bail!("the federation admitted something else than a cluster");
        };
        ensure!(joined.name == name, "the federation admitted {} instead", joined.name);
        let chain = reply.chain.into_iter().map(CertificateDer::from).collect();
        Ok(Member {
            name: joined.name,
            trust_domain: TrustDomain::parse(&joined.trust_domain)?,
            federation: self.federation,
            identity: Identity::new(chain, &key)?,
            servers: self.bundle.clone(),
        })
    }
}

/// Tries again while a server is not ready for it yet: one lags behind the one that admitted the cluster, or has
/// other joiners to see to.
///
/// # Errors
/// When it is refused for another reason, or for too long.
pub(crate) async fn patiently<T, F: Future<Output = Result<T>>>(mut call: impl FnMut() -> F) -> Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        let error = match call().await {
            Err(error) if Instant::now() < end => error,
            done => return done,
        };
        let passing = |s: &Status| matches!(s.code(), Code::Unavailable | Code::ResourceExhausted);
        if !error.downcast_ref::<Status>().is_some_and(passing) {
            return Err(error);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Member {
    /// A channel to one server as this cluster's agent.
    ///
    /// # Errors
    /// When the address is malformed.
    pub(crate) fn channel(&self, server: &str) -> Result<Channel> {
        let policy = Arc::new(FederationPeers::servers(self.servers.clone()));
        let tls = client_config(Some(&self.identity), policy, &[ALPN_H2]);
        Ok(channel(&[server.to_owned()], tls, &DialOptions::default())?)
    }
}

//! Clusters that joined a federation, as their agents do: a token each, a key, and the certificate that it brings.

use anyhow::{Context, Result, bail, ensure};
use sealane::commands::admin;
use sealane::context::Context as AdminContext;
use sealane_core::identity::FederationId;
use sealane_proto::federation::v1 as pb;
use sealane_proto::federation::v1::create_token_request::Scope;
use sealane_proto::federation::v1::enroll_client::EnrollClient;
use sealane_proto::federation::v1::join_reply::Joined;
use sealane_trust::CertificateDer;
use sealane_trust::bundle::RootHash;
use sealane_trust::csr::Csr;
use sealane_trust::grpc::{DialOptions, channel};
use sealane_trust::join::{JoinToken, PinnedRoot, TokenKind};
use sealane_trust::key::PrivateKey;
use sealane_trust::tls::{ALPN_H2, FederationPeers, Identity, client_config};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// How many join at a time.
const AT_ONCE: usize = 16;
/// How often one tries that is not admitted for now, and how long it waits before each.
const TRIES: usize = 200;
const PAUSE: Duration = Duration::from_millis(200);

/// A cluster that joined.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// Its name.
    pub(crate) name: String,
    /// Its federation.
    pub(crate) federation: FederationId,
    identity: Identity,
    servers: Arc<FederationPeers>,
}

impl Member {
    /// A connection of its own to one server.
    ///
    /// # Errors
    /// When the address is malformed.
    pub(crate) fn dial(&self, server: &str) -> Result<Channel> {
        let tls = client_config(Some(&self.identity), self.servers.clone(), &[ALPN_H2]);
        Ok(channel(&[server.to_owned()], tls, &DialOptions::default())?)
    }
}

/// Has that many clusters join.
///
/// # Errors
/// When one can not.
pub(crate) async fn enrol(context: &Path, count: usize) -> Result<Vec<Member>> {
    let context = Arc::new(AdminContext::load(context)?);
    let mut members = Vec::with_capacity(count);
    let mut joining = JoinSet::new();
    for number in 0..count {
        if joining.len() == AT_ONCE
            && let Some(joined) = joining.join_next().await
        {
            members.push(joined??);
        }
        joining.spawn(join(context.clone(), number));
    }
    while let Some(joined) = joining.join_next().await {
        members.push(joined??);
    }
    members.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(members)
}

async fn join(context: Arc<AdminContext>, number: usize) -> Result<Member> {
    let name = format!("bench-{number:03}");
    let mut token = token(&context, &name).await.with_context(|| format!("no token for {name}"))?;
    let first = number % token.endpoints.len().max(1);
    token.endpoints.rotate_left(first);
    let key = PrivateKey::generate()?;
    let pinned = Arc::new(PinnedRoot::new(token.root_hash));
    let tls = client_config(None, pinned.clone(), &[ALPN_H2]);
    let channel = channel(&token.endpoints, tls, &DialOptions::default())?;
    let request = pb::JoinRequest {
        secret: token.secret().to_vec(),
        csr: Csr::create(&key)?.der().to_vec(),
        projected: None,
    };
    let reply = admitted(EnrollClient::new(channel), request).await;
    let reply = reply.with_context(|| format!("{name} can not join"))?;
    let Some(Joined::Cluster(joined)) = reply.joined else { bail!("{name} joined as something else") };
    ensure!(joined.name == name, "{name} joined as {}", joined.name);
    let chain: Vec<_> = reply.chain.into_iter().map(CertificateDer::from).collect();
    let identity = Identity::new(chain, &key)?;
    let bundle = pinned.bundle().context("no server was verified")?;
    Ok(Member {
        name,
        federation: token.federation,
        identity,
        servers: Arc::new(FederationPeers::servers(bundle)),
    })
}

/// Joins, again after a while where a server admits nobody for now: each admits 20 a second.
async fn admitted(
    mut client: EnrollClient<Channel>,
    request: pb::JoinRequest,
) -> Result<pb::JoinReply, Status> {
    let mut tries = 0;
    loop {
        match client.join(request.clone()).await {
            Err(status) if status.code() == Code::ResourceExhausted && tries < TRIES => tries += 1,
            done => return done.map(tonic::Response::into_inner),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn token(context: &AdminContext, name: &str) -> Result<JoinToken> {
    let root = RootHash::of(context.roots().first().context("the context has no roots")?);
    let servers = context.servers().iter().map(|s| s.grpc.clone()).collect();
    let token = JoinToken::new(context.federation().parse()?, TokenKind::Cluster, root, servers)?;
    let everything = vec!["*".to_owned()];
    let scope = pb::ClusterScope {
        name: name.to_owned(),
        exports: everything.clone(),
        imports: everything,
        ..Default::default()
    };
    let request = pb::CreateTokenRequest {
        key: admin::key()?,
        secret_hash: token.secret_hash().to_vec(),
        ttl_s: 600,
        scope: Some(Scope::Cluster(scope)),
    };
    admin::connect(context)?.create_token(request).await?;
    Ok(token)
}

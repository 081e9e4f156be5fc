//! `join`: become a further server.
//!
//! The key is on the disk before the token is spent, so that a join whose answer was lost can be repeated: the
//! federation knows the key that consumed the token.

use super::directory::{Directory, Identity, make_empty};
use super::init::open_alone;
use crate::args::JoinArgs;
use crate::consensus::open::Bootstrap;
use crate::pki::Pki;
use anyhow::{Context, bail};
use sealane_core::identity::ServerId;
use sealane_proto::federation::v1::enroll_client::EnrollClient;
use sealane_proto::federation::v1::{JoinReply, JoinRequest, JoinedServer, join_reply::Joined};
use sealane_trust::CertificateDer;
use sealane_trust::csr::Csr;
use sealane_trust::file;
use sealane_trust::grpc::{DialOptions, causes, channel};
use sealane_trust::join::{JoinToken, PinnedRoot, TokenKind};
use sealane_trust::key::PrivateKey;
use sealane_trust::tls::{ALPN_H2, client_config};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const MAX_TOKEN: u64 = 16 * 1024;
/// How long one server may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Joins a federation.
///
/// # Errors
/// When no server of the token admits this one.
pub async fn join(args: JoinArgs) -> anyhow::Result<()> {
    let token = read_token(&args.token_file)?;
    if token.kind != TokenKind::Server {
        bail!("this token admits a cluster's agent: make one with `sealane token create --server`");
    }
    args.addresses.check()?;
    if args.dir.join("server.json").exists() {
        bail!("{} holds a server already: start it with `run`", args.dir.display());
    }
    make_empty(&args.dir, Some(Path::new("pki")))?;
    let key = kept_key(&args.dir)?;
    let csr = Csr::create(&key)?;
    let reply = ask_each(&token, &csr).await?;
    let Some(Joined::Server(joined)) = reply.joined else {
        bail!("the federation admitted something else than a server");
    };
    let id = ServerId(joined.id);
    let chain = reply.chain.into_iter().map(CertificateDer::from).collect();
    let pki = Pki::join(&args.dir, key, chain, id)?;
    if pki.root_hash() != token.root_hash {
        bail!("the federation sent an issuer of another root than the token pins");
    }
    let identity = Identity {
        federation: token.federation,
        trust_domain: pki.issuer.trust_domain().clone(),
        server: id,
        address: args.addresses.address,
        status_address: args.addresses.status_address,
        peers: known(&joined),
    };
    let directory = Directory { path: args.dir, identity };
    open_alone(&directory, Bootstrap::Join).await?.shutdown().await;
    directory.store()?;
    tracing::info!(server = %id, dir = %directory.path.display(), "admitted: start it with `run`");
    Ok(())
}

fn known(joined: &JoinedServer) -> crate::peers::Known {
    joined.peers.iter().map(|p| (ServerId(p.id), p.address.clone())).collect()
}

fn read_token(path: &Path) -> anyhow::Result<JoinToken> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().take(MAX_TOKEN).read_to_string(&mut text).context("can not read the token")?;
        return Ok(text.parse()?);
    }
    let bytes = file::read_private(path, MAX_TOKEN)?;
    Ok(std::str::from_utf8(&bytes).context("the token file is not text")?.parse()?)
}

/// The key of an earlier try, or a new one that is kept.
fn kept_key(dir: &Path) -> anyhow::Result<PrivateKey> {
    let path = dir.join("pki").join("issuer.key");
    if path.exists() {
        return Ok(PrivateKey::read_file(&path)?);
    }
    std::fs::create_dir_all(dir.join("pki"))?;
    let key = PrivateKey::generate()?;
    key.write_file(&path)?;
    Ok(key)
}

/// Any server can consume the token, but only one that holds the root's key can admit a server.
async fn ask_each(token: &JoinToken, csr: &Csr) -> anyhow::Result<JoinReply> {
    let mut refusals = Vec::new();
    for endpoint in &token.endpoints {
        let policy = Arc::new(PinnedRoot::new(token.root_hash));
        let tls = client_config(None, policy, &[ALPN_H2]);
        let channel = channel(std::slice::from_ref(endpoint), tls, &DialOptions::default())?;
        let request =
            JoinRequest { secret: token.secret().to_vec(), csr: csr.der().to_vec(), projected: None };
        match timeout(PATIENCE, EnrollClient::new(channel).join(request)).await {
            Ok(Ok(reply)) => return Ok(reply.into_inner()),
            Ok(Err(status)) if status.message().is_empty() => {
                refusals.push(format!("{endpoint}: {}", causes(&status)))
            }
            Ok(Err(status)) => refusals.push(format!("{endpoint}: {}", status.message())),
            Err(_) => refusals.push(format!("{endpoint}: no answer within {} s", PATIENCE.as_secs())),
        }
    }
    bail!("no server admitted this one:\n  {}", refusals.join("\n  "))
}

//! `sealane token create`: the secret is made here, and the servers see only its hash.

use super::admin;
use crate::context::Context as AdminContext;
use crate::output::{self, Format};
use anyhow::{Context, Result, bail};
use clap::{ArgGroup, Args, Subcommand};
use sealane_core::identity::FederationId;
use sealane_core::name::{ClusterName, TrustDomain};
use sealane_proto::federation::v1::create_token_request::Scope;
use sealane_proto::federation::v1::{ClusterScope, CreateTokenReply, CreateTokenRequest, ServerScope};
use sealane_trust::bundle::RootHash;
use sealane_trust::file::{self, Access};
use sealane_trust::join::{JoinToken, TokenKind};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// `sealane token`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a single-use token by which one cluster, or one server, joins.
    #[command(
        after_help = "Examples:\n  sealane token create --cluster east --out east.token\n  sealane token create \
                            --cluster edge --exports 'edge-*' --imports shop --ttl 10m --out edge.token\n  sealane \
                            token create --server --out server.token\n\nThe token is a secret: hand it over as a \
                            file, never on a command line."
    )]
    Create(CreateArgs),
}

/// `sealane token create`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("scope").required(true).args(["cluster", "server"]))]
pub struct CreateArgs {
    /// The name of the cluster that joins by it.
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<ClusterName>,
    /// For a further federation server.
    #[arg(long)]
    pub server: bool,
    /// The cluster's trust domain [default: NAME.FEDERATION-TRUST-DOMAIN].
    #[arg(long, requires = "cluster")]
    pub trust_domain: Option<TrustDomain>,
    /// Namespaces that the cluster may export from, as patterns in which `*` stands for anything and a leading
    /// `!` takes away; repeat for several [default: `*`, `!kube-*` and `!sealane-system`].
    #[arg(long, value_name = "PATTERN", requires = "cluster")]
    pub exports: Vec<String>,
    /// Namespaces that the cluster may import into; repeat for several [default: *].
    #[arg(long, value_name = "PATTERN", requires = "cluster")]
    pub imports: Vec<String>,
    /// How long it may be used: a whole number and s, m, h or d.
    #[arg(long, default_value = "1h", value_parser = span)]
    pub ttl: Duration,
    /// The file to write (mode 0600); standard output when absent.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// What is printed about a token that went into a file.
#[derive(Debug, Serialize)]
struct Made {
    file: PathBuf,
    expires_ms: u64,
}

/// What is printed of a token that went into no file.
#[derive(Serialize)]
struct Shown<'a> {
    token: &'a str,
    expires_ms: u64,
}

/// Makes a token.
///
/// # Errors
/// When it is refused or can not be written.
pub async fn run(context: &AdminContext, command: TokenCommand, format: Format) -> Result<()> {
    let TokenCommand::Create(args) = command;
    if let Some(file) = args.out.as_ref().filter(|f| f.exists()) {
        bail!("{} exists: a token is not written over another file", file.display());
    }
    let (token, expires_ms) = create(context, &args).await?;
    let text = token.to_text();
    let Some(path) = args.out else {
        return output::print(format, &Shown { token: &text, expires_ms }, |shown| shown.token.to_owned());
    };
    file::write(&path, text.as_bytes(), Access::Private)?;
    output::print(format, &Made { file: path, expires_ms }, |made| {
        format!("wrote {} (single use, for {} at most)", made.file.display(), output::ago(args.ttl))
    })
}

/// A token by which one server joins.
///
/// # Errors
/// When it is refused.
pub async fn for_server(context: &AdminContext, ttl: Duration) -> Result<JoinToken> {
    let (exports, imports) = (Vec::new(), Vec::new());
    let args =
        CreateArgs { cluster: None, server: true, trust_domain: None, exports, imports, ttl, out: None };
    Ok(create(context, &args).await?.0)
}

async fn create(context: &AdminContext, args: &CreateArgs) -> Result<(JoinToken, u64)> {
    let kind = if args.server { TokenKind::Server } else { TokenKind::Cluster };
    let root = RootHash::of(context.roots().first().context("roots.pem is empty")?);
    let known = context.servers().iter().map(|s| s.grpc.clone()).collect();
    let federation: FederationId = context.federation().parse().context("context.json")?;
    let mut token = JoinToken::new(federation, kind, root, known)?;
    let request = CreateTokenRequest {
        key: admin::key()?,
        secret_hash: token.secret_hash().to_vec(),
        ttl_s: args.ttl.as_secs(),
        scope: Some(scope(args)),
    };
    let mut client = admin::connect(context)?;
    let reply =
        admin::write(context, async || Ok(client.create_token(request.clone()).await?.into_inner())).await?;
    take_reply(context, &mut token, &reply)?;
    Ok((token, reply.expires_ms))
}

/// The token names the servers and the root of the answer; a root that we do not trust is not passed on.
fn take_reply(context: &AdminContext, token: &mut JoinToken, reply: &CreateTokenReply) -> Result<()> {
    let hash: [u8; 32] = reply.root_hash.as_slice().try_into().context("the server named no root")?;
    if !context.roots().iter().any(|root| RootHash::of(root).0 == hash) {
        bail!("the server named a root that is not in the context's roots.pem: make a new context");
    }
    token.root_hash = RootHash(hash);
    if !reply.servers.is_empty() {
        token.endpoints = reply.servers.iter().take(sealane_trust::join::MAX_ENDPOINTS).cloned().collect();
    }
    Ok(())
}

fn scope(args: &CreateArgs) -> Scope {
    match &args.cluster {
        Some(name) => Scope::Cluster(ClusterScope {
            name: name.to_string(),
            trust_domain: args.trust_domain.as_ref().map(ToString::to_string).unwrap_or_default(),
            // Where none are given the server has its defaults.
            exports: args.exports.clone(),
            imports: args.imports.clone(),
        }),
        None => Scope::Server(ServerScope {}),
    }
}

/// A whole number and its unit.
fn span(text: &str) -> Result<Duration, String> {
    let refusal = || format!("{text:?} is not a time: write a whole number and s, m, h or d, as in 30m");
    let unit = text.chars().last().ok_or_else(refusal)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(refusal()),
    };
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| refusal())?;
    let span = Duration::from_secs(number.checked_mul(seconds).ok_or_else(refusal)?);
    if span.is_zero() { Err(refusal()) } else { Ok(span) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(span("90m").unwrap(), Duration::from_secs(5400));
        for bad in ["", "5", "s", "-1s", "0s", "1y", "1.5h", "999999999999999999d"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }
}

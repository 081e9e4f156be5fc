//! `sealane cluster add`.

use super::admin;
use crate::context::Context as AdminContext;
use crate::output::{self, Format};
use anyhow::{Context, Result, ensure};
use clap::{ArgGroup, Args};
use sealane_core::identity::FederationId;
use sealane_core::name::{ClusterName, IssuerName, Subject, TrustDomain};
use sealane_proto::federation::v1::add_cluster_request::{Discovery, GivenKeys, Issuer};
use sealane_proto::federation::v1::{AddClusterReply, AddClusterRequest};
use sealane_trust::bundle::RootHash;
use sealane_trust::{oidc, pem};
use serde::Serialize;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The examples of `--help`.
pub const HELP: &str = "\
Examples:
  kubectl --context east get --raw /openid/v1/jwks | sealane cluster add east --jwks - > east-values.yaml
  sealane cluster add east --oidc-issuer https://oidc.example.org/id/east --oidc-ca east-ca.pem
  sealane cluster add edge --jwks edge.json --oidc-issuer https://kubernetes.default.svc --exports 'edge-*' --imports shop
  helm install sealane-cluster charts/sealane-cluster --namespace sealane-system --values east-values.yaml

With --jwks the keys are those of the file, until the cluster is added again. With --oidc-issuer alone the servers fetch
them (GET URL/.well-known/openid-configuration), again when the issuer changes its keys; they must reach the URL. Tokens
must have the federation's id as their only audience, name the issuer where one is given, and live for a day at most; they
are signed by RS256, ES256 or ES384.";

/// `sealane cluster add`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("keys").required(true).multiple(true).args(["oidc_issuer", "jwks"]))]
pub struct AddArgs {
    /// The cluster's name in the federation.
    pub name: ClusterName,
    /// What its tokens name as their issuer. Without --jwks: an https URL where servers find the issuer's keys.
    #[arg(long, value_name = "URL")]
    pub oidc_issuer: Option<IssuerName>,
    /// The certificate authorities (PEM) by which the issuer is verified; `-` reads standard input [default: those of the
    /// servers' machines].
    #[arg(long, value_name = "FILE", conflicts_with = "jwks")]
    pub oidc_ca: Option<PathBuf>,
    /// The issuer's keys, as `kubectl get --raw /openid/v1/jwks` prints them; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    pub jwks: Option<PathBuf>,
    /// Whom its tokens must speak for.
    #[arg(long, default_value = "system:serviceaccount:sealane-system:sealane-agent")]
    pub subject: Subject,
    /// The cluster's trust domain [default: NAME.FEDERATION-TRUST-DOMAIN, or the one that it has].
    #[arg(long)]
    pub trust_domain: Option<TrustDomain>,
    /// Namespaces that the cluster may export from, as patterns in which `*` stands for anything and a leading `!` takes away;
    /// repeat for several [default: `*`, `!kube-*` and `!sealane-system`, or what it may].
    #[arg(long, value_name = "PATTERN")]
    pub exports: Vec<String>,
    /// Namespaces that the cluster may import into; repeat for several [default: *, or what it may].
    #[arg(long, value_name = "PATTERN")]
    pub imports: Vec<String>,
}

/// What the cluster's agent has to know. None of it is a secret.
#[derive(Debug, Serialize)]
struct Added {
    cluster: String,
    federation: String,
    root: String,
    servers: Vec<String>,
    trust_domain: String,
}

/// Adds a cluster.
///
/// # Errors
/// When a file can not be used, or the write is refused.
pub async fn run(context: &AdminContext, args: AddArgs, format: Format) -> Result<()> {
    let request = AddClusterRequest {
        key: admin::key()?,
        name: args.name.to_string(),
        trust_domain: args.trust_domain.as_ref().map(ToString::to_string).unwrap_or_default(),
        exports: args.exports.clone(),
        imports: args.imports.clone(),
        subject: args.subject.to_string(),
        issuer: Some(issuer(&args)?),
    };
    let mut client = admin::connect(context)?;
    let reply =
        admin::write(context, async || Ok(client.add_cluster(request.clone()).await?.into_inner())).await?;
    output::print(format, &added(context, &args.name, reply)?, values)
}

fn issuer(args: &AddArgs) -> Result<Issuer> {
    let name = args.oidc_issuer.as_ref().map(ToString::to_string).unwrap_or_default();
    let Some(path) = &args.jwks else {
        let authorities = match &args.oidc_ca {
            Some(path) => authorities(path).with_context(|| format!("--oidc-ca {}", path.display()))?,
            None => Vec::new(),
        };
        return Ok(Issuer::Discovery(Discovery { url: name, authorities }));
    };
    let jwks = read(path, oidc::MAX_DOCUMENT).with_context(|| format!("--jwks {}", path.display()))?;
    oidc::keys(&jwks).with_context(|| format!("--jwks {}", path.display()))?;
    Ok(Issuer::Keys(GivenKeys { name, jwks }))
}

fn authorities(path: &Path) -> Result<Vec<Vec<u8>>> {
    let found = pem::certificates(&read(path, pem::MAX_PEM)?)?;
    Ok(found.iter().map(|authority| authority.to_vec()).collect())
}

/// One byte more than is taken, so that what is too large is called that.
fn read(path: &Path, most: usize) -> Result<Vec<u8>> {
    let most = most as u64 + 1;
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().take(most).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// A root that we do not trust is not passed on.
fn added(context: &AdminContext, name: &ClusterName, reply: AddClusterReply) -> Result<Added> {
    let root = RootHash(reply.root_hash.as_slice().try_into().context("the server named no root")?);
    ensure!(
        context.roots().iter().any(|known| RootHash::of(known) == root),
        "the server named a root that is not in the context's roots.pem: make a new context"
    );
    let federation =
        FederationId(reply.federation.as_slice().try_into().context("the server named no federation")?);
    ensure!(
        federation.to_string() == context.federation(),
        "the server is of federation {federation}, and the context of {}",
        context.federation()
    );
    Ok(Added {
        cluster: name.to_string(),
        federation: federation.to_string(),
        root: root.to_string(),
        servers: reply.servers,
        trust_domain: reply.trust_domain,
    })
}

/// As values for the chart.
fn values(added: &Added) -> String {
    let mut text = format!(
        "# Cluster {} may join, with trust domain {}. For the chart sealane-cluster; none of this is a secret.\njoin:\n  \
         method: serviceAccount\n  cluster: {}\n  federation: {:?}\n  root: {:?}\n  servers:\n",
        added.cluster, added.trust_domain, added.cluster, added.federation, added.root
    );
    for server in &added.servers {
        text.push_str(&format!("    - {server:?}\n"));
    }
    text.pop();
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: AddArgs,
    }

    #[test]
    fn keys_come_from_a_file_or_from_an_issuer() {
        let parse =
            |more: &[&str]| Line::try_parse_from(["add", "east"].iter().chain(more)).map(|line| line.args);
        assert!(parse(&[]).is_err());
        assert!(parse(&["--jwks", "f", "--oidc-ca", "c"]).is_err());
        assert!(parse(&["--jwks", "f", "--oidc-issuer", "https://a"]).is_ok());
        let args = parse(&["--oidc-issuer", "https://a.example"]).unwrap();
        assert_eq!(args.subject.as_str(), "system:serviceaccount:sealane-system:sealane-agent");
        let expected = Discovery { url: "https://a.example".to_owned(), authorities: Vec::new() };
        assert_eq!(issuer(&args).unwrap(), Issuer::Discovery(expected));
    }

    #[test]
    fn a_file_that_holds_no_keys_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jwks.json");
        std::fs::write(&path, "{}").unwrap();
        let path = path.to_string_lossy().into_owned();
        let line = Line::try_parse_from(["add", "east", "--jwks", &path]).unwrap();
        let said = format!("{:#}", issuer(&line.args).unwrap_err());
        assert!(said.starts_with(&format!("--jwks {path}: this is no set of keys")), "{said}");
    }

    #[test]
    fn what_is_printed_are_values_of_the_chart() {
        let added = Added {
            cluster: "east".to_owned(),
            federation: "07".repeat(16),
            root: "08".repeat(32),
            servers: vec!["[fd00::1]:7443".to_owned(), "b:7443".to_owned()],
            trust_domain: "east.fed".to_owned(),
        };
        let parsed: serde_json::Value = serde_saphyr::from_str(&values(&added)).unwrap();
        let join = serde_json::json!({
            "method": "serviceAccount", "cluster": "east", "federation": "07".repeat(16), "root": "08".repeat(32),
            "servers": ["[fd00::1]:7443", "b:7443"],
        });
        assert_eq!(parsed, serde_json::json!({ "join": join }));
    }
}

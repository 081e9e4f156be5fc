//! The command line, and the plain values that it becomes.

use crate::addresses::Range;
use crate::enroll::Projected;
use crate::index::Selector;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use sealane_core::endpoint::{GatewayAddress, GatewayHost, Locality};
use sealane_core::identity::FederationId;
use sealane_core::name::{
    ClusterName, ClusterUid, DnsName, Namespace, NetworkName, ServiceAccount, TopologyName,
};
use sealane_trust::bundle::RootHash;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The agent of one cluster.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "sealane-agent",
    version,
    about = "Exports a cluster's services to its federation, receives its view and serves its proxies",
    after_help = "EXAMPLES:\n  \
        sealane-agent run --dir /var/lib/sealane --join-token-file token --manifests /etc/sealane/manifests \\\n      \
        --out /run/sealane/out --listen 10.0.0.5:7450 --gateway 10.0.0.9:15443\n  \
        sealane-agent run --dir /var/lib/sealane --join-token-file token --source kubernetes \\\n      \
        --listen 0.0.0.0:7450 --advertise sealane-agent.sealane-system.svc:7450\n  \
        sealane-agent run --dir /var/lib/sealane --source kubernetes --listen 0.0.0.0:7450 --advertise a:7450 \\\n      \
        --join-token-projected token --join-cluster east --join-federation ID --join-root HASH --join-server s:7443\n  \
        sealane-agent workload-token --dir /var/lib/sealane --namespace shop --service-account cart --out cart.token"
)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Which messages to log, as a tracing filter.
    #[arg(long, global = true, env = "SEALANE_LOG", default_value = "info")]
    pub log: String,
    /// How to write them.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// What the agent's binary does.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run the agent.
    #[command(after_help = RUN)]
    Run(Box<RunArgs>),
    /// Write a single-use file by which one proxy gets its first certificate; works beside the running agent.
    #[command(after_help = WORKLOAD_TOKEN)]
    WorkloadToken(WorkloadTokenArgs),
}

const RUN: &str = "\
Examples:
  sealane-agent run --dir /var/lib/sealane --join-token-file token --manifests /etc/sealane/manifests \\
      --out /run/sealane/out --listen 10.0.0.5:7450 --gateway 10.0.0.9:15443
  sealane-agent run --dir /var/lib/sealane --join-token-file token --source kubernetes \\
      --listen 0.0.0.0:7450 --advertise sealane-agent.sealane-system.svc:7450";

const WORKLOAD_TOKEN: &str = "\
Examples:
  sealane-agent workload-token --dir /var/lib/sealane --namespace shop --service-account cart --out cart.token
  sealane-agent workload-token --dir /var/lib/sealane --gateway --out - > gateway.token";

/// The format of log messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `sealane-agent run`.
#[derive(Debug, Clone, ClapArgs)]
pub struct RunArgs {
    /// Where keys, certificates, the last view and import addresses are kept (made with mode 0700).
    #[arg(long)]
    pub dir: PathBuf,
    /// The join token, from `sealane token create`; needed until the cluster has joined, `-` for standard input.
    #[arg(long, conflicts_with = "join_token_projected")]
    pub join_token_file: Option<PathBuf>,
    /// How a cluster joins that was added by `sealane cluster add`.
    #[command(flatten)]
    pub projected: ProjectedArgs,
    /// What this cluster is read from, and its imports are written to.
    #[arg(long, value_enum, default_value_t = SourceKind::Manifests)]
    pub source: SourceKind,
    /// The directory of Kubernetes YAML that describes this cluster; with --source manifests.
    #[arg(long)]
    pub manifests: Option<PathBuf>,
    /// Where ServiceImports, EndpointSlices, ServiceExport conditions and status.json are written; with --source
    /// manifests.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// How the API server is reached, with --source kubernetes [default: as a pod of the cluster].
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// The context of --kubeconfig [default: its current one].
    #[arg(long, requires = "kubeconfig")]
    pub kube_context: Option<String>,
    /// The namespace of the agent's own Lease and Secrets, with --source kubernetes.
    #[arg(long, env = "POD_NAMESPACE", default_value = "sealane-system")]
    pub namespace: Namespace,
    /// What this replica calls itself in the Lease, before a part that is of each process alone, with --source
    /// kubernetes [default: the host's name].
    #[arg(long, env = "POD_NAME")]
    pub replica: Option<String>,
    /// Where this cluster's proxies connect (gRPC over TLS).
    #[arg(long)]
    pub listen: SocketAddr,
    /// HOST:PORT that proxies are told, where it differs from --listen.
    #[arg(long)]
    pub advertise: Option<String>,
    /// The network of this cluster's endpoints; clusters in one network dial endpoints directly [default: cluster name].
    /// A Pod's, else its Node's, annotation `sealane.dev/network` names another one.
    #[arg(long)]
    pub network: Option<NetworkName>,
    /// The region of endpoints whose Node says none.
    #[arg(long)]
    pub region: Option<TopologyName>,
    /// The zone of endpoints whose Node and EndpointSlice say none.
    #[arg(long)]
    pub zone: Option<TopologyName>,
    /// HOST:PORT where other clusters dial this cluster's gateway, and where they probe it; repeat for several.
    #[arg(long = "gateway", value_parser = parse_gateway)]
    pub gateways: Vec<GatewayAddress>,
    /// The range from which imports get their own addresses.
    #[arg(long, default_value = "240.0.0.0/16")]
    pub address_range: Range,
    /// Where /livez, /readyz and /metrics answer, and /status for clients on loopback; plain HTTP.
    #[arg(long, default_value = "127.0.0.1:7451")]
    pub admin_listen: SocketAddr,
    /// Where DNS for clusterset.local is answered, by UDP and TCP; repeat for several. On a host with several addresses
    /// name each: answers from 0.0.0.0 may come from another one than was asked.
    #[arg(long = "dns-listen")]
    pub dns_listen: Vec<SocketAddr>,
    /// Import only into namespaces with these labels: `key=value` or `key`, comma-separated.
    #[arg(long, default_value = "")]
    pub interest_selector: Selector,
    /// How long the certificates of proxies last, and this agent's own towards them: 2s to 24h; renewed at half of it.
    #[arg(long, default_value = "24h", value_parser = parse_ttl)]
    pub svid_ttl: Duration,
    /// How long everything goes on after SIGTERM while /readyz says no: as long as it takes whoever sends here, such as
    /// kube-proxy, to hear of it [default: not at all]. SIGINT, or a second signal, ends that.
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub linger: Option<Duration>,
}

/// What `sealane cluster add` printed, and the token by which the cluster proves itself.
#[derive(Debug, Clone, PartialEq, Eq, ClapArgs)]
pub struct ProjectedArgs {
    /// Join by a token of this cluster's own issuer, now and whenever the identity is lost: a file that is always renewed, as
    /// the kubelet keeps a projected ServiceAccount token whose audience is the federation's id.
    #[arg(
        long,
        value_name = "FILE",
        requires_all = ["join_cluster", "join_federation", "join_root", "join_servers"]
    )]
    pub join_token_projected: Option<PathBuf>,
    /// The name by which the cluster was added.
    #[arg(long, value_name = "NAME", requires = "join_token_projected")]
    pub join_cluster: Option<ClusterName>,
    /// The federation's id.
    #[arg(long, value_name = "ID", requires = "join_token_projected")]
    pub join_federation: Option<FederationId>,
    /// The SHA-256 of the federation's root certificate.
    #[arg(long, value_name = "HASH", requires = "join_token_projected")]
    pub join_root: Option<RootHash>,
    /// HOST:PORT of a federation server; repeat for several.
    #[arg(long = "join-server", value_name = "HOST:PORT", requires = "join_token_projected")]
    pub join_servers: Vec<String>,
}

impl ProjectedArgs {
    /// By what the cluster joins, whichever Kubernetes cluster it is; `None` where it joins by a single-use token.
    #[must_use]
    pub fn projected(&self, uid: Option<ClusterUid>) -> Option<Projected> {
        Some(Projected {
            file: self.join_token_projected.clone()?,
            cluster: self.join_cluster.clone()?,
            federation: self.join_federation?,
            root: self.join_root?,
            servers: self.join_servers.clone(),
            uid,
        })
    }
}

/// Where a cluster is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SourceKind {
    /// A directory of Kubernetes YAML.
    Manifests,
    /// A Kubernetes API server.
    Kubernetes,
}

/// What --source and the arguments that belong to it say together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A directory in, a directory out.
    Manifests {
        /// What describes the cluster.
        manifests: PathBuf,
        /// Where its imports are written.
        out: PathBuf,
    },
    /// An API server.
    Kubernetes(Kubernetes),
}

/// How the agent stands in a Kubernetes cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubernetes {
    /// The file that says how the API server is reached; `None` for a pod of the cluster.
    pub kubeconfig: Option<PathBuf>,
    /// The file's context, where it is not the current one.
    pub context: Option<String>,
    /// The namespace of the agent's own Lease and Secrets.
    pub namespace: Namespace,
    /// What this replica calls itself.
    pub replica: String,
}

/// Arguments of one source were given with, or missed by, another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// One is missing.
    #[error("--source {of} needs {argument}: {why}")]
    Missing {
        /// The source.
        of: &'static str,
        /// The argument.
        argument: &'static str,
        /// What it is for.
        why: &'static str,
    },
    /// One is too many.
    #[error("{argument} is not for --source {of}: {why}")]
    Foreign {
        /// The source.
        of: &'static str,
        /// The argument.
        argument: &'static str,
        /// What to do.
        why: &'static str,
    },
}

impl RunArgs {
    /// The source with all that belongs to it.
    ///
    /// # Errors
    /// When something is missing, or belongs to the other source.
    pub fn source(&self) -> Result<Source, SourceError> {
        match self.source {
            SourceKind::Manifests => self.manifests_source(),
            SourceKind::Kubernetes => self.kubernetes_source(),
        }
    }

    fn manifests_source(&self) -> Result<Source, SourceError> {
        let of = "manifests";
        let missing = |argument, why| SourceError::Missing { of, argument, why };
        if self.kubeconfig.is_some() {
            let why = "give --source kubernetes to read a cluster's API server";
            return Err(SourceError::Foreign { of, argument: "--kubeconfig", why });
        }
        Ok(Source::Manifests {
            manifests: self.manifests.clone().ok_or_else(|| {
                missing(
                    "--manifests",
                    "the directory that describes the cluster (or give --source kubernetes)",
                )
            })?,
            out: self
                .out
                .clone()
                .ok_or_else(|| missing("--out", "the directory that imports are written to"))?,
        })
    }

    fn kubernetes_source(&self) -> Result<Source, SourceError> {
        let of = "kubernetes";
        let foreign = |argument, why| Err(SourceError::Foreign { of, argument, why });
        if self.manifests.is_some() {
            return foreign("--manifests", "the API server describes the cluster");
        }
        if self.out.is_some() {
            return foreign("--out", "imports are written to the API server");
        }
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        Ok(Source::Kubernetes(Kubernetes {
            kubeconfig: self.kubeconfig.clone(),
            context: self.kube_context.clone(),
            namespace: self.namespace.clone(),
            replica: self.replica.clone().filter(|r| !r.is_empty()).unwrap_or_else(host),
        }))
    }

    /// The locality of endpoints that have none of their own.
    #[must_use]
    pub fn locality(&self) -> Locality {
        Locality { region: self.region.clone(), zone: self.zone.clone() }
    }
}

/// `sealane-agent workload-token`.
#[derive(Debug, Clone, ClapArgs)]
pub struct WorkloadTokenArgs {
    /// The running agent's state directory.
    #[arg(long)]
    pub dir: PathBuf,
    /// The namespace of the workload.
    #[arg(long, required_unless_present = "gateway")]
    pub namespace: Option<Namespace>,
    /// The ServiceAccount of the workload.
    #[arg(long, required_unless_present = "gateway")]
    pub service_account: Option<ServiceAccount>,
    /// A gateway of this cluster instead of a workload.
    #[arg(long, conflicts_with_all = ["namespace", "service_account"])]
    pub gateway: bool,
    /// How long the token may be used.
    #[arg(long, default_value = "10m", value_parser = parse_span)]
    pub ttl: Duration,
    /// The file to write (mode 0600); `-` for standard output, as in a pod without a shell.
    #[arg(long)]
    pub out: PathBuf,
}

/// The longest life of a workload certificate.
const MAX_SVID_TTL: Duration = Duration::from_secs(24 * 3600);

fn parse_ttl(text: &str) -> Result<Duration, String> {
    let span = parse_span(text)?;
    if !(Duration::from_secs(2)..=MAX_SVID_TTL).contains(&span) {
        return Err("must be from 2s to 24h".to_owned());
    }
    Ok(span)
}

/// Parses a whole number with the unit s, m, h or d.
fn parse_span(text: &str) -> Result<Duration, String> {
    let refusal = || format!("{text:?} is not a span: write a whole number and s, m, h or d, such as 10m");
    let unit = text.chars().last().ok_or_else(refusal)?;
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| refusal())?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(refusal()),
    };
    let span = Duration::from_secs(number.checked_mul(seconds).ok_or_else(refusal)?);
    if span.is_zero() || span > Duration::from_secs(365 * 86_400) {
        return Err("must be at least 1s and at most 365d".to_owned());
    }
    Ok(span)
}

fn parse_gateway(text: &str) -> Result<GatewayAddress, String> {
    let refusal = || format!("{text:?} is not HOST:PORT");
    let (host, port) = text.rsplit_once(':').ok_or_else(refusal)?;
    let port: u16 = port.parse().ok().filter(|p| *p != 0).ok_or_else(refusal)?;
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let host = match bare.parse::<IpAddr>() {
        Ok(ip) => GatewayHost::Ip(ip),
        Err(_) => GatewayHost::Dns(DnsName::parse(bare).map_err(|e| e.to_string())?),
    };
    Ok(GatewayAddress { host, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    fn source(more: &[&str]) -> Result<Source, SourceError> {
        let base = ["sealane-agent", "run", "--dir", "d", "--listen", "127.0.0.1:0", "--replica", "a-0"];
        let Command::Run(args) = Args::try_parse_from(base.iter().chain(more)).unwrap().command else {
            panic!("another command");
        };
        args.source()
    }

    #[test]
    fn a_source_has_its_own_arguments_and_no_others() {
        let (manifests, out) = (PathBuf::from("m"), PathBuf::from("o"));
        assert_eq!(source(&["--manifests", "m", "--out", "o"]), Ok(Source::Manifests { manifests, out }));
        let kubernetes = Kubernetes {
            kubeconfig: None,
            context: None,
            namespace: "sealane-system".parse().unwrap(),
            replica: "a-0".to_owned(),
        };
        assert_eq!(source(&["--source", "kubernetes"]), Ok(Source::Kubernetes(kubernetes)));
        let refused: [(&[&str], &str); 5] = [
            (&["--out", "o"], "--source manifests needs --manifests"),
            (&["--manifests", "m"], "--source manifests needs --out"),
            (
                &["--manifests", "m", "--out", "o", "--kubeconfig", "k"],
                "--kubeconfig is not for --source manifests",
            ),
            (&["--source", "kubernetes", "--out", "o"], "--out is not for --source kubernetes"),
            (&["--source", "kubernetes", "--manifests", "m"], "--manifests is not for --source kubernetes"),
        ];
        for (given, said) in refused {
            let error = source(given).unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
        }
    }

    #[test]
    fn a_projected_token_goes_with_all_that_was_printed_with_it() {
        let parse = |more: &[&str]| {
            let base = ["sealane-agent", "run", "--dir", "d", "--listen", "127.0.0.1:0"];
            Args::try_parse_from(base.iter().chain(more)).map(|args| match args.command {
                Command::Run(args) => args.projected.projected(None),
                Command::WorkloadToken(_) => panic!("another command"),
            })
        };
        let (id, root) = ("07".repeat(16), "08".repeat(32));
        let all = [
            "--join-token-projected",
            "t",
            "--join-cluster",
            "east",
            "--join-federation",
            &id,
            "--join-root",
            &root,
        ];
        let servers = ["--join-server", "a:1", "--join-server", "b:1"];
        let whole: Vec<&str> = all.iter().chain(&servers).copied().collect();
        let expected = Projected {
            file: PathBuf::from("t"),
            cluster: "east".parse().unwrap(),
            federation: FederationId([7; 16]),
            root: RootHash([8; 32]),
            servers: vec!["a:1".to_owned(), "b:1".to_owned()],
            uid: None,
        };
        assert_eq!(parse(&whole).unwrap(), Some(expected));
        assert_eq!(parse(&[]).unwrap(), None);
        assert!(parse(&all).is_err() && parse(&servers).is_err());
        assert!(parse(&[&whole[..], &["--join-token-file", "f"]].concat()).is_err());
    }

    #[test]
    fn spans_have_units() {
        assert_eq!(parse_span("10m"), Ok(Duration::from_secs(600)));
        for bad in ["", "10", "m", "-1s", "0s", "1w", "99999999999999999999h"] {
            assert!(parse_span(bad).is_err(), "{bad}");
        }
        assert!(parse_ttl("25h").is_err());
    }

    #[test]
    fn a_gateway_is_an_address_or_a_name() {
        assert_eq!(parse_gateway("[::1]:15443").unwrap().to_string(), "[::1]:15443");
        assert_eq!(parse_gateway("gw.example:15443").unwrap().to_string(), "gw.example:15443");
        for bad in ["gw", "gw:", "gw:0", ":1", "GW:1"] {
            assert!(parse_gateway(bad).is_err(), "{bad}");
        }
    }
}

//! What a federation server's pod does before it serves: it founds the federation, joins it, or goes on with its disk.
//!
//! Law: a federation is founded once. Which one it is stands in a Secret, written by the server that founded it at the
//! version that it had read; where one is recorded, an empty disk only joins, and another federation's disk is refused.
//! The decision ([`decide`]) is a function of what disk and Secret say.

mod decide;
mod enter;
mod record;

pub use enter::enter;

use clap::{Args, Subcommand};
use sealane_core::name::{Namespace, TrustDomain};
use std::path::PathBuf;
use std::str::FromStr;

/// `sealane kubernetes`.
#[derive(Debug, Subcommand)]
pub enum KubernetesCommand {
    /// Make this pod's disk a server's: found the federation that a Secret is to record, join the one that it records, or
    /// leave the disk as it is. The charts run it before the server.
    #[command(after_help = ENTER)]
    Enter(EnterArgs),
}

const ENTER: &str = "\
Example:
  sealane kubernetes enter --dir /var/lib/sealane/server --secret sealane-federation --pod sealane-federation-0 \\
      --server sealane-federation-0=s0.example.org:7443,s0.example.org:7444 --admin-out /run/sealane/admin";

/// `sealane kubernetes enter`.
#[derive(Debug, Args)]
pub struct EnterArgs {
    /// The server's directory, as `sealane federation run --dir` takes it.
    #[arg(long)]
    pub dir: PathBuf,
    /// The Secret that records the federation; it must exist, without content at first.
    #[arg(long, value_name = "NAME")]
    pub secret: String,
    /// Its namespace.
    #[arg(long, env = "POD_NAMESPACE", default_value = "sealane-system")]
    pub namespace: Namespace,
    /// The name of this pod, one of those of --server.
    #[arg(long, env = "POD_NAME")]
    pub pod: String,
    /// Each server: its pod, and where others dial its gRPC and its status API. The first of them founds the federation.
    #[arg(long = "server", value_name = "POD=HOST:PORT,HOST:PORT", required = true)]
    pub servers: Vec<Member>,
    /// The trust domain of servers, agents and administrators, when the federation is founded.
    #[arg(long, default_value = "sealane.local")]
    pub trust_domain: TrustDomain,
    /// Where to write an administrator's context; what is there is replaced.
    #[arg(long, value_name = "CONTEXT-DIR")]
    pub admin_out: PathBuf,
    /// How the API server is reached [default: as a pod of the cluster].
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// The context of --kubeconfig [default: its current one].
    #[arg(long, requires = "kubeconfig")]
    pub kube_context: Option<String>,
}

/// One server of the federation, by the name of its pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The pod.
    pub pod: String,
    /// HOST:PORT of gRPC.
    pub address: String,
    /// HOST:PORT of the status API.
    pub status_address: String,
}

impl FromStr for Member {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not POD=HOST:PORT,HOST:PORT");
        let (pod, addresses) = text.split_once('=').ok_or_else(bad)?;
        let (address, status_address) = addresses.split_once(',').ok_or_else(bad)?;
        if pod.is_empty() {
            return Err(bad());
        }
        let address = sealane_federation::args::host_port(address)?;
        let status_address = sealane_federation::args::host_port(status_address)?;
        Ok(Member { pod: pod.to_owned(), address, status_address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_pod_and_two_addresses() {
        let member = "fed-0=fed-0.fed.ns.svc:7443,[fd00::1]:7444".parse::<Member>().unwrap();
        let expected = Member {
            pod: "fed-0".to_owned(),
            address: "fed-0.fed.ns.svc:7443".to_owned(),
            status_address: "[fd00::1]:7444".to_owned(),
        };
        assert_eq!(member, expected);
        for bad in ["", "fed-0", "fed-0=a:1", "=a:1,b:2", "fed-0=a,b:2", "fed-0=0.0.0.0:1,b:2"] {
            assert!(bad.parse::<Member>().is_err(), "{bad}");
        }
    }
}

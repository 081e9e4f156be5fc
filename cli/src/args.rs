//! The command line.

mod examples;
mod unasked;

use crate::app::AppArgs;
use crate::commands::add::AddArgs;
use crate::commands::token::TokenCommand;
use crate::demo::DemoArgs;
use crate::exit;
use crate::kubernetes::KubernetesCommand;
use crate::output::Format;
use crate::uninstall::UninstallArgs;
use clap::{Args as ClapArgs, Parser, Subcommand};
use sealane_core::name::{ClusterName, ServiceKey};
use std::path::PathBuf;

/// Joins clusters into one federation: what one exports is reachable from the others, by name, by identity and
/// encrypted.
#[derive(Debug, Parser)]
#[command(name = "sealane", version, long_about = None, after_help = after_help())]
pub struct Args {
    /// Who is asking, and whom.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

fn after_help() -> String {
    format!(
        "Examples:\n  sealane demo                                        a whole federation on this machine, proving \
         itself\n  sealane status                                      servers, leader, clusters at a glance\n  sealane \
         token create --cluster east --out east.token\n  sealane explain shop/cart --from east               every \
         candidate, chosen or not, and why\n  sealane endpoints shop/cart --from east -o json | jq .\n\n{}",
        exit::HELP
    )
}

/// What every operator command takes.
#[derive(Debug, Clone, ClapArgs)]
pub struct GlobalArgs {
    /// The administrator's context directory [default: ~/.sealane].
    #[arg(long, global = true, env = "SEALANE_CONTEXT", value_name = "DIR")]
    pub context: Option<PathBuf>,
    /// How answers are printed.
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub output: Format,
    /// Ask the leader first, so that the answer has everything that was acknowledged before.
    #[arg(long, global = true)]
    pub consistent: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole federation on this machine and prove what it claims.
    #[command(args = unasked::none())]
    Demo(DemoArgs),
    /// Servers, leader and clusters at a glance.
    #[command(after_help = examples::STATUS)]
    Status,
    /// The clusters: lease, evidence, last heard, certificate expiry.
    #[command(after_help = examples::CLUSTERS)]
    Clusters {
        /// One cluster, in full.
        name: Option<ClusterName>,
    },
    /// The services: who exports them, to how many endpoints, with what conflicts.
    #[command(after_help = examples::SERVICES)]
    Services {
        /// One service, in full.
        #[arg(value_name = "NAMESPACE/NAME")]
        service: Option<ServiceKey>,
    },
    /// Where a cluster's connections to a service can go.
    #[command(after_help = examples::ENDPOINTS)]
    Endpoints(ServiceFrom),
    /// Every place a service could be reached at from a cluster, chosen or not, and why.
    #[command(after_help = examples::EXPLAIN)]
    Explain(ServiceFrom),
    /// Join tokens for clusters and servers.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Membership of clusters.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Membership of servers.
    #[command(subcommand)]
    Server(ServerCommand),
    /// A federation server (as `sealane-federation`).
    #[command(args = unasked::none())]
    Federation(sealane_federation::Args),
    /// A cluster's agent (as `sealane-agent`).
    #[command(args = unasked::none())]
    Agent(sealane_agent::Args),
    /// A data-plane proxy (as `sealane-proxy`).
    #[command(args = unasked::none())]
    Proxy(Box<sealane_proxy::Args>),
    /// Take out of a Kubernetes cluster what its agents wrote there. The chart does it by itself when it is uninstalled.
    #[command(after_help = crate::uninstall::HELP, args = unasked::none())]
    Uninstall(UninstallArgs),
    /// What the charts run beside the components.
    #[command(subcommand, args = unasked::none())]
    Kubernetes(KubernetesCommand),
    /// The demo's application.
    #[command(hide = true)]
    App(AppArgs),
    /// Remove the directory of a demo when the demo is gone.
    #[command(hide = true)]
    Guard {
        /// The directory.
        directory: PathBuf,
    },
}

impl Command {
    /// Whether it asks the servers, by an administrator's context; else the global options say nothing to it.
    #[must_use]
    pub fn asks_servers(&self) -> bool {
        matches!(
            self,
            Command::Status
                | Command::Clusters { .. }
                | Command::Services { .. }
                | Command::Endpoints(_)
                | Command::Explain(_)
                | Command::Token(_)
                | Command::Cluster(_)
                | Command::Server(_)
        )
    }
}

/// A service, as one cluster sees it.
#[derive(Debug, Clone, ClapArgs)]
pub struct ServiceFrom {
    /// The service.
    #[arg(value_name = "NAMESPACE/NAME")]
    pub service: ServiceKey,
    /// The cluster that asks for it.
    #[arg(long, value_name = "CLUSTER")]
    pub from: ClusterName,
}

/// `sealane cluster`.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Let a cluster join by tokens of its own issuer, whenever it wants: there is no secret to copy.
    ///
    /// Prints what its agent has to know, as values for the chart sealane-cluster. For a cluster that was added, it changes
    /// the issuer and the subject. Taken back by `sealane cluster remove`.
    #[command(after_help = crate::commands::add::HELP)]
    Add(AddArgs),
    /// Confirm that clusters which fell silent all at once are gone indeed, so that their leases lapse.
    #[command(after_help = examples::CONFIRM_LAPSES)]
    ConfirmLapses,
    /// Revoke a cluster's membership: its streams end, its exports and its trust leave every view.
    #[command(after_help = examples::REMOVE_CLUSTER)]
    Remove {
        /// The cluster.
        name: ClusterName,
    },
}

/// `sealane server`.
#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// Let the federation use what the newest version brought, once every server runs it.
    #[command(after_help = examples::RAISE_VERSION)]
    RaiseVersion,
    /// Take a server out of the federation, for good.
    #[command(after_help = examples::REMOVE_SERVER)]
    Remove {
        /// Its id, as `sealane status` shows it.
        id: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_global_option_may_stand_anywhere() {
        for line in [["sealane", "-o", "json", "status"], ["sealane", "status", "-o", "json"]] {
            assert_eq!(Args::parse_from(line).global.output, Format::Json);
        }
    }

    #[test]
    fn what_asks_no_server_neither_shows_nor_takes_a_global_option() {
        let mut command = Args::command();
        command.build();
        let at = |path: &[&str]| {
            path.iter().fold(&command, |c, name| c.find_subcommand(name).expect("there is one of the name"))
        };
        let globals = |path: &[&str]| {
            let shown = at(path).get_arguments().filter(|a| !a.is_hide_set()).map(|a| a.get_id().as_str());
            shown.filter(|id| ["context", "output", "consistent"].contains(id)).count()
        };
        assert_eq!((globals(&["status"]), globals(&["cluster", "add"])), (3, 3));
        let silent: [&[&str]; 7] = [
            &["demo"],
            &["federation", "run"],
            &["agent"],
            &["agent", "run"],
            &["proxy"],
            &["uninstall"],
            &["kubernetes", "enter"],
        ];
        for path in silent {
            assert_eq!(globals(path), 0, "{path:?}");
            for option in [&["--context", "east"][..], &["-o", "json"], &["--consistent"]] {
                let line = [&["sealane"], path, option].concat();
                let said = Args::try_parse_from(&line).unwrap_err().to_string();
                assert!([option[0], "--output"].iter().any(|name| said.contains(name)), "{line:?}: {said}");
            }
        }
        let said =
            Args::try_parse_from(["sealane", "uninstall", "--context", "east"]).unwrap_err().to_string();
        assert!(said.contains("this command asks no server (--kube-context names"), "{said}");
    }
}

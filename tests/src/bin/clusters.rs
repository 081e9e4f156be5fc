//! Brings real Kubernetes clusters up on this machine, for tests and for people.

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use sealane_tests::charts::{CHARTS, NAMESPACE};
use sealane_tests::clusters::layout::{MOST, Topology, plan};
use sealane_tests::clusters::{self, Environment, Place, Product};
use sealane_tests::tools;
use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

/// Several real Kubernetes clusters on one machine, without a container engine.
///
/// They run until `down`, whatever becomes of this command. Needs root, and Go for the first start, which builds
/// Kubernetes from its sources (some minutes, once).
#[derive(Debug, Parser)]
#[command(
    name = "clusters",
    after_help = "Examples:\n  \
        clusters up 2\n  \
        clusters exec -- kubectl --context west get pods --all-namespaces\n  \
        clusters node east -- nft list ruleset\n  \
        clusters down\n\n\
        State is kept in SEALANE_CLUSTERS (/var/lib/sealane-clusters), tools in SEALANE_TOOLS (~/.cache/sealane-tools)."
)]
struct Arguments {
    #[command(subcommand)]
    command: Word,
}

#[derive(Debug, Subcommand)]
enum Word {
    /// Brings up that many clusters: contexts east, west, north, south, ...
    Up(Up),
    /// Says what runs.
    Status,
    /// Prints the path of the file with a context for each cluster.
    Kubeconfig,
    /// Runs a command where the API servers can be reached, with KUBECONFIG set and kubectl in PATH.
    Exec {
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        words: Vec<String>,
    },
    /// Runs a command in a cluster's node, which sees its processes, mounts and network.
    Node {
        /// The cluster.
        cluster: String,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        words: Vec<String>,
    },
    /// Images in the nodes; there is no registry.
    #[command(subcommand)]
    Images(Images),
    /// Builds the tools that are not built yet, which otherwise happens where they are first needed.
    Tools,
    /// Takes all clusters down and removes everything of them.
    Down,
}

#[derive(Debug, Args)]
struct Up {
    /// How many clusters.
    #[arg(value_parser = clap::value_parser!(u8).range(1..=MOST as i64))]
    count: u8,
    /// Without Sealane.
    #[arg(long)]
    bare: bool,
    /// How many federation servers, in the first cluster: 1, 3 or 5.
    #[arg(long, default_value_t = 1, value_parser = servers, conflicts_with = "bare")]
    servers: u8,
    /// More values for a chart of Sealane; may be repeated.
    #[arg(long, value_name = "CHART=FILE", value_parser = values, conflicts_with = "bare")]
    values: Vec<(String, PathBuf)>,
    /// Pods of different clusters reach each other (the default).
    #[arg(long, conflicts_with = "networks")]
    flat: bool,
    /// Every cluster has the same pod addresses; between clusters only nodes reach each other.
    #[arg(long)]
    networks: bool,
    /// A cluster that has IPv6 too; may be repeated.
    #[arg(long, value_name = "CLUSTER")]
    dual_stack: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Images {
    /// Imports an OCI archive into every node.
    Load {
        /// The archive.
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    // For people: what is wrong in one sentence, never a trace.
    work(Arguments::parse().command).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn work(word: Word) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match word {
        Word::Up(arguments) => runtime.block_on(up(&arguments))?,
        Word::Status => return runtime.block_on(status()),
        Word::Kubeconfig => println!("{}", running()?.kubeconfig().display()),
        Word::Exec { words } => {
            let (program, arguments) = words.split_first().context("no command")?;
            let error = running()?.command(program)?.args(arguments).exec();
            return Err(error).with_context(|| format!("can not run {program}"));
        }
        Word::Node { cluster, words } => {
            let error = running()?.node_command(&cluster, &words)?.exec();
            return Err(error).context("can not enter the node");
        }
        Word::Images(Images::Load { file }) => {
            for line in runtime.block_on(running()?.load(&file))? {
                println!("{line}");
            }
        }
        Word::Tools => {
            for tool in tools::ALL {
                println!("{}", tool.path()?.display());
            }
        }
        Word::Down => runtime.block_on(clusters::down(&Place::usual()?))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn up(arguments: &Up) -> Result<()> {
    if arguments.networks && !arguments.bare {
        bail!(
            "between clusters of different networks traffic goes through gateways, which this command does not set up \
             yet: bring the clusters up with `--networks --bare`, and install the charts as docs/kubernetes.md says"
        );
    }
    let topology = if arguments.networks { Topology::Networks } else { Topology::Flat };
    let plans = plan(arguments.count.into(), topology, &arguments.dual_stack).map_err(anyhow::Error::msg)?;
    let work = async {
        let place = Place::usual()?;
        if arguments.bare {
            return Environment::up(place, &plans).await;
        }
        let mut product = Product::of_this_build().await?;
        product.servers = arguments.servers;
        product.values.clone_from(&arguments.values);
        Environment::up_with(place, &plans, &product).await
    };
    tokio::select! {
        up = work => up.map(|_| ()),
        interrupted = interrupted() => {
            interrupted?;
            eprintln!("interrupted; removing what was started");
            clusters::down(&Place::usual()?).await?;
            bail!("interrupted")
        }
    }
}

/// How many servers a federation may have.
fn servers(text: &str) -> Result<u8, String> {
    text.parse().ok().filter(|n| [1, 3, 5].contains(n)).ok_or_else(|| "1, 3 or 5".to_owned())
}

/// A values file, and the chart that it is for.
fn values(text: &str) -> Result<(String, PathBuf), String> {
    let (chart, file) = text.split_once('=').ok_or("CHART=FILE is expected")?;
    if !CHARTS.contains(&chart) {
        return Err(format!("there is no chart {chart}; there are {}", CHARTS.join(", ")));
    }
    let file = std::path::absolute(file).map_err(|error| error.to_string())?;
    if !file.is_file() {
        return Err(format!("there is no file {}", file.display()));
    }
    Ok((chart.to_owned(), file))
}

/// The clusters that are there; what was lost is said, and hinders nobody who asks the others.
fn running() -> Result<Environment> {
    let environment = Environment::left(Place::usual()?)?;
    for plan in environment.lost() {
        eprintln!("warning: {}", clusters::dead(&plan.name));
    }
    Ok(environment)
}

async fn interrupted() -> Result<()> {
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed.context("can not wait for Ctrl-C"),
        _ = term.recv() => Ok(()),
    }
}

async fn status() -> Result<ExitCode> {
    let environment = Environment::left(Place::usual()?)?;
    let lost: BTreeSet<&str> = environment.lost().map(|plan| plan.name.as_str()).collect();
    let mut all = true;
    for plan in environment.plans() {
        let state = match lost.contains(plan.name.as_str()) {
            true => Err(anyhow::anyhow!("lost: {}", clusters::dead(&plan.name))),
            false => ready(&environment, &plan.name).await,
        };
        all &= state.is_ok();
        let state = state.unwrap_or_else(|error| format!("{error:#}"));
        println!("{:8} {}  pods {}  {state}", plan.name, plan.server(), plan.pods().join(","));
    }
    println!("kubeconfig {}", environment.kubeconfig().display());
    if environment.is_worked_on()? {
        all = false;
        println!("not done: they are still being brought up, or taken down");
    }
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What runs in a cluster whose API server answers.
async fn ready(environment: &Environment, cluster: &str) -> Result<String> {
    environment.kubectl(cluster, &["get", "--raw", "/readyz"]).await.context("not ready")?;
    Ok(format!("ready{}", workloads(environment, cluster).await?))
}

/// How many pods of Sealane are ready, of how many.
async fn workloads(environment: &Environment, cluster: &str) -> Result<String> {
    let each = "jsonpath={range .items[*]}, {.metadata.name} {.status.readyReplicas}/{.spec.replicas}{end}";
    let words = ["get", "statefulsets", "--namespace", NAMESPACE, "--output", each];
    Ok(environment.kubectl(cluster, &words).await?.replace(" /", " 0/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_examples_of_the_help_are_understood() {
        let help = Arguments::command().render_long_help().to_string();
        let examples: Vec<&str> = help.lines().filter(|line| line.starts_with("  clusters ")).collect();
        assert_eq!(examples.len(), 4, "{help}");
        for example in examples {
            Arguments::try_parse_from(example.split_whitespace()).unwrap();
        }
        assert!(Arguments::try_parse_from(["clusters", "up", "9"]).is_err());
        assert!(Arguments::try_parse_from(["clusters", "up", "2", "--servers", "2"]).is_err());
        assert!(Arguments::try_parse_from(["clusters", "up", "2", "--values", "sealane=x.yaml"]).is_err());
        assert!(Arguments::try_parse_from(["clusters", "up", "2", "--flat", "--networks"]).is_err());
    }
}

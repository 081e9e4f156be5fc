//! Benchmarks that anyone can run: what Sealane does beside what a peer does, in the same run on the same machine.
//!
//! Each prints ratios first, then the figures behind them and the machine, as a table or as JSON. Nothing is asserted: a
//! benchmark tells, a test judges. The methods are in docs/benchmarks.md.

mod agents;
mod datapath;
mod failover;
mod host;
mod kubernetes;
mod listener;
mod peers;
mod propagation;
mod quantile;
mod report;
mod store;
mod usage;
mod withdrawal;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures Sealane beside its peers.
#[derive(Debug, Parser)]
#[command(
    name = "bench",
    after_help = "Examples:\n  \
        cargo run --release -p sealane-bench -- store            # beside a three-node etcd\n  \
        cargo run --release -p sealane-bench -- datapath         # beside Envoy, and beside nothing\n  \
        cargo run --release -p sealane-bench -- failover -o json\n\n\
        Build everything first (cargo build --release --workspace), and leave the machine alone meanwhile."
)]
struct Args {
    /// How results are printed.
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: report::Format,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Acknowledged export commands on three servers, beside puts of a three-node etcd.
    Store(store::Args),
    /// From the SIGKILL of the leader to the next acknowledged write.
    Failover(failover::Args),
    /// From a change of an endpoint in one cluster to its arrival at a proxy of another.
    Propagation(propagation::Args),
    /// What one flap of an endpoint costs a server with many agents.
    Agents(agents::Args),
    /// The same change and others between two real Kubernetes API servers, and what failures do.
    Kubernetes(kubernetes::Args),
    /// What an agent needs where there are very many Services, endpoints and Pods.
    Size(kubernetes::size::Args),
    /// From the loss of a whole Kubernetes cluster, with nodes and pods, to its withdrawal from another.
    Withdrawal(withdrawal::Args),
    /// Requests and bytes through sidecar, gateway and sidecar, beside Envoy in the same places.
    Datapath(datapath::Args),
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        match args.what {
            // It takes its clusters down itself when it is interrupted.
            What::Withdrawal(args) => withdrawal::run(args).await,
            // Ended in order, so that the peers' processes, which do not die with us by themselves, are ended too.
            what => tokio::select! {
                report = measure(what) => report,
                _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
            },
        }
    })?;
    report.print(args.output)
}

async fn measure(what: What) -> Result<report::Report> {
    match what {
        What::Store(args) => store::run(args).await,
        What::Failover(args) => failover::run(args).await,
        What::Propagation(args) => propagation::run(args).await,
        What::Kubernetes(args) => kubernetes::run(args).await,
        What::Size(args) => kubernetes::size::run(args).await,
        What::Withdrawal(args) => withdrawal::run(args).await,
        What::Agents(args) => agents::run(args).await,
        What::Datapath(args) => datapath::run(args).await,
    }
}

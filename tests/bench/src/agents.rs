//! What one flap of an endpoint costs the servers, with few and with many agents connected.
//!
//! Every agent is a member by enrolment and keeps a catalog session and a watch of its own over a connection of its
//! own; all of them live in this process. A service of the first one flaps; the same few of the others import it. The
//! next flap waits until the last one came to every importer, so that nothing is coalesced and the counts are exact.
//! Not here: what an agent does with a view.

pub(crate) mod catalog;
pub(crate) mod cost;
pub(crate) mod member;
pub(crate) mod session;
mod watching;

use crate::quantile::Samples;
use crate::report::{Report, Table};
use anyhow::{Context, Result, ensure};
use cost::Cost;
use member::Registrar;
use sealane::local::{Federation, Lab};
use sealane_core::name::{Namespace, ServiceKey, ServiceName};
use session::Session;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use watching::{Arrival, Received, Watching};

/// The namespace and the name of the service that flaps.
const FLAPS: (&str, &str) = ("shop", "cart");
/// The network of all clusters: endpoints are told apart by their address.
const NETWORK: &str = "lan";
/// Agents that enrol at once.
const TOGETHER: usize = 16;
/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many agents are connected, in growing order.
    #[arg(long, value_delimiter = ',', default_values_t = [50, 500])]
    agents: Vec<usize>,
    /// How many of them import the service that flaps.
    #[arg(long, default_value_t = 5)]
    importers: usize,
    /// How often it flaps for each number of agents.
    #[arg(long, default_value_t = 300)]
    flaps: u32,
    /// Flaps a second, at most.
    #[arg(long, default_value_t = 30)]
    rate: u32,
    /// How many servers form the federation.
    #[arg(long, default_value_t = 3)]
    servers: usize,
}

/// The federation and its agents.
struct Crowd {
    federation: Federation,
    registrar: Registrar,
    importers: usize,
    received: Arc<Received>,
    arrivals: mpsc::Receiver<Arrival>,
    teller: mpsc::Sender<Arrival>,
    sessions: Vec<Session>,
    watches: JoinSet<Result<()>>,
    value: u8,
}

/// What was measured with one number of agents.
struct Measured {
    agents: usize,
    flaps: u32,
    idle: Cost,
    busy: Cost,
    window: Duration,
    received: (u64, u64),
    resident: Vec<u64>,
    latency: Samples,
}

pub(crate) async fn run(args: Args) -> Result<Report> {
    ensure!(args.importers > 0 && args.rate > 0 && args.flaps > 0, "there is nothing to measure");
    ensure!(
        args.agents.iter().all(|n| *n > args.importers),
        "there are more importers than agents that could import"
    );
    let lab = Lab::new(binary()?, &std::env::temp_dir(), "warn,sealane_federation=info")?;
    let mut crowd = Crowd::gather(&lab, &args).await?;
    let mut all = Vec::new();
    for agents in &args.agents {
        crowd.grow(*agents).await?;
        eprintln!("{agents} agents are connected; {} flaps", args.flaps);
        all.push(crowd.measure(&args).await?);
    }
    Ok(report(&args, &all))
}

/// The binary beside this one.
///
/// # Errors
/// When it was not built.
pub(crate) fn binary() -> Result<PathBuf> {
    let own = std::env::current_exe().context("no path of this program")?;
    let binary = own.with_file_name("sealane");
    ensure!(
        binary.exists(),
        "there is no {}: build it by `cargo build --release --workspace --bins`",
        binary.display()
    );
    Ok(binary)
}

impl Crowd {
    async fn gather(lab: &Lab, args: &Args) -> Result<Self> {
        let federation = Federation::of(lab, args.servers).await?;
        let registrar = Registrar::of(&federation)?;
        let (teller, arrivals) = mpsc::channel(1024);
        Ok(Crowd {
            federation,
            registrar,
            importers: args.importers,
            received: Arc::default(),
            arrivals,
            teller,
            sessions: Vec::new(),
            watches: JoinSet::new(),
            value: 1,
        })
    }

    /// Adds agents until there are so many.
    async fn grow(&mut self, agents: usize) -> Result<()> {
        while self.sessions.len() < agents {
            let from = self.sessions.len();
            let mut joining = JoinSet::new();
            for number in from..agents.min(from + TOGETHER) {
                joining.spawn(connect(self.registrar.clone(), number, self.importers));
            }
            let mut synced = Vec::new();
            let mut joined = joining.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
            joined.sort_by_key(|one| one.number);
            for one in joined {
                let (tell, told) = oneshot::channel();
                let watching = Watching {
                    received: self.received.clone(),
                    service: FLAPS.1,
                    arrivals: self.teller.clone(),
                };
                self.watches.spawn(watching.run(one.member, one.channel, tell));
                self.sessions.push(one.session);
                synced.push(told);
            }
            for told in synced {
                timeout(PATIENCE, told).await.context("a view was not received in time")??;
            }
        }
        self.settle().await
    }

    /// Flaps once, so that all that joining began has come to an end before anything is counted.
    async fn settle(&mut self) -> Result<()> {
        self.flap().await?;
        self.flap().await?;
        Ok(())
    }

    async fn measure(&mut self, args: &Args) -> Result<Measured> {
        let pace = Duration::from_secs(1) / args.rate;
        let window = pace * args.flaps;
        let before = Cost::now(&self.federation).await?;
        tokio::time::sleep(window).await;
        let rested = Cost::now(&self.federation).await?;
        let had = self.totals();
        let mut latency = Samples::default();
        let began = Instant::now();
        let mut beat = tokio::time::interval(pace);
        for _ in 0..args.flaps {
            beat.tick().await;
            latency.push(self.flap().await?);
        }
        let took = began.elapsed();
        let done = Cost::now(&self.federation).await?;
        let has = self.totals();
        Ok(Measured {
            agents: self.sessions.len(),
            flaps: args.flaps,
            idle: rested.since(&before),
            busy: done.since(&rested),
            window: took,
            received: (has.0 - had.0, has.1 - had.1),
            resident: cost::resident(&self.federation)?,
            latency,
        })
    }

    fn totals(&self) -> (u64, u64) {
        let load = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
        (load(&self.received.deltas), load(&self.received.delta_bytes))
    }

    /// Changes the endpoint's address, and waits until every importer has it; how long the last one took.
    async fn flap(&mut self) -> Result<Duration> {
        // Both are one byte on the wire, as every address is four.
        self.value = if self.value == 1 { 2 } else { 1 };
        let change = catalog::endpoint(&flapping()?, self.value)?;
        let began = Instant::now();
        let first = self.sessions.first_mut().context("nobody is connected")?;
        first.write(&[change]).await?;
        let mut last = began;
        let mut seen = 0;
        while seen < self.importers {
            let arrival = tokio::select! {
                arrival = timeout(PATIENCE, self.arrivals.recv()) => {
                    arrival.context("a flap did not come to every importer")?.context("nobody tells")?
                }
                ended = self.watches.join_next() => {
                    ended.context("nobody watches")???;
                    anyhow::bail!("a watch ended");
                }
            };
            if arrival.value == self.value {
                seen += 1;
                last = last.max(arrival.at);
            }
        }
        Ok(last - began)
    }
}

/// One agent that joined and published.
struct Connected {
    number: usize,
    member: member::Member,
    channel: tonic::transport::Channel,
    session: Session,
}

/// Every agent exports a service of a namespace of its own, and imports that of the one before it.
async fn connect(registrar: Registrar, number: usize, importers: usize) -> Result<Connected> {
    let member = registrar.enrol(&format!("c{number}")).await?;
    let channel = member.channel(&registrar.servers[number % registrar.servers.len()])?;
    let mut session = Session::open(&member, channel.clone()).await?;
    let before = format!("team-{}", number.saturating_sub(1));
    let mut interest = vec![before.as_str()];
    let mut exports = vec![key(&format!("team-{number}"), "api")?];
    if number == 0 {
        exports.push(flapping()?);
    } else if number <= importers {
        interest.push(FLAPS.0);
    }
    session.write(&catalog::whole(&member, NETWORK, &interest, &exports)?).await?;
    Ok(Connected { number, member, channel, session })
}

fn flapping() -> Result<ServiceKey> {
    key(FLAPS.0, FLAPS.1)
}

/// The key of a service.
///
/// # Errors
/// When a name is none.
pub(crate) fn key(namespace: &str, name: &str) -> Result<ServiceKey> {
    Ok(ServiceKey { namespace: Namespace::parse(namespace)?, name: ServiceName::parse(name)? })
}

fn report(args: &Args, all: &[Measured]) -> Report {
    let mut report = Report::new("What one flap of an endpoint costs, by the number of agents");
    if let (Some(few), Some(many)) = (all.first(), all.last()) {
        let verdict = if counts(few) == counts(many) { "equal" } else { "NOT equal" };
        let each = |n: u64, m: &Measured| n as f64 / f64::from(m.flaps);
        report.ratios.push(format!(
            "With {} importers, a flap has {:.2} pairs of cluster and service recomputed and {:.1} bytes sent at {} \
             agents, and {:.2} pairs and {:.1} bytes at {}: {verdict}",
            args.importers,
            each(few.busy.recomputed, few),
            each(few.busy.delta_bytes, few),
            few.agents,
            each(many.busy.recomputed, many),
            each(many.busy.delta_bytes, many),
            many.agents
        ));
    }
    report.tables = vec![costs(all), machine(all)];
    report.notes.push(format!(
        "{} servers; every agent is an enrolled cluster with a session and a watch over a TLS connection of its own, \
         spread evenly over the servers; {} flaps, at most {} a second, each after the last had come to all importers.",
        args.servers, args.flaps, args.rate
    ));
    report.notes.push(
        "Pairs and bytes are the servers' own counters (view_items_recomputed, view_bytes); beside them what the \
         agents received. Progress is the message that tells an idle watcher how far it is, one a second at most: it \
         follows the number of agents and not that of flaps, and is counted apart."
            .to_owned(),
    );
    report.notes.push(
        "Processor time of a flap: of all servers together, less what they used in an equally long rest before (signs \
         of life of all agents); the kernel counts it in steps of 10 ms."
            .to_owned(),
    );
    report
}

/// What must not depend on the number of agents.
fn counts(m: &Measured) -> (u64, u64, u64) {
    (m.busy.recomputed, m.busy.deltas, m.busy.delta_bytes)
}

fn costs(all: &[Measured]) -> Table {
    let caption = "Of all servers together, for one flap:";
    let columns = ["agents", "pairs recomputed", "deltas", "bytes of deltas", "bytes received by agents"];
    let mut table = Table::new(caption, &columns);
    for m in all {
        let each = |n: u64| format!("{:.2}", n as f64 / f64::from(m.flaps));
        let (deltas, bytes) = (each(m.busy.deltas), each(m.busy.delta_bytes));
        table.rows.push(vec![
            m.agents.to_string(),
            each(m.busy.recomputed),
            deltas,
            bytes,
            each(m.received.1),
        ]);
    }
    table
}

fn machine(all: &[Measured]) -> Table {
    let columns = [
        "agents",
        "CPU of a flap (ms)",
        "CPU at rest (% of a core)",
        "progress (bytes/s)",
        "memory of each server (MiB)",
        "write to last importer p50 (ms)",
        "p99 (ms)",
    ];
    let mut table =
        Table::new("Of all servers together, with what does depend on the number of agents:", &columns);
    for m in all {
        let seconds = m.window.as_secs_f64();
        let flap = (m.busy.cpu.as_secs_f64() - m.idle.cpu.as_secs_f64()) * 1000.0 / f64::from(m.flaps);
        let mebibytes: Vec<String> =
            m.resident.iter().map(|bytes| format!("{:.1}", *bytes as f64 / (1024.0 * 1024.0))).collect();
        table.rows.push(vec![
            m.agents.to_string(),
            format!("{flap:.2}"),
            format!("{:.1}", m.idle.cpu.as_secs_f64() * 100.0 / seconds),
            format!("{:.0}", m.busy.progress_bytes as f64 / seconds),
            mebibytes.join(", "),
            m.latency.millis(0.5),
            m.latency.millis(0.99),
        ]);
    }
    table
}

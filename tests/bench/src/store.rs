//! Acknowledged commands a second on three servers with real syncs, beside a three-node etcd, turn by turn.
//!
//! Every client has a connection of its own and one command of 256 bytes outstanding, answered by its own commit. A
//! client of Sealane is an agent of a cluster of its own whose export session changes an endpoint; a client of etcd
//! puts a value. The three stores stand idle while another is measured, on the same disk.

mod cells;
mod disk;
pub(crate) mod etcd;
pub(crate) mod load;
pub(crate) mod members;
pub(crate) mod session;

use crate::peers;
use crate::report::Report;
use anyhow::{Context, Result, bail, ensure};
use cells::{Cell, Cells};
use etcd::{Etcd, Putter, Setup};
use futures::stream::{StreamExt, TryStreamExt};
use load::{Slice, Timing, drive};
use members::Member;
use sealane::local::{Federation, Lab, Process};
use session::Session;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a slice is taken again because leadership moved meanwhile.
const TRIES: usize = 3;
/// How many sessions are opened at a time.
const OPENING: usize = 32;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Numbers of clients.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256])]
    clients: Vec<usize>,
    /// Seconds that one slice is measured.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Seconds before each that are not.
    #[arg(long, default_value_t = 0.4)]
    warmup: f64,
    /// Slices of each kind.
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
    /// Where all three stores keep what they write; it must be on a disk [default: target/bench].
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Leave out the etcd without TLS.
    #[arg(long)]
    tls_only: bool,
    /// Leave out etcd altogether, to look at Sealane alone.
    #[arg(long)]
    alone: bool,
}

/// Whom the clients are connected to, all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Via {
    Leader,
    Follower,
}

/// A store under test.
enum Store {
    Sealane(Federation, Vec<Member>),
    Etcd(Etcd),
}

pub(crate) async fn run(args: Args) -> Result<Report> {
    ensure!(
        args.repetitions > 0 && args.seconds > 0.0 && !args.clients.is_empty(),
        "there is nothing to measure"
    );
    let binary = sealane_binary()?;
    let directory = directory(args.directory.as_deref());
    std::fs::create_dir_all(&directory)?;
    let disk = disk::describe(&directory)?;
    let lab = Lab::new(binary, &directory, "warn,sealane_federation=info")?;
    let most = args.clients.iter().copied().max().unwrap_or(1);
    let stores = stores(&lab, &args, most).await?;
    let timing = Timing {
        warmup: Duration::try_from_secs_f64(args.warmup)?,
        measured: Duration::try_from_secs_f64(args.seconds)?,
    };
    let mut cells = Cells::new(stores.iter().map(Store::name).collect());
    for repetition in 1..=args.repetitions {
        for &clients in &args.clients {
            for via in [Via::Leader, Via::Follower] {
                eprintln!("repetition {repetition}: {clients} clients at {}", via.name());
                for (at, store) in stores.iter().enumerate() {
                    let slice = store.slice(clients, via, timing).await;
                    let slice = slice.with_context(|| format!("{}, {clients} clients", store.name()))?;
                    cells.put(Cell { via, clients, store: at }, slice);
                }
            }
        }
    }
    Ok(report(&cells, &args, &disk))
}

/// The binary whose servers are measured: that of `SEALANE_BIN`, or the one beside this one.
pub(crate) fn sealane_binary() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("SEALANE_BIN") {
        return Ok(named.into());
    }
    ensure!(!cfg!(debug_assertions), "this is a debug build: run it with cargo run --release");
    let own = std::env::current_exe().context("no path of the benchmark itself")?;
    let beside = own.with_file_name("sealane");
    ensure!(beside.exists(), "there is no {}: cargo build --release -p sealane", beside.display());
    Ok(beside)
}

/// Where runs keep what they write when nothing else is said.
pub(crate) fn directory(named: Option<&Path>) -> PathBuf {
    let target =
        || std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let chosen = named.map_or_else(|| target().join("bench"), Path::to_owned);
    std::path::absolute(&chosen).unwrap_or(chosen)
}

async fn stores(lab: &Lab, args: &Args, most: usize) -> Result<Vec<Store>> {
    eprintln!("starting three servers, and having {most} clusters join");
    let federation = Federation::of(lab, 3).await?;
    let members = members::enrol(&federation.context, most).await?;
    let mut stores = vec![Store::Sealane(federation, members)];
    if args.alone {
        return Ok(stores);
    }
    let binary = peers::ETCD.fetch().await?;
    let secure = Setup { name: "etcd-tls", title: "etcd, TLS", network: 1, tls: true, timers: None };
    let plain = Setup { name: "etcd-plain", title: "etcd, plain", network: 2, tls: false, timers: None };
    for setup in [secure, plain].into_iter().take(if args.tls_only { 1 } else { 2 }) {
        stores.push(Store::Etcd(Etcd::start(lab, &binary, setup).await?));
    }
    Ok(stores)
}

impl Via {
    fn name(self) -> &'static str {
        match self {
            Via::Leader => "the leader",
            Via::Follower => "a follower",
        }
    }

    /// The server for the clients, where this one leads three.
    fn server(self, leader: usize) -> usize {
        match self {
            Via::Leader => leader,
            Via::Follower => (leader + 1) % 3,
        }
    }
}

impl Store {
    fn name(&self) -> &'static str {
        match self {
            Store::Sealane(..) => "Sealane",
            Store::Etcd(etcd) => etcd.title(),
        }
    }

    async fn leader(&self) -> Result<usize> {
        match self {
            Store::Sealane(federation, _) => federation.leader().await,
            Store::Etcd(etcd) => etcd.settled().await,
        }
    }

    /// One slice during which leadership stayed where it was.
    async fn slice(&self, clients: usize, via: Via, timing: Timing) -> Result<Slice> {
        for _ in 0..TRIES {
            let leader = self.leader().await?;
            let slice = self.measure(clients, via.server(leader), timing).await;
            if self.leader().await? == leader {
                return slice;
            }
            eprintln!("leadership moved; once more");
        }
        bail!("leadership moved during each of {TRIES} slices: is the machine busy?")
    }

    async fn measure(&self, clients: usize, server: usize, timing: Timing) -> Result<Slice> {
        match self {
            Store::Sealane(federation, members) => {
                let address = federation.servers[server].grpc.to_string();
                let opening = members.iter().take(clients).map(|m| Session::open(m, &address));
                let sessions: Vec<Session> =
                    futures::stream::iter(opening).buffer_unordered(OPENING).try_collect().await?;
                let processes = federation.servers.iter().filter_map(|s| s.process.as_ref().map(Process::id));
                drive(sessions, &processes.collect::<Vec<_>>(), timing).await
            }
            Store::Etcd(etcd) => {
                let putters = (0..clients).map(|n| Ok(Putter::new(etcd.connect(server)?, n)));
                drive(putters.collect::<Result<Vec<_>>>()?, &etcd.processes(), timing).await
            }
        }
    }
}

fn report(cells: &Cells, args: &Args, disk: &str) -> Report {
    let mut report = Report::new("Acknowledged export commands on three servers, beside a three-node etcd");
    for via in [Via::Leader, Via::Follower] {
        for &clients in &args.clients {
            report.ratios.extend(cells.ratios(via, clients));
        }
    }
    for via in [Via::Leader, Via::Follower] {
        report.tables.push(cells.table(via, &args.clients));
    }
    report.notes = vec![
        format!(
            "{} slices of {} s each after {} s of warm-up, the stores in turn; told is the median of the slices and, in \
             brackets, their range. Ratios are between slices of the same turn.",
            args.repetitions, args.seconds, args.warmup
        ),
        "Each client has a connection of its own and one command of 256 bytes outstanding: for Sealane a change of an \
         endpoint (which every replica validates and applies), by an agent with a cluster, a certificate and an export \
         session of its own; for etcd key and value of a put."
            .to_owned(),
        format!("{} with its own timers and defaults; Sealane with its own too.", peers::ETCD.name()),
        "Sealane uses mutual TLS 1.3 on every connection. \"etcd, TLS\" uses mutual TLS 1.2, the newest that it takes, between \
         members and to clients; \"etcd, plain\" uses none, which favours it."
            .to_owned(),
        "Servers and clients share the processor: the processor time of both is in the table.".to_owned(),
        "Nobody watches either store meanwhile.".to_owned(),
        format!("Every store syncs to the same disk: {disk}."),
    ];
    report
}

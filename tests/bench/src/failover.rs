//! From the SIGKILL of the leader to the next acknowledged write, beside the same of etcd.
//!
//! One client is connected to every server beforehand. At the moment of the kill it sends a write to each of the others
//! and goes on doing so at once where one fails; counted is the first acknowledgement of a write that was sent after the
//! kill. Then the killed server is started again and waited for.

use crate::peers;
use crate::quantile::Samples;
use crate::report::{Report, Table};
use crate::store::etcd::{Etcd, Putter, Setup};
use crate::store::load::Client;
use crate::store::members::{Member, enrol};
use crate::store::session::Session;
use crate::store::{directory, sealane_binary};
use anyhow::{Context, Result, ensure};
use sealane::local::{Federation, Lab, wait};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How long the next write may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(20);
/// The pause before a client tries again at once.
const AGAIN: Duration = Duration::from_millis(5);
/// How long an attempt at etcd is waited for before another is made: what was on its way to the dead leader is
/// answered after seven seconds only.
const ATTEMPT: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often each leader is killed.
    #[arg(long, default_value_t = 20)]
    repetitions: usize,
    /// Where the stores keep what they write [default: target/bench].
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Leave out etcd, to look at Sealane alone.
    #[arg(long)]
    alone: bool,
}

pub(crate) async fn run(args: Args) -> Result<Report> {
    ensure!(args.repetitions > 0, "there is nothing to measure");
    let binary = sealane_binary()?;
    let lab = Lab::new(binary, &directory(args.directory.as_deref()), "warn,sealane_federation=info")?;
    let mut federation = Federation::of(&lab, 3).await?;
    let members = enrol(&federation.context, federation.servers.len()).await?;
    let mut etcds = Vec::new();
    if !args.alone {
        let binary = peers::ETCD.fetch().await?;
        for setup in setups() {
            etcds.push((Etcd::start(&lab, &binary, setup).await?, Samples::default()));
        }
    }
    let mut ours = Samples::default();
    for repetition in 1..=args.repetitions {
        eprintln!("kill {repetition} of {}", args.repetitions);
        ours.push(fail_sealane(&mut federation, &members).await.context("Sealane")?);
        for (etcd, samples) in &mut etcds {
            samples.push(fail_etcd(etcd).await.with_context(|| etcd.title().to_owned())?);
        }
    }
    let theirs = etcds.into_iter().map(|(etcd, samples)| (etcd.title(), samples));
    Ok(report(ours, theirs.collect()))
}

fn setups() -> [Setup; 2] {
    let own = Setup { name: "etcd-own", title: "etcd, own timers", network: 1, tls: true, timers: None };
    [
        own,
        Setup { name: "etcd-500", title: "etcd, as Sealane's", network: 2, timers: Some((100, 500)), ..own },
    ]
}

async fn fail_sealane(federation: &mut Federation, members: &[Member]) -> Result<Duration> {
    let leader = federation.leader().await?;
    let mut writers = Vec::new();
    for at in (0..federation.servers.len()).filter(|at| *at != leader) {
        // A cluster's sessions shut each other out, so there is one of them for each server.
        let (member, address) = (members[at].clone(), federation.servers[at].grpc.to_string());
        let session = Session::open(&member, &address).await?;
        writers.push(async move { write_on(session, member, address).await });
    }
    let killed = Instant::now();
    federation.kill(leader);
    let took = first(writers, killed).await?;
    federation.start(leader).await?;
    wait::until_true("the killed server has caught up", PATIENCE, async || {
        let leader = federation.leader().await?;
        let servers = federation.client_of(leader)?.servers().await?.servers;
        let last = servers.iter().filter_map(|s| s.matched).max();
        Ok(servers.iter().all(|s| s.reachable == Some(true) && s.matched == last))
    })
    .await?;
    Ok(took)
}

/// Writes until a write is acknowledged, by new sessions where one breaks.
async fn write_on(first: Session, member: Member, address: String) {
    let mut open = Some(first);
    loop {
        match &mut open {
            Some(session) => match session.command().await {
                Ok(()) => return,
                Err(_) => open = None,
            },
            None => {
                tokio::time::sleep(AGAIN).await;
                open = Session::open(&member, &address).await.ok();
            }
        }
    }
}

async fn fail_etcd(etcd: &mut Etcd) -> Result<Duration> {
    let leader = etcd.settled().await?;
    let mut writers = Vec::new();
    for at in etcd.running().into_iter().filter(|at| *at != leader) {
        let mut putter = Putter::new(etcd.connect(at)?, at);
        putter.command().await?;
        writers.push(put_on(putter));
    }
    let killed = Instant::now();
    etcd.kill(leader);
    let took = first(writers, killed).await?;
    etcd.run(leader)?;
    etcd.settled().await?;
    Ok(took)
}

/// Puts until a put is acknowledged: a new one at once when one fails, and another beside those that are not answered.
async fn put_on(putter: Putter) {
    let mut attempts = JoinSet::new();
    loop {
        let mut attempt = putter.clone();
        attempts.spawn(async move { attempt.command().await });
        let answered = tokio::time::timeout(ATTEMPT, attempts.join_next()).await;
        match answered {
            Ok(Some(Ok(Ok(())))) => return,
            Ok(_) => tokio::time::sleep(AGAIN).await,
            Err(_) => {}
        }
    }
}

/// How long after the kill the first of them has ended.
async fn first<W>(writers: Vec<W>, killed: Instant) -> Result<Duration>
where
    W: Future<Output = ()> + Send + 'static,
{
    let mut all = JoinSet::new();
    for writer in writers {
        all.spawn(writer);
    }
    let done = tokio::time::timeout(PATIENCE, all.join_next()).await;
    done.context("no write was acknowledged")?.context("nobody writes")?.context("a writer panicked")?;
    Ok(killed.elapsed())
}

fn report(ours: Samples, theirs: Vec<(&'static str, Samples)>) -> Report {
    let mut report = Report::new("From the SIGKILL of the leader to the next acknowledged write");
    let seconds = |s: &Samples, share| s.quantile(share).map_or(f64::NAN, |d| d.as_secs_f64());
    report.ratios = theirs
        .iter()
        .map(|(name, samples)| {
            let ratio = |share| seconds(&ours, share) / seconds(samples, share);
            format!("{:.2} x the median and {:.2} x the maximum of {name}", ratio(0.5), ratio(1.0))
        })
        .collect();
    let mut table =
        Table::new("Milliseconds without a write", &["store", "kills", "min", "p50", "p90", "max"]);
    for (name, samples) in std::iter::once(&("Sealane", ours)).chain(&theirs) {
        let mut row = vec![(*name).to_owned(), samples.len().to_string()];
        row.extend([0.0, 0.5, 0.9, 1.0].map(|share| samples.millis(share)));
        table.rows.push(row);
    }
    report.tables.push(table);
    report.notes = vec![
        "The client is connected to every server beforehand and sends a write to both that are left as soon as the \
         leader was killed, again at once where one fails; counted is the first acknowledgement."
            .to_owned(),
        "At etcd an attempt that is not answered within 100 ms is given another beside it, so that none waits for the \
         answer of the dead."
            .to_owned(),
        format!(
            "{}: \"own timers\" are heartbeats of 100 ms and an election timeout of 1 to 2 s; \"as Sealane's\" is 100 ms \
             and 0.5 to 1 s, which are Sealane's. All use mutual TLS.",
            peers::ETCD.name()
        ),
        "The process is killed and its connections are reset; a server that vanishes without a word is not measured here."
            .to_owned(),
    ];
    report
}

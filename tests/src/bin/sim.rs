//! Runs the deterministic simulation over as many seeds as wanted.

use anyhow::{Context, Result};
use clap::Parser;
use clap::builder::PossibleValuesParser;
use sealane_tests::sim::{self, Counts, Fault, Outcome};
use std::process::ExitCode;
use std::time::Instant;

/// Three real replicas on simulated disks, clocks and network: one history a seed, checked against every property.
///
/// Exit status: 0 when every property held for every seed, 1 when one did not, 2 for a wrong argument.
#[derive(Debug, Parser)]
#[command(
    name = "sim",
    after_help = "Examples:\n  \
        cargo run --release -p sealane-tests --bin sim -- --seeds 10000\n  \
        cargo run --release -p sealane-tests --bin sim -- --seed 42            # one history, with the last that happened\n  \
        cargo run --release -p sealane-tests --bin sim -- --seeds 300 --broken no-fsync   # must fail"
)]
struct Args {
    /// How many seeds to run; 1 where --seed is given, else 200.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long)]
    seed: Option<u64>,
    /// A deliberate defect in the replicas, which the properties must catch.
    #[arg(long, value_parser = PossibleValuesParser::new(Fault::ALL.map(|(name, _)| name)))]
    broken: Option<String>,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let fault = args.broken.as_deref().map(|name| sim::fault(name).context("no such defect")).transpose()?;
    let first = args.seed.unwrap_or(0);
    let seeds = args.seeds.unwrap_or(if args.seed.is_some() { 1 } else { 200 });
    // A replica that meets what must not be panics; that is a finding of the history, which says it itself.
    std::panic::set_hook(Box::new(|_| {}));
    let started = Instant::now();
    let mut counts = Counts::default();
    let mut run = 0;
    for seed in first..first.saturating_add(seeds) {
        let outcome = sim::run(seed, fault);
        run += 1;
        counts = counts.and(outcome.counts);
        if outcome.violation.is_some() {
            report(&outcome, args.broken.as_deref());
            summary(run, counts, started);
            return Ok(ExitCode::FAILURE);
        }
        if seeds == 1 {
            println!("seed {seed}: hash {:016x}", outcome.hash);
            outcome.tail.iter().for_each(|line| println!("{line}"));
        }
    }
    summary(run, counts, started);
    println!("every property held");
    Ok(ExitCode::SUCCESS)
}

fn report(outcome: &Outcome, broken: Option<&str>) {
    outcome.tail.iter().for_each(|line| println!("{line}"));
    if let Some(violation) = &outcome.violation {
        println!("\nseed {} does not hold {violation}", outcome.seed);
    }
    println!("again: {}", sim::command(outcome.seed, broken));
}

fn summary(seeds: u64, counts: Counts, started: Instant) {
    let took = started.elapsed().as_secs_f64().max(1e-6);
    let simulated = counts.simulated_ms as f64 / 1000.0;
    println!(
        "{seeds} seeds in {took:.1} s: {:.1} seeds/s, {:.1} simulated hours, {:.0} times real time",
        seeds as f64 / took,
        simulated / 3600.0,
        simulated / took
    );
    println!(
        "{} acknowledged commands, {} retries, {} reads, {} crashes, {} changes of leader, {} installed snapshots, \
         {} messages",
        counts.acknowledged,
        counts.retries,
        counts.reads,
        counts.crashes,
        counts.leaders,
        counts.installs,
        counts.messages
    );
}

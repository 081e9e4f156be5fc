//! Runs the deterministic simulation over as many seeds as wanted.

use anyhow::{Context, Result};
use clap::Parser;
use clap::builder::{PossibleValue, PossibleValuesParser};
use sealane_tests::sim::{self, Counts, Fault, Outcome};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How often a long run says how far it is.
const PROGRESS: Duration = Duration::from_secs(5);

/// Three real replicas on simulated disks, clocks and network: one history a seed, checked against every property.
///
/// Exit status: 0 when every property held for every seed, 1 when one did not, 2 for a wrong argument.
#[derive(Debug, Parser)]
#[command(
    name = "sim",
    after_help = "Examples:\n  \
        cargo run --release -p sealane-tests --bin sim -- --seeds 10000\n  \
        cargo run --release -p sealane-tests --bin sim -- --seed 42            # one history, with the last that happened\n  \
        cargo run --release -p sealane-tests --bin sim -- --seeds 100 --broken no-fsync   # must fail"
)]
struct Args {
    /// How many seeds to run; 1 where --seed is given, else 200.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long)]
    seed: Option<u64>,
    /// A deliberate defect in the replicas, which the properties must catch.
    #[arg(long, value_parser = defects())]
    broken: Option<String>,
    /// Go on after a seed that does not hold, and count at the end which property did not and how often.
    #[arg(long)]
    keep_going: bool,
    /// Seeds that run at the same time; as many as the machine has processors where it is not given.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
}

fn defects() -> PossibleValuesParser {
    PossibleValuesParser::new(Fault::ALL.map(|(name, _, what)| PossibleValue::new(name).help(what)))
}

/// What a run has come to.
struct Tally {
    seeds: u64,
    counts: Counts,
    /// How often a property did not hold, and the first seed of which it did not.
    failed: BTreeMap<&'static str, (u64, u64)>,
    started: Instant,
    said: Instant,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let broken = args.broken.as_deref();
    let fault = broken.map(|name| sim::fault(name).context("no such defect")).transpose()?;
    let first = args.seed.unwrap_or(0);
    let seeds = args.seeds.unwrap_or(if args.seed.is_some() { 1 } else { 200 });
    let threads = args.threads.or_else(|| std::thread::available_parallelism().ok()).map_or(1, usize::from);
    // A replica that meets what must not be panics; that is a finding of the history, which says it itself.
    std::panic::set_hook(Box::new(|_| {}));
    let started = Instant::now();
    let mut tally =
        Tally { seeds: 0, counts: Counts::default(), failed: BTreeMap::new(), started, said: started };
    sim::sweep(first..first.saturating_add(seeds), fault, threads, |outcome| {
        tally.add(&outcome, seeds);
        match outcome.complaint(broken) {
            Some(_) if args.keep_going => {}
            Some(complaint) => {
                println!("{complaint}");
                return ControlFlow::Break(());
            }
            None if seeds == 1 => show(&outcome),
            None => {}
        }
        ControlFlow::Continue(())
    });
    tally.say(broken);
    Ok(if tally.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(outcome: &Outcome) {
    outcome.tail.iter().for_each(|line| println!("{line}"));
    println!("seed {}: hash {:016x}", outcome.seed, outcome.hash);
}

impl Tally {
    fn rate(&self) -> f64 {
        self.seeds as f64 / self.took()
    }

    fn took(&self) -> f64 {
        self.started.elapsed().as_secs_f64().max(1e-6)
    }

    fn add(&mut self, outcome: &Outcome, of: u64) {
        self.seeds += 1;
        self.counts = self.counts.and(outcome.counts);
        if let Some(violation) = &outcome.violation {
            self.failed.entry(violation.property).or_insert((0, outcome.seed)).0 += 1;
        }
        if self.said.elapsed() >= PROGRESS {
            self.said = Instant::now();
            eprintln!("{} of {of} seeds, {:.1} seeds/s", self.seeds, self.rate());
        }
    }

    fn say(&self, broken: Option<&str>) {
        let Tally { seeds, counts, failed, .. } = self;
        let (took, simulated) = (self.took(), counts.simulated_ms as f64 / 1000.0);
        println!(
            "{seeds} seeds in {took:.1} s: {:.1} seeds/s, {:.1} simulated hours, {:.0} times real time",
            self.rate(),
            simulated / 3600.0,
            simulated / took
        );
        println!("{counts}");
        for (property, (times, first)) in failed {
            println!("{property} did not hold {times} times, first: {}", sim::command(*first, broken));
        }
        if failed.is_empty() {
            println!("every property held");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_replay_command_is_understood_and_every_defect_is_in_the_help() {
        // However wide the terminal is, it is the same sentence.
        let help = Args::command().render_long_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for (name, _, what) in Fault::ALL {
            let command = sim::command(42, Some(name));
            let (_, arguments) = command.split_once(" -- ").unwrap();
            let args = Args::try_parse_from(["sim"].into_iter().chain(arguments.split(' '))).unwrap();
            assert_eq!((args.seed, args.broken.as_deref()), (Some(42), Some(name)));
            assert!(help.contains(name) && help.contains(what), "{help}");
        }
    }
}

//! From a change in one Kubernetes cluster to its arrival in another: at the EndpointSlices there, and at a proxy.
//!
//! Two real API servers on loopback, an agent beside each, one federation of three servers, one flat network; no nodes
//! and no pods, so that the machine measures Sealane and not kubelets. The clock starts before the request that changes
//! the EndpointSlice of one exported Service; each time the number of its endpoints is another one. It stops when a bare
//! watch in the other cluster tells of a slice with that number, and when the agent's delta with it is here: this process
//! is a proxy of that cluster (see [`crate::listener`]). Beside it a bare watch in the first cluster, for the same change:
//! the floor. Nothing waits for silence.

mod arrivals;
mod failures;
mod member;
mod services;
pub(crate) mod size;

use crate::agents::binary;
use crate::listener::{Listener, PROBE};
use crate::quantile::Samples;
use crate::report::{Report, Table};
use anyhow::{Context, Result, ensure};
use arrivals::Arrivals;
use member::Member;
use sealane::local::{Federation, Lab};
use services::{Going, Load, Spacing};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How long a change may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the other changes run before the first measured one.
const WARM_UP: Duration = Duration::from_secs(2);
/// What is asked of each load, at the proxy, beyond the floor.
const GOAL_P50_MS: f64 = 10.0;
const GOAL_P99_MS: f64 = 30.0;
/// What is asked of an export.
const GOAL_EXPORT_MS: f64 = 100.0;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many changes are measured under each load.
    #[arg(long, default_value_t = 200)]
    changes: u32,
    /// How many other Services the first cluster exports.
    #[arg(long, default_value_t = 300)]
    services: u32,
    /// How many endpoints each of them has.
    #[arg(long, default_value_t = 13)]
    endpoints: u32,
    /// The other changes a second, each rate evenly spaced and as a Poisson process, each in a run of its own.
    #[arg(long, value_delimiter = ',', default_values_t = [50, 500])]
    rates: Vec<u32>,
    /// The time from one arrival to the next change, half of it to one and a half.
    #[arg(long, default_value = "150", value_name = "MILLISECONDS")]
    pause: u64,
    /// How many exports are measured.
    #[arg(long, default_value_t = 50)]
    exports: u32,
    /// For how long the API server and the agent of the first cluster are away.
    #[arg(long, default_value = "30", value_name = "SECONDS")]
    away: u64,
}

/// What one load showed.
struct Measured {
    load: Load,
    floor: Samples,
    slice: Samples,
    proxy: Samples,
    slice_over: Samples,
    proxy_over: Samples,
    /// Other changes a second, as they were made.
    made: f64,
}

/// Whoever waits for the measured Service.
struct Watchers {
    floor: Arrivals,
    slice: Arrivals,
    proxy: Listener,
}

/// The two clusters.
struct World {
    west: Member,
    east: Member,
    /// How many changes of the measured Service there were.
    changes: u32,
    _federation: Federation,
}

impl World {
    async fn begin(lab: &Lab) -> Result<Self> {
        let federation = Federation::of(lab, 3).await?;
        let west = Member::enrol(&federation, lab, "west", 1).await?;
        let east = Member::enrol(&federation, lab, "east", 2).await?;
        Ok(World { west, east, changes: 0, _federation: federation })
    }

    /// The next change of the measured Service: how many endpoints it has then.
    fn next(&mut self) -> u32 {
        let count = services::ready(self.changes);
        self.changes += 1;
        count
    }
}

pub(crate) async fn run(args: Args) -> Result<Report> {
    ensure!(args.changes > 0 && args.services > 0 && args.endpoints > 1, "there is nothing to measure");
    ensure!(args.endpoints < 250 && args.services < 60_000, "there are not so many addresses");
    let lab = Lab::new(binary()?, &std::env::temp_dir(), "warn,sealane=info")?;
    let mut world = World::begin(&lab).await?;
    eprintln!("{} Services are on their way to east", args.services + 1);
    services::begin(&world.west, args.services, args.endpoints).await?;
    let mut watchers = Watchers {
        floor: Arrivals::of_probe(&world.west.client, "kubernetes.io/service-name"),
        slice: Arrivals::of_probe(&world.east.client, "multicluster.kubernetes.io/service-name"),
        proxy: Listener::open(&world.east.listener().await?).await?,
    };
    watchers.proxy.until_known(args.services + 1, PATIENCE).await?;
    timeout(PATIENCE, watchers.slice.endpoints(8)).await.context("no slice came to east")??;
    let mut all = Vec::new();
    for load in loads(&args.rates) {
        eprintln!("{} changes, {}", args.changes, tell(load));
        all.push(measure(&args, load, &mut world, &mut watchers).await?);
    }
    let exports = exports(&args, &world).await?;
    let failures = failures::run(&mut world, &mut watchers, Duration::from_secs(args.away)).await?;
    Ok(report(&args, &all, &exports, failures))
}

/// Rest, then each rate in both spacings.
fn loads(rates: &[u32]) -> Vec<Load> {
    let rates = rates.iter().copied().filter(|rate| *rate > 0);
    let each = rates.flat_map(|rate| [Spacing::Even, Spacing::Poisson].map(|spacing| Load { rate, spacing }));
    std::iter::once(Load { rate: 0, spacing: Spacing::Even }).chain(each).collect()
}

fn tell(load: Load) -> String {
    match (load.rate, load.spacing) {
        (0, _) => "at rest".to_owned(),
        (rate, Spacing::Even) => format!("{rate}/s evenly"),
        (rate, Spacing::Poisson) => format!("{rate}/s Poisson"),
    }
}

async fn measure(args: &Args, load: Load, world: &mut World, watchers: &mut Watchers) -> Result<Measured> {
    let going = Going::begin(&world.west.client, load, args.services, args.endpoints);
    tokio::time::sleep(WARM_UP).await;
    let (began, made) = (Instant::now(), going.made());
    let [mut floor, mut slice, mut proxy] = [Samples::default(), Samples::default(), Samples::default()];
    let [mut slice_over, mut proxy_over] = [Samples::default(), Samples::default()];
    for number in 0..args.changes {
        // No two pauses alike in a row, or the change would keep step with the other changes.
        let pause = args.pause / 2 + u64::from(number.wrapping_mul(7919)) % args.pause.max(1);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let [at_floor, at_slice, at_proxy] = once(world, watchers).await?;
        floor.push(at_floor);
        slice.push(at_slice);
        proxy.push(at_proxy);
        slice_over.push(at_slice.saturating_sub(at_floor));
        proxy_over.push(at_proxy.saturating_sub(at_floor));
    }
    let made = (going.made() - made) as f64 / began.elapsed().as_secs_f64();
    going.end().await?;
    Ok(Measured { load, floor, slice, proxy, slice_over, proxy_over, made })
}

/// Changes the measured Service once. Gives the time to the bare watch beside it, to the slice and to the proxy.
async fn once(world: &mut World, watchers: &mut Watchers) -> Result<[Duration; 3]> {
    let count = world.next();
    watchers.floor.forget();
    watchers.slice.forget();
    watchers.proxy.expect(count);
    let start = Instant::now();
    services::change(&world.west.client, PROBE, 1, count).await?;
    let (floor, slice, proxy) = tokio::try_join!(
        within("the bare watch", watchers.floor.endpoints(count as usize)),
        within("the EndpointSlices of east", watchers.slice.endpoints(count as usize)),
        within("the proxy", watchers.proxy.came()),
    )?;
    Ok([floor - start, slice - start, proxy - start])
}

/// Waits for an arrival; an error names where it did not come.
async fn within(place: &str, came: impl Future<Output = Result<Instant>>) -> Result<Instant> {
    timeout(PATIENCE, came).await.with_context(|| format!("a change did not arrive at {place}"))?
}

/// From the making of a ServiceExport to its ServiceImport in the other cluster.
async fn exports(args: &Args, world: &World) -> Result<Samples> {
    eprintln!("{} exports", args.exports);
    let mut imports = Arrivals::of_imports(&world.east.client);
    let mut samples = Samples::default();
    for number in 0..args.exports {
        let name = format!("late-{number}");
        services::make(&world.west.client, &name, 2, 2, false).await?;
        tokio::time::sleep(Duration::from_millis(args.pause)).await;
        let start = Instant::now();
        services::export(&world.west.client, &name).await?;
        let came = timeout(PATIENCE, imports.named(&name)).await.context("an export did not arrive")??;
        samples.push(came - start);
    }
    Ok(samples)
}

fn report(args: &Args, all: &[Measured], exports: &Samples, failures: Vec<[String; 2]>) -> Report {
    let mut report = Report::new("From a change in one Kubernetes cluster to another");
    let millis =
        |samples: &Samples, share: f64| samples.quantile(share).map_or(0.0, |d| d.as_secs_f64() * 1000.0);
    let met = |met: bool| if met { "met" } else { "missed" };
    for m in all {
        let (p50, p99) = (millis(&m.proxy_over, 0.5), millis(&m.proxy_over, 0.99));
        report.ratios.push(format!(
            "{}: at the proxy p50 {p50:.1} ms and p99 {p99:.1} ms over a bare watch (goal 10 and 30: {}), at the \
             EndpointSlice {:.1} and {:.1}",
            tell(m.load),
            met(p50 <= GOAL_P50_MS && p99 <= GOAL_P99_MS),
            millis(&m.slice_over, 0.5),
            millis(&m.slice_over, 0.99),
        ));
    }
    let p99 = millis(exports, 0.99);
    report.ratios.push(format!(
        "From export to import: p50 {:.1} ms, p99 {p99:.1} ms (goal 100 at p99: {})",
        millis(exports, 0.5),
        met(p99 <= GOAL_EXPORT_MS)
    ));
    report.tables = vec![times(all, exports)];
    let mut table = Table::new("Failures:", &["what failed", "what was seen"]);
    table.rows = failures.into_iter().map(Vec::from).collect();
    report.tables.push(table);
    report.notes.push(format!(
        "Two API servers of Kubernetes 1.37, each with an etcd and an agent, three federation servers, one flat network. \
         {} changes under each load, one after another, {} ms apart in the mean; west exports {} other Services of {} \
         endpoints each, all imported by east.",
        args.changes, args.pause, args.services, args.endpoints
    ));
    report.notes.push(
        "Everything runs on this machine: both API servers, both etcds, the three servers' commits with fsync, the one \
         who makes the other changes, the watches and this proxy."
            .to_owned(),
    );
    report
}

fn times(all: &[Measured], exports: &Samples) -> Table {
    let mut columns = vec!["load".to_owned(), "other changes made /s".to_owned()];
    for what in ["proxy over", "slice over", "proxy", "slice", "floor"] {
        columns.extend(["p50", "p99", "max"].map(|share| format!("{what} {share}")));
    }
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let mut table = Table::new("Milliseconds, over the floor first:", &columns);
    let three = |s: &Samples| [0.5, 0.99, 1.0].map(|share| s.millis(share));
    for m in all {
        let mut row = vec![tell(m.load), format!("{:.1}", m.made)];
        row.extend([&m.proxy_over, &m.slice_over, &m.proxy, &m.slice, &m.floor].into_iter().flat_map(three));
        table.rows.push(row);
    }
    let mut row = vec!["export to import".to_owned(), "0.0".to_owned()];
    row.extend(std::iter::repeat_n("-".to_owned(), 9));
    row.extend(three(exports));
    row.extend(std::iter::repeat_n("-".to_owned(), 3));
    table.rows.push(row);
    table
}

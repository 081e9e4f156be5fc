//! From a change of an endpoint in one cluster to its arrival at a proxy of another.
//!
//! The topology is the demo's, of the real binary. `west` exports many services through its gateway; one of them is
//! changed by writing its EndpointSlice anew, and each time the number of its ready endpoints, which is the gateway's
//! weight in `east`, is another one. The clock starts before the file is written, and stops when the delta with that
//! weight is here: this process is a proxy of `east` (see [`listener`]). Beside it a bare watch on the same directory
//! tells when the operating system told of the change, for the same change: the floor. Nothing waits for silence: the
//! next change is made at a moment of its own, and the other changes go on.

mod load;
mod manifests;

use crate::agents::binary;
use crate::listener::{self, Listener};
use crate::quantile::Samples;
use crate::report::{Report, Table};
use anyhow::{Context, Result, ensure};
use load::{Load, Work};
use manifests::Manifests;
use notify::event::{EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use sealane::demo::world::World;
use sealane::local::{Federation, Lab};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long a change may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the other changes run before the first measured one.
const WARM_UP: Duration = Duration::from_secs(1);
/// What is asked of each load, beyond the floor.
const GOAL_P50_MS: f64 = 10.0;
const GOAL_P99_MS: f64 = 30.0;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many changes are measured under each load.
    #[arg(long, default_value_t = 200)]
    changes: u32,
    /// How many other services `west` exports.
    #[arg(long, default_value_t = 100)]
    services: u32,
    /// How many endpoints each of them has.
    #[arg(long, default_value_t = 5)]
    endpoints: u32,
    /// The other changes a second, each rate in a run of its own.
    #[arg(long, value_delimiter = ',', default_values_t = [50, 500])]
    rates: Vec<u32>,
    /// The time from one arrival to the next change, half of it to one and a half.
    #[arg(long, default_value = "150", value_name = "MILLISECONDS")]
    pause: u64,
}

/// What one load showed.
struct Measured {
    load: Load,
    /// From before the write to the arrival.
    arrival: Samples,
    /// From before the write to the bare watch.
    floor: Samples,
    /// The one less the other, change by change.
    over: Samples,
    /// Other changes a second, as they were made.
    made: f64,
    /// Other imports a second that came to the proxy: several changes may come as one.
    came: f64,
}

pub(crate) async fn run(args: Args) -> Result<Report> {
    ensure!(args.changes > 0 && args.services > 0 && args.endpoints > 1, "there is nothing to measure");
    let lab = Lab::new(binary()?, &std::env::temp_dir(), "warn,sealane=info")?;
    let federation = Federation::of(&lab, 3).await?;
    let mut world = World::enrol(federation, &lab).await?;
    world.populate().await?;
    let manifests = Manifests::new(args.services, args.endpoints);
    manifests.begin(&world.west)?;
    let mut listener = Listener::open(&world.east.workload_token("listener", &listener::WHOM).await?).await?;
    eprintln!("{} services are on their way to east", args.services + 1);
    listener.until_known(args.services + 1, PATIENCE).await?;
    let mut floor = Floor::watch(world.west.root().join("manifests"))?;
    let mut all = Vec::new();
    let work = Work::new(manifests, &world).await?;
    for load in Load::all(&args.rates) {
        eprintln!("{} changes, {load}", args.changes);
        all.push(measure(&args, load, &world, &work, &mut listener, &mut floor).await?);
        let ended = world.ended();
        ensure!(ended.is_empty(), "ended meanwhile: {}", ended.join(", "));
    }
    Ok(report(&args, &all))
}

async fn measure(
    args: &Args,
    load: Load,
    world: &World,
    work: &Work,
    listener: &mut Listener,
    floor: &mut Floor,
) -> Result<Measured> {
    let going = work.begin(load, &world.west)?;
    tokio::time::sleep(WARM_UP).await;
    let (began, seen, made) = (Instant::now(), listener.others(), going.made());
    let mut measured = Measured {
        load,
        arrival: Samples::default(),
        floor: Samples::default(),
        over: Samples::default(),
        made: 0.0,
        came: 0.0,
    };
    for number in 0..args.changes {
        // No two pauses alike in a row, or the change would keep step with the other changes.
        let pause = args.pause / 2 + u64::from(number.wrapping_mul(7919)) % args.pause.max(1);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let ready = work.manifests.ready();
        let change = work.manifests.probe(ready);
        let path = change.place(&world.west);
        floor.forget();
        listener.expect(ready);
        let start = Instant::now();
        change.write(&world.west)?;
        let told = timeout(PATIENCE, floor.told(&path)).await.context("the bare watch saw nothing")??;
        let came = timeout(PATIENCE, listener.came()).await.context("a change did not arrive in east")??;
        measured.arrival.push(came - start);
        measured.floor.push(told - start);
        measured.over.push(came.saturating_duration_since(told));
    }
    let seconds = began.elapsed().as_secs_f64();
    measured.came = (listener.others() - seen) as f64 / seconds;
    measured.made = (going.made() - made) as f64 / seconds;
    going.end().await?;
    Ok(measured)
}

/// A bare watch on the manifest directory.
struct Floor {
    notices: mpsc::UnboundedReceiver<(Instant, PathBuf)>,
    _watcher: RecommendedWatcher,
}

impl Floor {
    fn watch(directory: PathBuf) -> Result<Self> {
        // Drained at every change; what comes between two is bounded by the load.
        let (sender, notices) = mpsc::unbounded_channel();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let now = Instant::now();
            let renamed = event.ok().filter(|e| matches!(e.kind, EventKind::Modify(ModifyKind::Name(_))));
            for path in renamed.into_iter().flat_map(|e| e.paths) {
                // Who listened may be done.
                let _ = sender.send((now, path));
            }
        })?;
        watcher.watch(&directory, RecursiveMode::NonRecursive)?;
        Ok(Floor { notices, _watcher: watcher })
    }

    fn forget(&mut self) {
        while self.notices.try_recv().is_ok() {}
    }

    async fn told(&mut self, wanted: &PathBuf) -> Result<Instant> {
        loop {
            let (at, path) = self.notices.recv().await.context("the bare watch ended")?;
            if path == *wanted {
                return Ok(at);
            }
        }
    }
}

fn report(args: &Args, all: &[Measured]) -> Report {
    let mut report = Report::new("From a change in west to a proxy in east");
    for m in all {
        let over = |share: f64| m.over.quantile(share).map_or(0.0, |d| d.as_secs_f64() * 1000.0);
        let met = over(0.5) <= GOAL_P50_MS && over(0.99) <= GOAL_P99_MS;
        report.ratios.push(format!(
            "{}: p50 {:.1} ms and p99 {:.1} ms over a bare file watch (goal 10 and 30: {})",
            capitalised(&m.load.to_string()),
            over(0.5),
            over(0.99),
            if met { "met" } else { "missed" }
        ));
    }
    report.tables = vec![times(all), rates(all)];
    report.notes.push(format!(
        "Demo topology: three servers, clusters east, west and edge with agents, gateways and sidecars; {} changes \
         under each load, one after another, {} ms apart in the mean. west exports {} other services of {} endpoints \
         each, all imported by east.",
        args.changes, args.pause, args.services, args.endpoints
    ));
    report.notes.push(
        "A change writes an EndpointSlice whole and renames it into place. It counts as arrived when this process, \
         which is a proxy of east by a workload token, has received the delta that carries the new weight. Over the \
         floor: less the moment at which a bare inotify watch of this process told of the same change."
            .to_owned(),
    );
    report.notes.push(
        "Everything runs on this machine, the writer of the other changes and this proxy too.".to_owned(),
    );
    report
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn times(all: &[Measured]) -> Table {
    let columns = [
        "load",
        "over p50",
        "over p99",
        "over max",
        "arrival p50",
        "arrival p99",
        "arrival max",
        "floor p50",
        "floor p99",
        "floor max",
    ];
    let mut table = Table::new("Milliseconds, over the floor first:", &columns);
    for m in all {
        let three = |s: &Samples| [0.5, 0.99, 1.0].map(|share| s.millis(share));
        let mut row = vec![m.load.to_string()];
        row.extend([&m.over, &m.arrival, &m.floor].into_iter().flat_map(three));
        table.rows.push(row);
    }
    table
}

fn rates(all: &[Measured]) -> Table {
    let columns = ["load", "measured changes", "other changes made /s", "other imports at the proxy /s"];
    let mut table =
        Table::new("What went on meanwhile (several changes of a service may come as one):", &columns);
    for m in all {
        table.rows.push(vec![
            m.load.to_string(),
            m.arrival.len().to_string(),
            format!("{:.1}", m.made),
            format!("{:.1}", m.came),
        ]);
    }
    table
}

//! Requests and bytes through sidecar, gateway and sidecar: Sealane's chain beside Envoy's in the same places and
//! beside the direct connection, in turns, on the same client and the same backend.
//!
//! Law: every load is the same code for every target, what is counted begins when connections stand and are warm, and
//! the processor time of each process is what the kernel says. Each repetition starts every process anew.

mod backend;
mod envoy;
mod hop;
mod load;
mod namespace;
mod sealane;
mod tell;

use crate::peers::ENVOY;
use crate::report::Report;
use ::sealane::local::Lab;
use anyhow::{Context, Result, ensure};
use backend::Backend;
use hop::Hops;
use load::{Done, Target};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long idle connections rest before memory is looked at.
const REST: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// How often everything is measured; each time with new processes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    repetitions: u16,
    /// How long each load is counted.
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Clients of the closed loop.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Requests a second of the open loop.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Connections that rest while memory is looked at.
    #[arg(long, default_value_t = 1000)]
    idle: usize,
    /// Only these loads; all of them by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Load>,
}

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    /// Client and backend with nothing between.
    Direct,
    /// The peer.
    Envoy,
    /// Ourselves.
    Sealane,
}

/// What is done to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Load {
    /// Closed loop of small requests.
    Requests,
    /// Open loop of small requests.
    Paced,
    /// One stream to the backend.
    Upload,
    /// One stream from the backend.
    Download,
    /// New connections.
    Connects,
}

const LOADS: [Load; 5] = [Load::Requests, Load::Paced, Load::Upload, Load::Download, Load::Connects];

/// What the hops of a chain hold, in bytes.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    /// After the first request.
    fresh: Vec<u64>,
    /// With idle connections.
    idle: Vec<u64>,
}

/// One time through everything.
#[derive(Debug, Default)]
pub(crate) struct Repetition {
    loads: BTreeMap<(Load, Who), Done>,
    memory: BTreeMap<Who, Memory>,
    /// A sidecar of the program that is a proxy and nothing else, after its first request, in bytes.
    small: Option<u64>,
}

pub(crate) async fn run(args: Args) -> Result<Report> {
    let envoy = ENVOY.fetch().await?;
    let binary = binary()?;
    ensure!(binary.exists(), "there is no {}: build the workspace first, in this profile", binary.display());
    let outside = if namespace::inside() {
        None
    } else {
        let Err(why) = namespace::enter();
        Some(why)
    };
    raise_descriptor_limit()?;
    let mut repetitions = Vec::new();
    for number in 0..args.repetitions {
        eprintln!("repetition {} of {}", number + 1, args.repetitions);
        repetitions.push(repeat(&args, &binary, &envoy, number.into()).await?);
    }
    Ok(tell::report(&args, &repetitions, outside))
}

/// The binary under test: that of `SEALANE_BIN`, or the one of this build.
fn binary() -> Result<PathBuf> {
    if let Some(binary) = std::env::var_os("SEALANE_BIN") {
        return std::path::absolute(PathBuf::from(binary)).context("SEALANE_BIN is no path");
    }
    let own = std::env::current_exe().context("no path of the benchmark itself")?;
    Ok(own.with_file_name("sealane"))
}

async fn repeat(args: &Args, binary: &Path, envoy: &Path, number: usize) -> Result<Repetition> {
    let lab = Lab::new(binary.to_owned(), &std::env::temp_dir(), "info")?;
    let ours = sealane::Chain::start(&lab).await?;
    let at = sealane::backend(&lab);
    let backend = Arc::new(Backend::start(at)?);
    let target = |entry, hops| Target { entry, hops, backend: Arc::clone(&backend) };
    let peer = envoy::Chain::start(&lab, envoy, at).await?;
    let targets = BTreeMap::from([
        (Who::Direct, target(at, Hops::default())),
        (Who::Envoy, target(peer.entry, peer.hops.clone())),
        (Who::Sealane, target(ours.stand().await?, ours.hops()?)),
    ]);
    let args = args.clone();
    // The loads are threads of their own, and block.
    let small = ours.small(&lab, binary).await?;
    let measured = tokio::task::spawn_blocking(move || measure(&args, &targets, number)).await?;
    drop((ours, peer));
    Ok(Repetition { small, ..measured? })
}

fn measure(args: &Args, targets: &BTreeMap<Who, Target>, number: usize) -> Result<Repetition> {
    let mut found = Repetition::default();
    if args.idle > 0 {
        for who in [Who::Envoy, Who::Sealane] {
            let target = &targets[&who];
            let fresh = target.hops.resident()?;
            let idle = target.idle(args.idle, REST).with_context(|| format!("idle, {who:?}"))?;
            found.memory.insert(who, Memory { fresh, idle });
        }
    }
    let wanted = |load: &Load| args.only.is_empty() || args.only.contains(load);
    for (place, load) in LOADS.into_iter().filter(wanted).enumerate() {
        let mut order: Vec<_> = targets.iter().collect();
        // Nobody is always first, when the machine may still be busy with what was before.
        order.rotate_left((place + number) % targets.len());
        for (who, target) in order {
            let done = apply(load, args, target).with_context(|| format!("{load:?}, {who:?}"))?;
            eprintln!("  {load:?} {who:?}: {:.0} a second", done.rate());
            found.loads.insert((load, *who), done);
        }
    }
    Ok(found)
}

fn apply(load: Load, args: &Args, target: &Target) -> Result<Done> {
    let span = Duration::from_secs(args.seconds);
    match load {
        Load::Requests => target.requests(args.clients, span),
        Load::Paced => target.paced(args.rate, span),
        Load::Upload => target.upload(span),
        Load::Download => target.download(span),
        Load::Connects => target.connects(span),
    }
}

/// A thousand connections are two thousand descriptors here.
fn raise_descriptor_limit() -> Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("can not raise the limit of open files")
}

//! `sealane demo`: a whole federation on this machine, that proves what it claims.
//!
//! Law: every line marked `ok` was verified on real output of real processes before it was printed; the first claim
//! that does not hold ends the demo with its reason, and a non-zero exit code. Each step is a function of the world,
//! and an end-to-end test as well.

pub mod console;
pub mod crossing;
pub mod enrolment;
pub mod failover;
pub mod liveness;
pub mod networks;
pub mod store;
pub mod unexport;
pub mod world;

use crate::local::Lab;
use anyhow::{Context, Result};
use console::Console;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use world::World;

/// `sealane demo`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Everything runs on loopback addresses of its own (127.x) and in one temporary directory; with the \
                        demo's end both are free again, however it ends.\n\nExamples:\n  sealane demo\n  sealane demo \
                        --keep            leaves it running, with commands to try, until Ctrl-C\n  sealane demo \
                        --verbose         shows where the logs are, and keeps them in more detail"
)]
pub struct DemoArgs {
    /// Leave everything running at the end, until Ctrl-C, and print commands to try.
    #[arg(long)]
    pub keep: bool,
    /// Where the demo's directory is made [default: the system's temporary directory].
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Log in more detail, and say where.
    #[arg(long, short)]
    pub verbose: bool,
}

/// Runs the demo until its end or a signal.
///
/// # Errors
/// When a claim does not hold.
pub async fn run(args: DemoArgs) -> Result<ExitCode> {
    let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .map(signal)
        .into_iter()
        .collect::<std::io::Result<Vec<_>>>()
        .context("can not listen for signals")?;
    let stopped = async {
        let waiting = signals.iter_mut().map(|s| Box::pin(s.recv()));
        futures::future::select_all(waiting).await;
    };
    // On a signal the demo is dropped where it stands, and with it every process and file.
    tokio::select! {
        result = demo(&args) => result.map(|()| ExitCode::SUCCESS),
        () = stopped => Ok(ExitCode::from(130)),
    }
}

async fn demo(args: &DemoArgs) -> Result<()> {
    let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let binary = std::env::current_exe().context("can not find this binary")?;
    let filter = if args.verbose { "debug,h2=info,hyper=info,sled=info" } else { "info" };
    let lab = Lab::new(binary, &parent, filter)?;
    let mut console = Console::loud();
    console.print(&format!("Sealane: one federation, three clusters, on {}", lab.block()));
    if args.verbose {
        console.note(&format!("logs: {}", lab.launcher().logs().display()));
    }
    let result = prove(&lab, &mut console, args.keep).await;
    if result.is_err() {
        // The logs leave with the directory.
        show_logs(&lab);
    }
    result
}

async fn prove(lab: &Lab, console: &mut Console, keep: bool) -> Result<()> {
    let mut world = enrolment::enrol(lab, console).await?;
    steps(&mut world, console).await?;
    console.summary();
    console.print("\nEvery claim above was verified.");
    if keep {
        leave_running(&mut world, console).await?;
    }
    Ok(())
}

/// Every step after the enrolment, in order.
///
/// # Errors
/// When a claim does not hold.
pub async fn steps(world: &mut World, console: &mut Console) -> Result<()> {
    crossing::export_becomes_callable(world, console).await?;
    crossing::both_identities(world, console).await?;
    crossing::ciphertext_only(world, console).await?;
    networks::direct_and_overlapping(world, console).await?;
    failover::local_first(world, console).await?;
    store::leader_killed(world, console).await?;
    store::all_servers_down(world, console).await?;
    liveness::agent_killed(world, console, liveness::MARGIN).await?;
    liveness::cluster_killed(world, console).await?;
    unexport::refused(world, console).await
}

/// The last warnings and errors of every process, for whoever wants to know why.
pub fn show_logs(lab: &Lab) {
    let Ok(entries) = std::fs::read_dir(lab.launcher().logs()) else { return };
    for entry in entries.flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let telling = |l: &&str| l.contains("WARN") || l.contains("ERROR") || l.contains("panicked");
        let lines: Vec<&str> = text.lines().filter(telling).collect();
        if !lines.is_empty() {
            let last = lines[lines.len().saturating_sub(4)..].join("\n    ");
            eprintln!("  {}:\n    {last}", entry.file_name().to_string_lossy());
        }
    }
}

async fn leave_running(world: &mut World, console: &Console) -> Result<()> {
    let context = world.federation.context.display();
    let road = World::road(&world.east, "cart")?;
    let admin = world.east.pod("client")?.admin;
    console.print(&format!(
        "\nIt keeps running until Ctrl-C. Try, in another terminal:\n\n  export SEALANE_CONTEXT={context}\n  sealane \
         status\n  sealane clusters\n  sealane explain shop/cart --from east\n  curl -s {road}\n  curl -s \
         http://{admin}/connections\n\n(the cluster west was killed above; logs are in {})",
        world.lab.launcher().logs().display()
    ));
    std::future::pending().await
}

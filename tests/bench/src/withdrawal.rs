//! From the loss of a whole Kubernetes cluster to its withdrawal from the EndpointSlices of another.
//!
//! Two clusters with nodes and pods on one flat network, Sealane in both by its charts; no gateways. The clock starts
//! before the signal to every process of the one cluster, and stops when kubectl finds none of its endpoints in the other.

use crate::quantile::Samples;
use crate::report::{Report, Table};
use crate::store::directory;
use anyhow::{Result, ensure};
use rustix::process::Signal;
use sealane_tests::clusters::{Losing, Place, Product, down};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often the cluster is stopped, and continued when it was withdrawn.
    #[arg(long, default_value_t = 10)]
    repetitions: usize,
    /// Where the clusters keep what they write [default: target/bench].
    #[arg(long)]
    directory: Option<PathBuf>,
}

/// Takes the clusters down in the end, also when it is interrupted.
pub(crate) async fn run(args: Args) -> Result<Report> {
    ensure!(args.repetitions > 0, "there is nothing to measure");
    let place = Place::at(&directory(args.directory.as_deref()).join("clusters"))?;
    let measured = tokio::select! {
        measured = measure(place.clone(), args.repetitions) => measured,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    let cleared = down(&place).await;
    let report = measured?;
    cleared.map(|()| report)
}

async fn measure(place: Place, repetitions: usize) -> Result<Report> {
    let losing = Losing::begin(place, &Product::of_this_build().await?).await?;
    let (mut hung, mut back, mut lost) = (Samples::default(), Samples::default(), Samples::default());
    for repetition in 1..=repetitions {
        eprintln!("stop {repetition} of {repetitions}");
        hung.push(losing.withdrawn(Signal::STOP).await?);
        back.push(losing.back().await?);
    }
    eprintln!("the last kill");
    lost.push(losing.withdrawn(Signal::KILL).await?);
    let mut report =
        Report::new("From the loss of a whole Kubernetes cluster to its withdrawal from another");
    let columns = ["event", "times", "p50 (ms)", "max (ms)"];
    let mut table = Table::new("As kubectl finds it in the EndpointSlices of the other cluster.", &columns);
    for (event, samples) in [
        ("every process stopped, until withdrawn (goal 10000)", &hung),
        ("every process continued, until its endpoints are back", &back),
        ("every process killed, until withdrawn (goal 10000)", &lost),
    ] {
        let count = samples.len().to_string();
        table.rows.push(vec![event.to_owned(), count, samples.millis(0.5), samples.millis(1.0)]);
    }
    report.tables.push(table);
    report.notes.push(
        "one flat network, no gateways, leases of 5 s; the servers run in the other cluster".to_owned(),
    );
    Ok(report)
}

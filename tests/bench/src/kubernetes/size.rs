//! What an agent needs where its cluster has very many Services, endpoints and Pods: all of them exported.

use super::member::Member;
use super::services::{make, other};
use crate::agents::binary;
use crate::listener::NAMESPACE;
use crate::report::{Report, Table};
use crate::usage;
use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use sealane::local::{Federation, Lab, Process, wait};
use serde_json::json;
use std::time::{Duration, Instant};

/// How many objects are made at once.
const AT_ONCE: usize = 64;
/// How long everything may take to be known.
const PATIENCE: Duration = Duration::from_secs(300);
/// For how long an agent at rest is looked at.
const REST: Duration = Duration::from_secs(20);
const MIB: f64 = 1024.0 * 1024.0;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many Services the first cluster exports.
    #[arg(long, default_value_t = 10_000)]
    services: u32,
    /// How many endpoints each of them has, each with its Pod.
    #[arg(long, default_value_t = 10)]
    endpoints: u32,
}

/// One agent at one moment.
struct Look {
    when: &'static str,
    west: (f64, f64),
    east: (f64, f64),
}

pub(crate) async fn run(args: Args) -> Result<Report> {
    ensure!(args.services < 65_000 && args.endpoints < 250, "there are not so many addresses");
    let lab = Lab::new(binary()?, &std::env::temp_dir(), "warn,sealane=info")?;
    let federation = Federation::of(&lab, 3).await?;
    let mut west = Member::enrol(&federation, &lab, "west", 1).await?;
    let east = Member::enrol(&federation, &lab, "east", 2).await?;
    let mut looks = vec![look("empty", &west, &east)?];
    let began = Instant::now();
    populate(&west.client, &args).await?;
    let made = began.elapsed();
    known(&east, args.services).await?;
    let arrived = began.elapsed();
    looks.push(look("after everything was made", &west, &east)?);
    tokio::time::sleep(REST).await;
    looks.push(look("20 s later", &west, &east)?);
    eprintln!("the agent of west starts anew");
    west.agent.take().context("the agent of west runs")?.kill();
    let again = Instant::now();
    west.start().await?;
    let ready = again.elapsed();
    wait::until_true("all is exported again", PATIENCE, async || {
        let status = west.status().await?;
        Ok(status["session"]["synced"] == true)
    })
    .await?;
    let synced = again.elapsed();
    looks.push(look("west started anew", &west, &east)?);
    Ok(report(&args, &looks, [made, arrived, ready, synced]))
}

async fn populate(client: &Client, args: &Args) -> Result<()> {
    let total = args.services;
    let making = stream::iter(0..total).map(async |number| {
        if number % 1000 == 0 {
            eprintln!("Service {number} of {total}");
        }
        make(client, &other(number), number, args.endpoints, true).await?;
        for pod in 0..args.endpoints {
            make_pod(client, number, pod).await?;
        }
        anyhow::Ok(())
    });
    making.buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.context("can not make the Services")?;
    Ok(())
}

/// A Pod that runs, as far as the API server is told, with the address of an endpoint.
async fn make_pod(client: &Client, number: u32, pod: u32) -> Result<()> {
    let name = format!("{}-{pod}", other(number));
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let body = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": other(number)}},
        "spec": {"nodeName": "node", "serviceAccountName": "web", "automountServiceAccountToken": false,
            "containers": [{"name": "web", "image": "web"}]}});
    pods.create(&PostParams::default(), &serde_json::from_value(body)?).await?;
    let address = format!("10.{}.{}.{}", number >> 8, number & 255, pod + 1);
    let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}});
    pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await?;
    Ok(())
}

async fn known(east: &Member, services: u32) -> Result<()> {
    wait::until_true("all is imported", PATIENCE, async || {
        let status = east.status().await?;
        // An import, its Service and its slice.
        let objects = status["output"]["files"].as_u64().unwrap_or(0);
        ensure!(objects >= u64::from(services) * 3, "{objects} objects");
        Ok(true)
    })
    .await?;
    Ok(())
}

fn look(when: &'static str, west: &Member, east: &Member) -> Result<Look> {
    let of = |process: &Process| -> Result<(f64, f64)> {
        Ok((process.resident()? as f64 / MIB, usage::cpu(process.id())?.as_secs_f64()))
    };
    Ok(Look { when, west: of(west.agent()?)?, east: of(east.agent()?)? })
}

fn report(args: &Args, looks: &[Look], [made, arrived, ready, synced]: [Duration; 4]) -> Report {
    let mut report = Report::new("An agent of a very large cluster");
    let last = looks.get(2);
    let memory = last.map_or((0.0, 0.0), |l| (l.west.0, l.east.0));
    report.ratios.push(format!(
        "{} Services of {} endpoints and their Pods: {:.0} MiB in the agent that exports them, {:.0} MiB in the one that \
         imports them",
        args.services, args.endpoints, memory.0, memory.1
    ));
    let columns =
        ["when", "west: resident MiB", "west: CPU s so far", "east: resident MiB", "east: CPU s so far"];
    let mut table = Table::new("The agents of west, which exports, and of east, which imports:", &columns);
    for l in looks {
        let figures = [l.west.0, l.west.1, l.east.0, l.east.1].map(|figure| format!("{figure:.1}"));
        table.rows.push(std::iter::once(l.when.to_owned()).chain(figures).collect());
    }
    let mut times = Table::new("Seconds:", &["what", "s"]);
    for (what, time) in [
        ("to make everything in west, by 64 at once", made),
        ("until east had written its imports, Services and slices, from the same beginning", arrived),
        ("from the restart of west's agent until it said ready", ready),
        ("until the store had its whole catalog again", synced),
    ] {
        times.rows.push(vec![what.to_owned(), format!("{:.1}", time.as_secs_f64())]);
    }
    report.tables = vec![table, times];
    report.notes.push(
        "Two API servers of Kubernetes 1.37 with their etcds, three federation servers and both agents on this machine. The \
         Pods are objects with an address and nothing runs in them; a started agent counts its processor time anew."
            .to_owned(),
    );
    report
}

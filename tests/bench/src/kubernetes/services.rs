//! The Services of a cluster: one that is measured, and many others that change meanwhile.

use super::member::Member;
use crate::listener::{NAMESPACE, PROBE};
use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// How many objects are made at once.
const AT_ONCE: usize = 32;
/// How many changes may be under way at once; one that finds no room waits, and is counted when it was made.
const UNDER_WAY: usize = 64;

/// How many endpoints the measured Service has after its change of this number: never as many as before it.
pub(super) fn ready(number: u32) -> u32 {
    [7, 8, 6, 5][number as usize % 4]
}

/// The name of another Service.
pub(super) fn other(number: u32) -> String {
    format!("other-{number}")
}

/// The slices of exported Services.
pub(super) fn slices(client: &Client) -> Api<EndpointSlice> {
    Api::namespaced(client.clone(), NAMESPACE)
}

/// The objects of a kind of the MCS API.
pub(super) fn mcs(client: &Client, kind: &str, plural: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("multicluster.x-k8s.io", "v1beta1", kind);
    Api::namespaced_with(client.clone(), NAMESPACE, &ApiResource::from_gvk_with_plural(&kind, plural))
}

fn endpoints(block: u32, count: u32) -> Value {
    let (high, low) = (block >> 8, block & 255);
    let endpoint = |at: u32| json!({"addresses": [format!("10.{high}.{low}.{}", at + 1)], "conditions": {"ready": true}});
    (0..count).map(endpoint).collect()
}

/// Makes a Service with so many endpoints, and exports it unless it is not to be.
pub(super) async fn make(client: &Client, name: &str, block: u32, count: u32, export: bool) -> Result<()> {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"ports": [{"name": "http", "port": 80}]}});
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{name}-1"), "labels": {"kubernetes.io/service-name": name}},
        "endpoints": endpoints(block, count), "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]});
    let params = PostParams::default();
    Api::namespaced(client.clone(), NAMESPACE)
        .create(&params, &serde_json::from_value::<k8s_openapi::api::core::v1::Service>(service)?)
        .await?;
    slices(client).create(&params, &serde_json::from_value(slice)?).await?;
    if export {
        self::export(client, name).await?;
    }
    Ok(())
}

/// Exports a Service.
pub(super) async fn export(client: &Client, name: &str) -> Result<()> {
    let export = json!({"apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport",
        "metadata": {"name": name, "namespace": NAMESPACE}});
    let exports = mcs(client, "ServiceExport", "serviceexports");
    exports.create(&PostParams::default(), &serde_json::from_value(export)?).await?;
    Ok(())
}

/// Makes the measured Service and the others.
pub(super) async fn begin(member: &Member, services: u32, count: u32) -> Result<()> {
    make(&member.client, PROBE, 1, 8, true).await?;
    let making = stream::iter(0..services)
        .map(async |number| make(&member.client, &other(number), 10 + number, count, true).await);
    making.buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.context("can not make the Services")?;
    Ok(())
}

/// Gives a Service so many endpoints.
pub(super) async fn change(client: &Client, name: &str, block: u32, count: u32) -> Result<()> {
    let patch = json!({"endpoints": endpoints(block, count)});
    slices(client).patch(&format!("{name}-1"), &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}

/// When the other changes come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Spacing {
    /// Evenly spaced.
    Even,
    /// As a Poisson process has them.
    Poisson,
}

/// Other Services that change, so many a second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) rate: u32,
    pub(super) spacing: Spacing,
}

/// A load that goes on.
pub(super) struct Going {
    made: Arc<AtomicU64>,
    stop: watch::Sender<()>,
    task: JoinSet<Result<()>>,
}

impl Going {
    /// Begins it: in turn, each of the other Services loses an endpoint or gets it back.
    pub(super) fn begin(client: &Client, load: Load, services: u32, count: u32) -> Self {
        let (stop, stopped) = watch::channel(());
        let made = Arc::new(AtomicU64::new(0));
        let mut task = JoinSet::new();
        if load.rate > 0 {
            task.spawn(changing(client.clone(), load, [services, count], made.clone(), stopped));
        }
        Going { made, stop, task }
    }

    /// How many changes were made so far.
    pub(super) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Ends it; says when it had ended by itself.
    pub(super) async fn end(self) -> Result<()> {
        drop(self.stop);
        let ended = self.task.join_all().await.into_iter().collect::<Result<Vec<()>>>();
        ended.map(drop).context("the other changes broke off")
    }
}

async fn changing(
    client: Client,
    load: Load,
    [services, count]: [u32; 2],
    made: Arc<AtomicU64>,
    mut stopped: watch::Receiver<()>,
) -> Result<()> {
    let room = Arc::new(Semaphore::new(UNDER_WAY));
    let mut under_way: JoinSet<Result<()>> = JoinSet::new();
    let mut at = Instant::now();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut number = 0u32;
    loop {
        at += match load.spacing {
            Spacing::Even => Duration::from_secs(1) / load.rate,
            Spacing::Poisson => Duration::from_secs_f64(-random.unit().ln() / f64::from(load.rate)),
        };
        tokio::select! {
            // The sender is gone when it is over.
            _ = stopped.changed() => break,
            () = sleep_until(at) => {}
        }
        while let Some(done) = under_way.try_join_next() {
            done??;
        }
        let (name, round) = (number % services, number / services);
        let there = count - u32::from(round.is_multiple_of(2));
        let (client, made, place) = (client.clone(), made.clone(), room.clone().acquire_owned().await?);
        under_way.spawn(async move {
            let _place = place;
            change(&client, &other(name), 10 + name, there).await?;
            made.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
        number += 1;
    }
    while let Some(done) = under_way.join_next().await {
        done??;
    }
    Ok(())
}

/// A stream of numbers that is the same in every run (xorshift64*).
struct Random(u64);

impl Random {
    /// The next one, above 0 and up to 1.
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        (high + 1) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_of_a_poisson_process_have_their_mean() {
        let mut random = Random(1);
        let mean = (0..100_000).map(|_| -random.unit().ln()).sum::<f64>() / 100_000.0;
        assert!((0.98..1.02).contains(&mean), "{mean}");
    }

    #[test]
    fn no_change_of_the_measured_service_is_like_the_one_before() {
        assert!((0..20).all(|n| ready(n) != ready(n + 1)));
        assert_ne!(ready(0), 8);
    }
}

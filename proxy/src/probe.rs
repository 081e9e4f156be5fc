//! Probes of other clusters: a handshake with their gateway identity, every second, all addresses of one in a round.
//!
//! A probe proves the whole way that traffic takes: the address, the port, the certificate and its roots. Results go to
//! the agent, which debounces them.

use crate::role::Context;
use crate::snapshot::{Peer, gateway_identity, tls_name};
use crate::tls;
use crate::wire::Wire;
use sealane_core::endpoint::GatewayAddress;
use sealane_core::name::ClusterName;
use sealane_core::sni::ServerName;
use sealane_proto::agent::v1::ProbeResult;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// The time between two probes of an address, give or take a tenth.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a probe may take.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The most addresses of a cluster that are probed.
const MAX_ADDRESSES: usize = 16;

/// The results of one round over a cluster's addresses.
pub(crate) type Round = Vec<ProbeResult>;

struct Running {
    peer: Arc<Peer>,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Probes every peer, following the configuration, until the proxy drains.
pub(crate) async fn follow(context: Arc<Context>, results: mpsc::Sender<Round>) {
    let mut changes = context.current.changes();
    let mut running: BTreeMap<ClusterName, Running> = BTreeMap::new();
    loop {
        changes.mark_unchanged();
        let snapshot = context.current.load();
        let wanted = |peer: &&Arc<Peer>| !peer.own && !peer.probes.is_empty();
        let wanted: BTreeMap<&ClusterName, &Arc<Peer>> =
            snapshot.peers.iter().filter(|(_, peer)| wanted(peer)).collect();
        running.retain(|cluster, task| {
            let peer = wanted.get(cluster);
            for gone in task.peer.probes.iter().filter(|a| !peer.is_some_and(|p| p.probes.contains(a))) {
                context.metrics.forget_probe(cluster.as_str(), &gone.to_string());
            }
            peer.is_some_and(|peer| Arc::ptr_eq(peer, &task.peer))
        });
        for (cluster, peer) in wanted {
            if !running.contains_key(cluster) {
                let task = tokio::spawn(probing(Arc::clone(&context), Arc::clone(peer), results.clone()));
                let task = Running { peer: Arc::clone(peer), task: task.abort_handle() };
                running.insert(cluster.clone(), task);
            }
        }
        tokio::select! {
            () = context.drain.began() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

async fn probing(context: Arc<Context>, peer: Arc<Peer>, results: mpsc::Sender<Round>) {
    let config = peer.bundle.clone().map(|bundle| {
        tls::client::config(&context.identity, bundle, BTreeSet::from([gateway_identity(&peer)]))
    });
    // Those who were told of a cluster together do not probe it together.
    tokio::time::sleep(INTERVAL.mul_f64(rand::random())).await;
    loop {
        let began = Instant::now();
        let round = peer.probes.iter().take(MAX_ADDRESSES).map(|a| one(&context, &peer, a, config.as_ref()));
        let round = futures::future::join_all(round).await;
        // While the agent is away rounds pile up to the channel's bound; the newest are of no use to it then.
        let _ = results.try_send(round);
        let pause = INTERVAL.mul_f64(rand::random_range(0.9..1.1));
        tokio::time::sleep(pause.saturating_sub(began.elapsed())).await;
    }
}

async fn one(
    context: &Context,
    peer: &Peer,
    address: &GatewayAddress,
    config: Option<&Arc<rustls::ClientConfig>>,
) -> ProbeResult {
    let began = Instant::now();
    let outcome = match config {
        Some(config) => match timeout(TIMEOUT, probe(context, peer, address, config)).await {
            Ok(outcome) => outcome,
            Err(_) => Err("no answer within 1 s".to_owned()),
        },
        None => Err("its roots are not known yet".to_owned()),
    };
    let rtt_us = u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX);
    let address = address.to_string();
    context.metrics.probed(peer.name.as_str(), &address, outcome.is_ok());
    let (ok, error) = (outcome.is_ok(), outcome.err().unwrap_or_default());
    ProbeResult { cluster: peer.name.to_string(), address, ok, rtt_us, error }
}

async fn probe(
    context: &Context,
    peer: &Peer,
    address: &GatewayAddress,
    config: &Arc<rustls::ClientConfig>,
) -> Result<(), String> {
    let name =
        tls_name(&ServerName::Probe(peer.name.clone())).ok_or("its name is too long for a server name")?;
    let addresses = tls::client::resolve(address).await.map_err(|e| e.to_string())?;
    let to = *addresses.first().ok_or("its name has no addresses")?;
    let stream = tls::client::connect(to, context.mark).await.map_err(|e| e.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
    let mut stream = connector.connect(name, Wire::new(stream)).await.map_err(|e| tls::why(&e))?;
    // The answer was the handshake; a failure to say goodbye does not change it.
    let _ = stream.shutdown().await;
    Ok(())
}

//! Probes of other clusters: a handshake with their gateway identity, every second, each address by itself.
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

type Target = (ClusterName, GatewayAddress);

struct Running {
    peer: Arc<Peer>,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Probes every address of every peer, following the configuration, until the proxy drains.
pub(crate) async fn follow(context: Arc<Context>, results: mpsc::Sender<ProbeResult>) {
    let mut changes = context.current.changes();
    let mut running: BTreeMap<Target, Running> = BTreeMap::new();
    loop {
        changes.mark_unchanged();
        let wanted = wanted(&context);
        running.retain(|target, task| {
            let stays = wanted.get(target).is_some_and(|peer| Arc::ptr_eq(peer, &task.peer));
            if !wanted.contains_key(target) {
                context.metrics.forget_probe(target.0.as_str(), &target.1.to_string());
            }
            stays
        });
        let missing: BTreeSet<&Target> = wanted.keys().filter(|t| !running.contains_key(*t)).collect();
        for target in missing {
            let peer = Arc::clone(&wanted[target]);
            let probing = probing(Arc::clone(&context), Arc::clone(&peer), target.1.clone(), results.clone());
            running.insert(target.clone(), Running { peer, task: tokio::spawn(probing).abort_handle() });
        }
        tokio::select! {
            () = context.drain.began() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

fn wanted(context: &Context) -> BTreeMap<Target, Arc<Peer>> {
    let snapshot = context.current.load();
    let others = snapshot.peers.values().filter(|p| !p.own);
    others.flat_map(|p| p.probes.iter().map(|a| ((p.name.clone(), a.clone()), Arc::clone(p)))).collect()
}

async fn probing(context: Arc<Context>, peer: Arc<Peer>, address: GatewayAddress, results: mpsc::Sender<ProbeResult>) {
    let config = peer.bundle.clone().map(|bundle| {
        tls::client::config(&context.identity, bundle, BTreeSet::from([gateway_identity(&peer)]))
    });
    // Those who were told of an address together do not probe it together.
    tokio::time::sleep(INTERVAL.mul_f64(rand::random())).await;
    loop {
        let began = Instant::now();
        let outcome = match &config {
            Some(config) => match timeout(TIMEOUT, probe(&context, &peer, &address, config)).await {
                Ok(outcome) => outcome,
                Err(_) => Err("no answer within 1 s".to_owned()),
            },
            None => Err("its roots are not known yet".to_owned()),
        };
        let rtt = began.elapsed();
        context.metrics.probed(peer.name.as_str(), &address.to_string(), outcome.is_ok());
        let result = ProbeResult {
            cluster: peer.name.to_string(),
            address: address.to_string(),
            ok: outcome.is_ok(),
            rtt_us: u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX),
            error: outcome.err().unwrap_or_default(),
        };
        // While the agent is away results pile up to the channel's bound; the newest are of no use to it then.
        let _ = results.try_send(result);
        tokio::time::sleep(INTERVAL.mul_f64(rand::random_range(0.9..1.1)).saturating_sub(rtt)).await;
    }
}

async fn probe(
    context: &Context,
    peer: &Peer,
    address: &GatewayAddress,
    config: &Arc<rustls::ClientConfig>,
) -> Result<(), String> {
    let name = tls_name(&ServerName::Probe(peer.name.clone())).ok_or("its name is too long for a server name")?;
    let addresses = tls::client::resolve(address).await.map_err(|e| e.to_string())?;
    let to = *addresses.first().ok_or("its name has no addresses")?;
    let stream = tls::client::connect(to, context.mark).await.map_err(|e| e.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
    let mut stream = connector.connect(name, Wire::new(stream)).await.map_err(|e| e.to_string())?;
    // The answer was the handshake; a failure to say goodbye does not change it.
    let _ = stream.shutdown().await;
    Ok(())
}

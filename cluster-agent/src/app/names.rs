//! DNS, where it is asked for.

use super::Agent;
use super::tasks::Tasks;
use crate::dns;
use anyhow::Context;
use std::net::SocketAddr;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Listens at each address.
pub(super) async fn bind(addresses: &[SocketAddr]) -> anyhow::Result<Vec<dns::Sockets>> {
    let mut all = Vec::new();
    for address in addresses {
        let sockets = dns::Sockets::bind(*address).await;
        all.push(sockets.with_context(|| format!("can not listen on {address} (--dns-listen)"))?);
    }
    Ok(all)
}

impl Agent {
    /// Answers, by what proxies run by.
    pub(super) fn spawn_dns(&self, tasks: &Tasks, stop: &CancellationToken, sockets: Vec<dns::Sockets>) {
        if sockets.is_empty() {
            return;
        }
        let addresses: Vec<SocketAddr> = sockets.iter().map(dns::Sockets::address).collect();
        self.status.listens_for_dns(addresses.iter().map(ToString::to_string).collect());
        tracing::info!(?addresses, "answering DNS for clusterset.local");
        let zone = watch::Sender::new(None);
        let server = dns::Server { zone: zone.subscribe(), metrics: self.metrics.dns.clone() };
        for sockets in sockets {
            tasks.spawn(dns::serve(sockets, server.clone(), stop.clone()));
        }
        let inputs = dns::Inputs {
            common: self.channels.common.subscribe(),
            nameservers: addresses.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified()).collect(),
        };
        tasks.spawn(dns::follow(inputs, zone, self.status.clone(), stop.clone()));
    }
}

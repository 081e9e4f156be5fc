//! Listeners for imports: those named on the command line, and one at each import's own address and port.

use crate::listen::accept;
use crate::role::Context;
use crate::role::sidecar::outbound;
use sealane_core::name::ServiceKey;
use sealane_trust::acceptor;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A bind that failed is tried again after this.
const RETRY: Duration = Duration::from_secs(1);

/// An import's port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ImportPort {
    /// The service.
    pub(crate) service: ServiceKey,
    /// Its port.
    pub(crate) port: u16,
}

/// Serves one import port on a listener, until the proxy drains.
pub(crate) async fn serve(context: Arc<Context>, listener: TcpListener, import: ImportPort) {
    let drain = context.drain.clone();
    accept(listener, drain, |stream, from| {
        let connection = outbound::serve(Arc::clone(&context), stream, from, import.clone());
        context.drain.serve(connection);
    })
    .await;
}

/// Keeps one listener at each import's own address and port. An import that goes closes its listeners; open
/// connections stay.
pub(crate) async fn follow(context: Arc<Context>) {
    let mut changes = context.current.changes();
    let mut open: BTreeMap<SocketAddr, (ImportPort, CancellationToken)> = BTreeMap::new();
    loop {
        changes.mark_unchanged();
        let wanted = wanted(&context);
        open.retain(|address, (import, stop)| {
            let stays = wanted.get(address) == Some(import);
            if !stays {
                stop.cancel();
            }
            stays
        });
        let missing: BTreeSet<&SocketAddr> = wanted.keys().filter(|a| !open.contains_key(a)).collect();
        let mut failed = false;
        for address in missing {
            match acceptor::bind(*address) {
                Ok(listener) => {
                    let import = wanted[address].clone();
                    let stop = CancellationToken::new();
                    let serving = serve(Arc::clone(&context), listener, import.clone());
                    tokio::spawn(stop.clone().run_until_cancelled_owned(serving));
                    open.insert(*address, (import, stop));
                }
                Err(error) => {
                    failed = true;
                    tracing::warn!(%address, %error, "can not listen at an import's address");
                }
            }
        }
        tokio::select! {
            () = context.drain.began() => return,
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if failed => {}
        }
    }
}

fn wanted(context: &Context) -> BTreeMap<SocketAddr, ImportPort> {
    let snapshot = context.current.load();
    let mut wanted = BTreeMap::new();
    for outbound in snapshot.outbound.values() {
        for address in &outbound.addresses {
            for port in outbound.ports.keys() {
                let import = ImportPort { service: outbound.service.clone(), port: *port };
                wanted.insert(SocketAddr::new(*address, *port), import);
            }
        }
    }
    wanted
}

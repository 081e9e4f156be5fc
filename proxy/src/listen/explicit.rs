//! Listeners for imports: those named on the command line, and one at each import's own address and port.

use crate::listen::accept;
use crate::role::Context;
use crate::role::sidecar::outbound;
use imbl::OrdMap;
use sealane_core::name::ServiceKey;
use sealane_trust::acceptor;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
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
    let mut open = BTreeMap::new();
    let mut done = OrdMap::new();
    let mut failed = false;
    loop {
        changes.mark_unchanged();
        let wanted = context.current.load().by_socket.clone();
        if failed || !wanted.ptr_eq(&done) {
            failed = !listen(&context, &wanted, &mut open).await;
            done = wanted;
        }
        tokio::select! {
            () = context.drain.began() => return,
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if failed => {}
        }
    }
}

/// A listener at an import's address.
struct Listening {
    service: ServiceKey,
    stop: CancellationToken,
    task: JoinHandle<Option<()>>,
}

/// Closes and opens listeners; says whether all that are wanted are open.
async fn listen(
    context: &Arc<Context>,
    wanted: &OrdMap<SocketAddr, ServiceKey>,
    open: &mut BTreeMap<SocketAddr, Listening>,
) -> bool {
    let stale: Vec<SocketAddr> =
        open.iter().filter(|(at, l)| wanted.get(*at) != Some(&l.service)).map(|(at, _)| *at).collect();
    for address in stale {
        if let Some(listening) = open.remove(&address) {
            listening.stop.cancel();
            // The next import at this address can listen only when the port is free.
            let _ = listening.task.await;
        }
    }
    let mut all = true;
    for (address, service) in wanted {
        if open.contains_key(address) {
            continue;
        }
        match acceptor::bind(*address) {
            Ok(listener) => {
                let import = ImportPort { service: service.clone(), port: address.port() };
                let stop = CancellationToken::new();
                let serving = serve(Arc::clone(context), listener, import);
                let task = tokio::spawn(stop.clone().run_until_cancelled_owned(serving));
                open.insert(*address, Listening { service: service.clone(), stop, task });
            }
            Err(error) => {
                all = false;
                tracing::warn!(%address, %error, "can not listen at an import's address");
            }
        }
    }
    all
}

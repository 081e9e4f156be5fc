//! The commands, and the wiring of a server.

mod directory;
mod init;
mod join;
mod logging;
mod membership;
mod plain;
mod recover;
mod serve;

pub use directory::{Directory, Identity};
pub use init::init;
pub use join::join;
pub use recover::recover;
pub use serve::{Listeners, Running, Settings, start, start_with};

use crate::args::{Args, Command, RunArgs};
use crate::consensus::node::NodeConfig;
use crate::store::log::wal::WalConfig;
use anyhow::Context;
use sealane_trust::acceptor;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Runs a command.
///
/// # Errors
/// With a sentence for the operator.
pub async fn run(args: Args) -> anyhow::Result<()> {
    logging::start(&args.log, args.log_format)?;
    match args.command {
        Command::Init(args) => init(args).await,
        Command::Join(args) => join(args).await,
        Command::Run(args) => serve_until_told(args).await,
        Command::Recover(args) => recover(args).await,
    }
}

async fn serve_until_told(args: RunArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let directory = Directory::load(&args.dir)?;
    let listeners = listen(&args, &directory).await?;
    let defaults = NodeConfig::default();
    let tail_entries = defaults.tail_entries.min(args.snapshot_entries / 2);
    let node = NodeConfig { snapshot_entries: args.snapshot_entries, tail_entries, ..defaults };
    let wal = WalConfig { segment_bytes: args.segment_bytes, ..WalConfig::default() };
    let (certificate_ttl, renew_admin) = (args.certificate_ttl, args.renew_admin);
    let settings = Settings { node, wal, certificate_ttl, renew_admin };
    let mut running = start_with(directory, listeners, settings).await?;
    tracing::info!(
        address = %running.address,
        status = %running.status_address,
        metrics = %running.metrics_address,
        "ready"
    );
    let ended = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        reason = running.stopped() => Some(reason),
    };
    running.stop().await;
    match ended {
        None => Ok(()),
        Some(reason) => anyhow::bail!(reason),
    }
}

/// Binds the first of the name's addresses that is ours and free.
async fn bind_named(name: &str) -> std::io::Result<TcpListener> {
    let mut refused = std::io::Error::other("it has no address");
    for address in tokio::net::lookup_host(name).await? {
        match acceptor::bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

async fn listen(args: &RunArgs, directory: &Directory) -> anyhow::Result<Listeners> {
    let me = &directory.identity;
    let bind = async |given: Option<std::net::SocketAddr>, advertised: &str| match given {
        Some(address) => acceptor::bind(address).with_context(|| format!("can not listen on {address}")),
        None => bind_named(advertised).await.with_context(|| format!("can not listen on {advertised}")),
    };
    Ok(Listeners {
        grpc: bind(args.listen, &me.address).await?,
        status: bind(args.status_listen, &me.status_address).await?,
        metrics: bind(Some(args.metrics_listen), "").await?,
    })
}

#[cfg(test)]
mod tests;

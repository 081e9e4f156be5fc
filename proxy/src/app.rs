//! Wiring: from the command line to a running proxy, and its end.

use crate::admin;
use crate::args::{Args, LogFormat, Role};
use crate::connections::Connections;
use crate::discover::Discovery;
use crate::discover::build::Builder;
use crate::discover::persist::Store;
use crate::drain::Drain;
use crate::gate::{Gate, Limits};
use crate::identity::{Keeper, Sources};
use crate::listen::{explicit, orig_dst};
use crate::probe;
use crate::role::{Context, gateway, sidecar};
use crate::snapshot::Current;
use crate::splice::Pipes;
use crate::telemetry::Metrics;
use anyhow::Context as _;
use sealane_proto::agent::v1 as wire;
use sealane_trust::acceptor;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// Probe results on their way to the agent: a few seconds' worth of many peers.
const PROBE_RESULTS: usize = 1024;

/// Runs a proxy until SIGTERM or SIGINT and its drain.
///
/// # Errors
/// When it can not start: an address that is taken, a directory that can not be used, an identity that is refused.
pub async fn run(args: Args) -> anyhow::Result<()> {
    start_log(&args)?;
    raise_descriptor_limit();
    let mut signals = Signals::new().context("can not handle signals")?;
    let drain = Drain::default();
    let proxy = serve(args.clone(), drain.clone());
    tokio::pin!(proxy);
    let background = tokio::select! {
        started = &mut proxy => started?,
        () = signals.next() => return Ok(()),
    };
    tokio::select! {
        () = signals.next() => {}
        () = drain.began() => {}
    }
    drain.begin();
    tokio::select! {
        () = drain.finish(args.drain_timeout) => {}
        () = signals.next() => {
            drain.kill();
            drain.finish(args.drain_timeout).await;
        }
    }
    drop(background);
    tracing::info!("stopped");
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Tasks that end with the proxy.
#[derive(Debug, Default)]
pub(crate) struct Background(Vec<tokio::task::JoinHandle<()>>);

impl Background {
    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.push(tokio::spawn(task));
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// The listeners, bound before anything else so that a taken address is found at once.
struct Listeners {
    admin: TcpListener,
    inbound: TcpListener,
    outbound: Vec<(TcpListener, explicit::ImportPort)>,
    capture: Option<TcpListener>,
}

impl Listeners {
    fn bind(args: &Args) -> anyhow::Result<Self> {
        let at = |address: SocketAddr| {
            acceptor::bind(address).with_context(|| format!("can not listen at {address}"))
        };
        let outbound = args.outbound.iter().map(|e| Ok((at(e.listen)?, e.import.clone())));
        Ok(Listeners {
            admin: at(args.admin)?,
            inbound: at(args.inbound)?,
            outbound: outbound.collect::<anyhow::Result<_>>()?,
            capture: args.capture.map(at).transpose()?,
        })
    }

    fn own(&self, advertise: Option<SocketAddr>) -> std::io::Result<Vec<SocketAddr>> {
        let listeners = [Some(&self.admin), Some(&self.inbound), self.capture.as_ref()];
        let all = listeners.into_iter().flatten().chain(self.outbound.iter().map(|(listener, _)| listener));
        all.map(TcpListener::local_addr).chain(advertise.map(Ok)).collect()
    }
}

/// Starts everything; returns once the proxy serves.
async fn serve(args: Args, drain: Drain) -> anyhow::Result<Background> {
    let mut background = Background::default();
    if let Some(directory) = &args.dir {
        make_private(directory)?;
    }
    let listeners = Listeners::bind(&args)?;
    let own = listeners.own(args.advertise)?;
    let metrics = Arc::new(Metrics::new());
    let shown = Arc::new(admin::Shown {
        context: OnceLock::new(),
        metrics: Arc::clone(&metrics),
        drain: drain.clone(),
    });
    let admin_address = listeners.admin.local_addr()?;
    tracing::info!(address = %admin_address, "admin listener open");
    background.spawn(admin::serve(Arc::clone(&shown), listeners.admin));

    let mark = (args.capture.is_some() && orig_dst::may_mark()).then_some(orig_dst::MARK);
    if args.capture.is_some() && mark.is_none() {
        tracing::warn!("no right to mark sockets: the redirect rule must leave out the proxy's user");
    }
    let (token, directory, agent) = (args.token_file.clone(), args.dir.clone(), args.agent.clone());
    let sources = Sources { token, wait: args.wait_for_token, directory, agent, mark };
    let keeper = Keeper::obtain(sources).await?;
    let context = Arc::new(Context {
        current: Current::new(),
        identity: keeper.identity.clone(),
        connections: Connections::new(Arc::clone(&metrics)),
        metrics: Arc::clone(&metrics),
        drain,
        pipes: Pipes::new(args.max_pipes),
        mark,
        own,
        max_outbound: args.max_connections,
    });
    let inbound_address = listeners.inbound.local_addr()?;
    let mut discovery = Discovery::new(
        keeper.channel(),
        hello(&args, inbound_address),
        Builder::new(keeper.identity.clone()),
        Arc::clone(&context.current),
        Arc::clone(&metrics),
        args.dir.as_deref().map(Store::new),
    );
    discovery.restore();
    let (results, probed) = mpsc::channel(PROBE_RESULTS);
    background.spawn(discovery.run(probed));
    background.spawn(keeper.keep(metrics));
    if args.probe || args.role == Role::Gateway {
        background.spawn(probe::follow(Arc::clone(&context), results));
    }
    // Nobody is served by guesses: the first configuration, saved or from the agent, comes before the first connection.
    let mut changes = context.current.changes();
    while !context.current.load().configured() && changes.changed().await.is_ok() {}
    let gate = Gate::new(limits(&args));
    match args.role {
        Role::Sidecar => background.spawn(sidecar::serve(Arc::clone(&context), gate, listeners.inbound)),
        Role::Gateway => background.spawn(gateway::serve(Arc::clone(&context), gate, listeners.inbound)),
    }
    for (listener, import) in listeners.outbound {
        background.spawn(explicit::serve(Arc::clone(&context), listener, import));
    }
    if args.listen_imports {
        background.spawn(explicit::follow(Arc::clone(&context)));
    }
    if let Some(listener) = listeners.capture {
        background.spawn(orig_dst::serve(Arc::clone(&context), listener));
    }
    let spiffe_id = context.identity.current().spiffe_id;
    // The only place that sets it.
    let _ = shown.context.set(context);
    tracing::info!(role = ?args.role, inbound = %inbound_address, admin = %admin_address, %spiffe_id, "ready");
    Ok(background)
}

fn limits(args: &Args) -> Limits {
    Limits {
        total: args.max_connections,
        per_source: args.max_connections_per_source,
        rate: args.max_rate_per_source,
        allow: args.allow_from.clone(),
        ..Limits::default()
    }
}

fn hello(args: &Args, inbound: SocketAddr) -> wire::ProxyHello {
    let role = match args.role {
        Role::Sidecar => wire::Role::Sidecar,
        Role::Gateway => wire::Role::Gateway,
    };
    let pod = args.pod.as_ref();
    wire::ProxyHello {
        hello: Some(sealane_proto::hello::hello(None)),
        role: role.into(),
        pod_namespace: pod.map(|p| p.namespace.to_string()).unwrap_or_default(),
        pod_name: pod.map(|p| p.name.clone()).unwrap_or_default(),
        inbound_address: args.advertise.unwrap_or(inbound).to_string(),
    }
}

fn make_private(directory: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("can not make {}", directory.display()))
}

/// As many descriptors as we may have: each connection takes two, and pipes two more.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "can not raise the limit of open files");
        }
    }
}

fn start_log(args: &Args) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&args.log)
        .with_context(|| format!("--log {:?} is not a filter", args.log))?;
    let colours = std::io::stderr().is_terminal();
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    // Someone who linked us may log already; that is as good.
    let _ = match args.log_format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests;

//! The composition root: what exists, in which order it begins, and how it ends.

mod addressing;
mod ending;
mod loops;
mod names;
mod place;
mod tasks;

use crate::addresses::Addresses;
use crate::admin::{self, Admin};
use crate::args::{Args, Command, LogFormat, RunArgs, WorkloadTokenArgs};
use crate::backoff::Backoff;
use crate::ca::Ca;
use crate::catalog::Own;
use crate::config::{ConfigService, PROBES};
use crate::desired::Confirmed;
use crate::dns;
use crate::enroll::{self, Projected, Ticket};
use crate::identity::{
    Claim, Grants, IdentityService, Seal, await_agent, make_workload_token, write_workload_token,
};
use crate::index::Index;
use crate::lanes::{Lanes, Verdicts};
use crate::lease::Leadership;
use crate::metrics::Metrics;
use crate::reach;
use crate::sink;
use crate::sink::files::Writer;
use crate::sink::kubernetes::ImportAddresses;
use crate::source::EVENTS;
use crate::state::{Membership, Serving, StateDir};
use crate::status::{Reporter, Status};
use crate::store::Store;
use crate::uplink::{self, ExportLoop, WatchLoop};
use crate::vault::{Credentials, Vault, VaultError};
use crate::view::{self, Held};
use addressing::Addressing;
use anyhow::{Context, bail};
use ending::Ending;
use place::Place;
use sealane_core::identity::InstanceId;
use sealane_core::name::{ClusterUid, NetworkName};
use sealane_proto::agent::v1::config_server::ConfigServer;
use sealane_proto::agent::v1::identity_server::IdentityServer;
use sealane_trust::acceptor::{self, Acceptor, Limits};
use sealane_trust::revocation::Revocations;
use sealane_trust::tls::{self, ClientAuth, FederationPeers, Identity};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tasks::Tasks;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing_subscriber::EnvFilter;

/// How long everything may take to end.
const ENDING: Duration = Duration::from_secs(8);

/// Runs what the command line says.
///
/// # Errors
/// When it can not be done; the error says what to do about it.
pub async fn run(args: Args) -> anyhow::Result<()> {
    init_log(&args)?;
    match args.command {
        Command::Run(args) => run_agent(*args).await,
        Command::WorkloadToken(args) => workload_token(args).await,
    }
}

fn init_log(args: &Args) -> anyhow::Result<()> {
    // What fails at the API server is told by whoever asked it, once and in our words.
    let filter = EnvFilter::try_new(format!("kube_client=off,{}", args.log))
        .with_context(|| format!("--log {:?}", args.log))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let log = log.with_ansi(std::io::stderr().is_terminal());
    // A program that embeds the agent may log already; then its way of logging holds.
    let _ = match args.log_format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    Ok(())
}

async fn workload_token(args: WorkloadTokenArgs) -> anyhow::Result<()> {
    let claim = match (&args.namespace, &args.service_account) {
        _ if args.gateway => Claim::Gateway,
        (Some(namespace), Some(account)) => Claim::workload(namespace, account),
        _ => bail!("give --namespace and --service-account, or --gateway"),
    };
    await_agent(&args.dir).await?;
    if args.out == Path::new("-") {
        let mut token = make_workload_token(&args.dir, claim, args.ttl).await?;
        token.push(b'\n');
        return Ok(std::io::stdout().lock().write_all(&token)?);
    }
    write_workload_token(&args.dir, claim, args.ttl, &args.out).await?;
    let (out, seconds) = (args.out.display(), args.ttl.as_secs());
    writeln!(std::io::stdout().lock(), "wrote {out} (single use, for {seconds} s at most)")?;
    Ok(())
}

async fn run_agent(args: RunArgs) -> anyhow::Result<()> {
    let source = args.source()?;
    let ending = Ending::on_signal(args.linger)?;
    let state = StateDir::create(&args.dir)?;
    let _lock = state.lock()?;
    // All that may be wrong here is found before the join token is used up.
    let ground = Ground::take(&args, source).await?;
    let begun =
        ending.asked.run_until_cancelled(Begun::reach(&state, &args, &ground.place)).await.transpose()?;
    // Nothing is answered yet, so that nobody sends anything here.
    let Some(begun) = begun else { return Ok(()) };
    let agent = Agent::new(args, state, begun, ending.asked)?;
    agent.serve(ground, ending.stop).await
}

/// Who the agent is: what joining brought, and the cluster's root.
struct Begun {
    /// Which Kubernetes cluster this is.
    uid: Option<ClusterUid>,
    vault: Vault,
    credentials: Credentials,
    ca: Ca,
}

impl Begun {
    async fn reach(state: &StateDir, args: &RunArgs, place: &Place) -> anyhow::Result<Self> {
        let (vault, uid) = (place.vault(state), place.uid().await);
        let projected = args.projected.projected(uid.clone());
        let credentials = credentials(&vault, state, (args, projected), place).await?;
        let domain = &credentials.membership.trust_domain;
        let ca = patiently("can not read or make the cluster's root yet", async || vault.ca(domain).await);
        let ca = ca.await?;
        Ok(Begun { uid, vault, credentials, ca })
    }
}

/// Tries for as long as that can succeed.
async fn patiently<T>(
    what: &str,
    mut tried: impl AsyncFnMut() -> Result<T, VaultError>,
) -> Result<T, VaultError> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        match tried().await {
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, what);
                tokio::time::sleep(backoff.pause()).await;
            }
            done => return done,
        }
    }
}

/// What the agent takes from the machine: its ports and its output directory.
struct Ground {
    listener: TcpListener,
    admin: TcpListener,
    dns: Vec<dns::Sockets>,
    /// Where proxies dial the agent, as HOST:PORT.
    advertised: String,
    place: Place,
}

impl Ground {
    async fn take(args: &RunArgs, source: crate::args::Source) -> anyhow::Result<Self> {
        let bind = |address| acceptor::bind(address).with_context(|| format!("can not listen on {address}"));
        let (listener, admin) = (bind(args.listen)?, bind(args.admin_listen)?);
        let dns = names::bind(&args.dns_listen).await?;
        let local = listener.local_addr()?;
        let advertised = match &args.advertise {
            Some(address) => address.clone(),
            None if local.ip().is_unspecified() => {
                bail!("--listen {local} is no address that proxies can dial: give --advertise HOST:PORT")
            }
            None => local.to_string(),
        };
        Ok(Ground { listener, admin, dns, advertised, place: Place::take(source).await? })
    }
}

/// What joining brought; joins when the cluster has not, for as long as that can succeed.
async fn credentials(
    vault: &Vault,
    state: &StateDir,
    (args, projected): (&RunArgs, Option<Projected>),
    place: &Place,
) -> anyhow::Result<Credentials> {
    if let Some(kept) = kept_credentials(vault).await? {
        if let Some(other) = projected.as_ref().filter(|p| p.federation != kept.membership.federation) {
            bail!(
                "this cluster belongs to federation {}, and --join-federation names {}: a cluster leaves one before it joins \
                 another (`sealane cluster remove {}`, then start without what joining brought)",
                kept.membership.federation,
                other.federation,
                kept.membership.cluster
            )
        }
        match state.removed()? {
            // Where the token's file stays for good it says nothing.
            Some(reason) if args.join_token_file.is_some() && matches!(place, Place::Files { .. }) => {
                bail!(reason)
            }
            Some(reason) => tracing::error!(reason, "this cluster is no member of the federation any more"),
            None => {}
        }
        return Ok(kept);
    }
    place.check()?;
    let ticket = match projected {
        Some(projected) => Ticket::Projected(projected),
        None => {
            let path = args.join_token_file.as_ref().ok_or(enroll::EnrollError::NoToken)?;
            let token = enroll::read_token(path);
            Ticket::Token(token.with_context(|| format!("--join-token-file {}", path.display()))?)
        }
    };
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        match enroll::join(vault, &ticket).await {
            Ok(credentials) => {
                let membership = &credentials.membership;
                tracing::info!(cluster = %membership.cluster, federation = %membership.federation, "joined");
                return Ok(credentials);
            }
            Err(error) if ticket.may_pass(&error) => {
                tracing::warn!(error = %error, "can not join yet");
                tokio::time::sleep(backoff.pause()).await;
                if let Some(kept) = kept_credentials(vault).await? {
                    tracing::info!("another replica has joined");
                    return Ok(kept);
                }
            }
            Err(error) => return Err(error).context("the federation does not admit this cluster"),
        }
    }
}

async fn kept_credentials(vault: &Vault) -> Result<Option<Credentials>, VaultError> {
    patiently("can not read the agent's identity yet", async || vault.credentials().await).await
}

/// Everything that does not move.
struct Agent {
    args: RunArgs,
    uid: Option<ClusterUid>,
    state: StateDir,
    vault: Vault,
    credentials: Credentials,
    store: Arc<Store>,
    own: Arc<Own>,
    ca: Arc<Ca>,
    serving: Identity,
    reporter: Reporter,
    status: Arc<Status>,
    metrics: Arc<Metrics>,
    channels: Channels,
}

/// What the sink is made of.
struct SinkParts {
    place: Place,
    /// Where it tells the addresses that the API server gave to imports.
    assigned: watch::Sender<ImportAddresses>,
    leadership: Leadership,
}

/// What the loops say to each other.
struct Channels {
    held: watch::Sender<Arc<Held>>,
    catalog: watch::Sender<Option<Arc<crate::catalog::Catalog>>>,
    lanes: watch::Sender<Arc<Lanes>>,
    verdicts: watch::Sender<Arc<Verdicts>>,
    common: watch::Sender<Option<Arc<crate::config::Common>>>,
}

impl Agent {
    fn new(args: RunArgs, state: StateDir, begun: Begun, asked: CancellationToken) -> anyhow::Result<Self> {
        let Begun { uid, vault, credentials, ca } = begun;
        let (identity, roots) = enroll::load(&credentials)?;
        let (membership, ca) = (credentials.membership.clone(), Arc::new(ca));
        let own = Arc::new(Own {
            cluster: membership.cluster.clone(),
            trust_domain: membership.trust_domain.clone(),
            network: args.network.clone().unwrap_or_else(|| NetworkName::of_cluster(&membership.cluster)),
            locality: args.locality(),
            gateways: args.gateways.clone(),
            selector: args.interest_selector.clone(),
            bundle: ca.record(),
        });
        let held = Arc::new(last_view(&state, &membership));
        let channels = Channels {
            held: watch::Sender::new(held),
            catalog: watch::Sender::new(None),
            lanes: watch::Sender::new(Arc::default()),
            verdicts: watch::Sender::new(Arc::default()),
            common: watch::Sender::new(None),
        };
        let (status, metrics) = (Arc::new(Status::default()), Arc::new(Metrics::default()));
        let store = Arc::new(Store::new(membership, identity, roots));
        status.removed(state.removed()?);
        let serving = ca.own_identity(args.svid_ttl)?;
        let reporter = Reporter {
            status: status.clone(),
            store: store.clone(),
            serving: serving.clone(),
            // Of the process and not of the directory: a copied directory must not be taken for this agent.
            instance: InstanceId(sealane_trust::random()?),
            held: channels.held.subscribe(),
            catalog: channels.catalog.subscribe(),
            lanes: channels.lanes.subscribe(),
            ending: asked,
        };
        Ok(Agent {
            args,
            uid,
            state,
            vault,
            credentials,
            store,
            own,
            ca,
            serving,
            reporter,
            status,
            metrics,
            channels,
        })
    }

    async fn serve(self, ground: Ground, stop: CancellationToken) -> anyhow::Result<()> {
        let Ground { listener, admin, dns, advertised, place } = ground;
        let trust_domain = self.own.trust_domain.to_string();
        let root = self.ca.root_pem();
        let api_server = place.api_server()?;
        self.state.set_serving(&Serving { agent: vec![advertised], trust_domain, root, api_server })?;
        // What the API server gives imports: told by the sink, taken in by what proxies run by.
        let assigned = watch::Sender::new(ImportAddresses::new());
        let addressing = match &place {
            Place::Files { .. } => {
                Addressing::Own(Addresses::open(&self.state.addresses(), self.args.address_range)?)
            }
            Place::Kubernetes { .. } => {
                self.status.awaits_addresses();
                Addressing::cluster(assigned.subscribe())
            }
        };
        let tasks = Tasks::new(stop.clone());
        let writers = TaskTracker::new();
        let leadership = place.leadership(&tasks, &writers, (&self.state, &self.status), &stop)?;
        self.spawn_local(&tasks, &stop, addressing);
        self.spawn_uplink(&tasks, &stop, &leadership);
        let index = self.spawn_source(&tasks, &stop, &place);
        let sink = SinkParts { place, assigned, leadership };
        self.spawn_sink(&tasks, &writers, &stop, sink);
        writers.close();
        self.spawn_services(&tasks, &stop, listener, admin, index);
        self.spawn_dns(&tasks, &stop, dns);
        tasks.spawn(loops::keep_removed(self.state.clone(), self.status.clone(), stop.clone()));
        tasks.spawn(loops::announce(self.reporter.clone(), stop.clone()));
        stop.cancelled().await;
        tasks.close();
        if tokio::time::timeout(ENDING, tasks.wait()).await.is_err() {
            tracing::warn!(open = tasks.len(), "not everything ended in time");
        }
        tasks.outcome()
    }

    /// The loops that turn what is known into what proxies and people get.
    fn spawn_local(&self, tasks: &Tasks, stop: &CancellationToken, addressing: Addressing) {
        let c = &self.channels;
        tasks.spawn(loops::make_common(
            loops::CommonInputs {
                own: self.own.clone(),
                held: c.held.subscribe(),
                catalog: c.catalog.subscribe(),
                verdicts: c.verdicts.subscribe(),
            },
            addressing,
            c.common.clone(),
            stop.clone(),
        ));
    }

    /// The loops that keep the output directory.
    fn spawn_output(&self, tasks: &Tasks, stop: &CancellationToken, out: &Path, writer: Writer) {
        let c = &self.channels;
        tasks.spawn(loops::write_output(
            loops::OutputInputs {
                held: c.held.subscribe(),
                common: c.common.subscribe(),
                refused: self.status.refused(),
                acknowledged: self.status.acknowledged(),
                confirmed: Confirmed::default(),
            },
            writer,
            self.status.clone(),
            stop.clone(),
        ));
        let path = out.join("status.json");
        tasks.spawn(loops::write_status(self.reporter.clone(), path, stop.clone()));
    }

    fn spawn_uplink(&self, tasks: &Tasks, stop: &CancellationToken, leadership: &Leadership) {
        let c = &self.channels;
        let export = ExportLoop {
            opened: 0,
            leadership: leadership.clone(),
            store: self.store.clone(),
            instance: self.reporter.instance,
            own: self.own.clone(),
            uid: self.uid.clone(),
            catalog: c.catalog.subscribe(),
            lanes: c.verdicts.subscribe(),
            status: self.status.clone(),
        };
        tasks.spawn(uplink::keep_exporting(export, stop.clone()));
        let watch =
            WatchLoop { store: self.store.clone(), held: c.held.clone(), status: self.status.clone() };
        tasks.spawn(uplink::keep_watching(watch, stop.clone()));
        tasks.spawn(uplink::persist(
            self.state.view(),
            self.store.membership().federation,
            c.held.subscribe(),
            self.status.clone(),
            stop.clone(),
        ));
        let renewal = enroll::Renewal {
            vault: self.vault.clone(),
            kept: self.credentials.clone(),
            store: self.store.clone(),
            leadership: leadership.clone(),
            status: self.status.clone(),
            state: self.state.clone(),
            projected: self.args.projected.projected(self.uid.clone()),
        };
        tasks.spawn(enroll::keep_renewed(renewal, stop.clone()));
    }

    /// The loops that write what was imported. Those that write under the Lease end before it is given back.
    fn spawn_sink(&self, tasks: &Tasks, writers: &TaskTracker, stop: &CancellationToken, parts: SinkParts) {
        let c = &self.channels;
        match parts.place {
            Place::Files { out, writer, .. } => self.spawn_output(tasks, stop, &out, writer),
            Place::Kubernetes { client, args } => {
                let membership = self.store.membership();
                let inputs = sink::kubernetes::Inputs {
                    cluster: membership.cluster.clone(),
                    federation: membership.federation,
                    namespace: args.namespace.to_string(),
                    replica: args.replica,
                    held: c.held.subscribe(),
                    common: c.common.subscribe(),
                    refused: self.status.refused(),
                    acknowledged: self.status.acknowledged(),
                    confirmed: Confirmed::default(),
                    assigned: parts.assigned,
                    status: self.status.clone(),
                    metrics: self.metrics.sink.clone(),
                    over: false,
                };
                let run = sink::kubernetes::run(client, inputs, parts.leadership, stop.clone());
                tasks.spawn(writers.track_future(run));
            }
        }
    }

    fn spawn_source(&self, tasks: &Tasks, stop: &CancellationToken, place: &Place) -> Arc<RwLock<Index>> {
        let index = Arc::new(RwLock::new(Index::default()));
        let (sender, events) = mpsc::channel(EVENTS);
        place.follow(tasks, sender);
        tasks.spawn(loops::follow_source(
            events,
            index.clone(),
            self.own.clone(),
            self.channels.catalog.clone(),
            self.status.clone(),
            stop.clone(),
        ));
        index
    }

    fn spawn_services(
        &self,
        tasks: &Tasks,
        stop: &CancellationToken,
        listener: TcpListener,
        admin_listener: TcpListener,
        index: Arc<RwLock<Index>>,
    ) {
        let c = &self.channels;
        let (probes, lane_events) = mpsc::channel(PROBES);
        tasks.spawn(loops::keep_lanes(
            lane_events,
            c.held.subscribe(),
            c.lanes.clone(),
            c.verdicts.clone(),
            self.metrics.clone(),
            stop.clone(),
        ));
        let (held, common) = (c.held.subscribe(), c.common.subscribe());
        tasks.spawn(reach::keep_asking(self.state.clone(), held, common, probes.clone(), stop.clone()));
        let grants = Arc::new(Grants::of(&self.vault, Seal::of(&self.ca)));
        let identity = IdentityService {
            ca: self.ca.clone(),
            grants: grants.clone(),
            trust_domain: self.own.trust_domain.clone(),
            ttl: self.args.svid_ttl,
            metrics: self.metrics.clone(),
        };
        let config = ConfigService {
            own: self.own.clone(),
            common: c.common.subscribe(),
            index,
            probes,
            status: self.status.clone(),
            stop: stop.clone(),
            connections: Arc::new(AtomicU64::new(1)),
        };
        let policy = Arc::new(FederationPeers::matching(self.ca.bundle().clone(), |_| true));
        let acceptor = Acceptor {
            listener,
            tls: tls::server_config(&self.serving, ClientAuth::Optional(policy), &[tls::ALPN_H2]),
            limits: Limits { drain: Duration::from_secs(2), ..Limits::default() },
            revocations: Revocations::none(),
            shutdown: stop.clone(),
        };
        let routes =
            tonic::service::Routes::new(IdentityServer::new(identity)).add_service(ConfigServer::new(config));
        tasks.spawn(sealane_trust::grpc::serve(acceptor, routes));
        let (ca, serving, ttl) = (self.ca.clone(), self.serving.clone(), self.args.svid_ttl);
        tasks.spawn(loops::upkeep(ca, serving, ttl, grants, stop.clone()));
        let admin = Admin { reporter: self.reporter.clone(), metrics: self.metrics.clone() };
        tasks.spawn(admin::serve(admin_listener, admin, stop.clone()));
    }
}

/// The view that a former run kept. A damaged one is moved aside and said so: the store has it.
fn last_view(state: &StateDir, membership: &Membership) -> Held {
    match view::load(&state.view(), membership.federation) {
        Ok(Some(held)) => {
            let (revision, imports) = (held.revision, held.imports().count());
            tracing::info!(%revision, imports, "serving from the view on disk until the store answers");
            held
        }
        Ok(None) => Held::nothing(),
        Err(error) => {
            let aside = state.view().with_extension("damaged");
            let moved = std::fs::rename(state.view(), &aside).is_ok();
            tracing::error!(error = %error, moved, aside = %aside.display(), "the view on disk can not be used");
            Held::nothing()
        }
    }
}

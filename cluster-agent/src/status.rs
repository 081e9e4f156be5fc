//! What the agent tells of itself: `/status`, `status.json` and the readiness answer say the same.
//!
//! Status tells the present: what is lost shows as lost with since when; "synced once" is not a state.

use crate::catalog::{Catalog, Shard};
use crate::config::ProxyStatus;
use crate::desired::Acknowledged;
use crate::lanes::Lanes;
use crate::map::Shared;
use crate::source::{Failures, Problem};
use crate::view::{Held, Origin};
use sealane_core::command::Refusal;
use sealane_core::identity::{InstanceId, SessionId};
use sealane_core::name::ServiceKey;
use sealane_core::state::LaneVerdict;
use sealane_core::time::{Millis, Revision};
use sealane_trust::clock;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The catalog session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionState {
    /// None was opened yet.
    Never,
    /// One is open.
    Open {
        /// Its id.
        session: SessionId,
    },
    /// The last one ended.
    Lost {
        /// Why.
        error: String,
    },
}

#[derive(Debug)]
struct Inner {
    session: SessionState,
    removed: Option<String>,
    session_since: Millis,
    heard: Option<Millis>,
    synced: bool,
    acknowledged: Revision,
    other_refusals: Vec<String>,
    watch_error: Option<String>,
    watching: bool,
    watch_since: Millis,
    kept_revision: Option<Revision>,
    persist_error: Option<String>,
    problems: Vec<Problem>,
    source_ready: bool,
    unavailable: Failures,
    addresses_awaited: bool,
    lease: Option<LeaseStatus>,
    proxies: BTreeMap<u64, ProxyStatus>,
    foreign: Vec<String>,
    output_error: Option<String>,
    files: usize,
    dns: Option<DnsReport>,
}

/// Collects what the parts of the agent tell.
#[derive(Debug)]
pub struct Status {
    inner: Mutex<Inner>,
    refused: watch::Sender<Arc<BTreeMap<ServiceKey, Refusal>>>,
    troubles: watch::Sender<Arc<BTreeMap<ServiceKey, String>>>,
    acknowledged: watch::Sender<Acknowledged>,
    changed: watch::Sender<()>,
}

impl Default for Status {
    fn default() -> Self {
        let now = clock::now();
        let inner = Inner {
            session: SessionState::Never,
            removed: None,
            session_since: now,
            heard: None,
            synced: false,
            acknowledged: Revision::default(),
            other_refusals: Vec::new(),
            watch_error: None,
            watching: false,
            watch_since: now,
            kept_revision: None,
            persist_error: None,
            problems: Vec::new(),
            source_ready: false,
            unavailable: Failures::new(),
            addresses_awaited: false,
            lease: None,
            proxies: BTreeMap::new(),
            foreign: Vec::new(),
            output_error: None,
            files: 0,
            dns: None,
        };
        Status {
            inner: Mutex::new(inner),
            refused: watch::Sender::new(Arc::default()),
            troubles: watch::Sender::new(Arc::default()),
            acknowledged: watch::Sender::new(Acknowledged::default()),
            changed: watch::Sender::new(()),
        }
    }
}

impl Status {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Plain values: whoever panicked in between left them whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.lock());
        self.changed.send_replace(());
    }

    /// Wakes when something was told.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Exports that the store refused, with the reason.
    #[must_use]
    pub fn refused(&self) -> watch::Receiver<Arc<BTreeMap<ServiceKey, Refusal>>> {
        self.refused.subscribe()
    }

    /// What is wrong with services in this cluster, as its objects show it: in every replica.
    #[must_use]
    pub fn troubles(&self) -> watch::Receiver<Arc<BTreeMap<ServiceKey, String>>> {
        self.troubles.subscribe()
    }

    /// What is wrong with services, as the cluster's objects show it.
    pub fn troubled(&self, troubles: &Arc<BTreeMap<ServiceKey, String>>) {
        self.troubles.send_if_modified(|told| {
            let news = told != troubles;
            told.clone_from(troubles);
            news
        });
    }

    /// The exports as the store acknowledged them.
    #[must_use]
    pub fn acknowledged(&self) -> watch::Receiver<Acknowledged> {
        self.acknowledged.subscribe()
    }

    /// The store has these exports, taken or refused, and is at this revision.
    pub fn acknowledge(&self, shards: &Shared<ServiceKey, Shard>, revision: Revision) {
        self.acknowledged.send_if_modified(|acknowledged| acknowledged.follow(shards, revision));
    }

    /// The catalog session opened or ended.
    pub fn session(&self, state: SessionState) {
        self.set(|s| {
            if std::mem::discriminant(&s.session) != std::mem::discriminant(&state) {
                s.session_since = clock::now();
            }
            if matches!(state, SessionState::Open { .. }) {
                s.heard = Some(clock::now());
            }
            s.session = state;
            s.synced = false;
        });
    }

    /// The store removed this cluster (what to do about it), or knows it again. Says whether that is new.
    pub fn removed(&self, said: Option<String>) -> bool {
        if self.lock().removed == said {
            return false;
        }
        self.set(|s| s.removed = said);
        true
    }

    /// Whether the store removed this cluster: what to do about it.
    #[must_use]
    pub fn removal(&self) -> Option<String> {
        self.lock().removed.clone()
    }

    /// The store answered a heartbeat.
    pub fn heard(&self) {
        // Not worth waking anybody for.
        self.lock().heard = Some(clock::now());
    }

    /// A write was applied.
    pub fn written(
        &self,
        revision: Revision,
        services: BTreeMap<ServiceKey, Option<Refusal>>,
        others: Vec<Refusal>,
        synced: bool,
    ) {
        self.set(|s| {
            s.heard = Some(clock::now());
            s.acknowledged = revision;
            s.synced = synced;
            if !others.is_empty() {
                s.other_refusals = others.into_iter().take(16).map(|r| r.message).collect();
            }
        });
        self.refused.send_if_modified(|refused| {
            let mut next = BTreeMap::clone(refused);
            for (service, refusal) in services {
                match refusal {
                    Some(refusal) => next.insert(service, refusal),
                    None => next.remove(&service),
                };
            }
            let changed = next != **refused;
            *refused = Arc::new(next);
            changed
        });
    }

    /// A view came.
    pub fn watching(&self, _revision: Revision) {
        self.set(|s| {
            if !s.watching {
                s.watch_since = clock::now();
            }
            (s.watching, s.watch_error) = (true, None);
        });
    }

    /// The view stream ended.
    pub fn watch_lost(&self, error: &str) {
        self.set(|s| {
            if s.watching {
                s.watch_since = clock::now();
            }
            (s.watching, s.watch_error) = (false, Some(error.to_owned()));
        });
    }

    /// The view was put on disk, or why not.
    pub fn persisted(&self, result: Result<Revision, String>) {
        self.set(|s| match result {
            Ok(revision) => (s.kept_revision, s.persist_error) = (Some(revision), None),
            Err(error) => s.persist_error = Some(error),
        });
    }

    /// What is wrong with the source's objects.
    pub fn problems(&self, problems: Vec<Problem>) {
        self.set(|s| s.problems = problems);
    }

    /// The source was read whole.
    pub fn source_ready(&self) {
        self.set(|s| s.source_ready = true);
    }

    /// These kinds of the source can not be read; all can when it is empty.
    pub fn source_unavailable(&self, failures: Failures) {
        self.set(|s| s.unavailable = failures);
    }

    /// The addresses of imports are read from somewhere, and were not yet.
    pub fn awaits_addresses(&self) {
        self.set(|s| s.addresses_awaited = true);
    }

    /// The addresses of imports were read.
    pub fn addresses_read(&self) {
        if self.lock().addresses_awaited {
            self.set(|s| s.addresses_awaited = false);
        }
    }

    /// How this replica stands to the others. Says whether what is wrong with that is something new.
    pub fn lease(&self, told: LeaseStatus) -> bool {
        let before = self.lock().lease.clone();
        if before.as_ref() == Some(&told) {
            return false;
        }
        let news = told.error.is_some() && before.and_then(|b| b.error) != told.error;
        self.set(|s| s.lease = Some(told));
        news
    }

    /// A proxy connected.
    pub fn proxy_connected(&self, id: u64, proxy: ProxyStatus) {
        self.set(|s| {
            s.proxies.insert(id, proxy);
        });
    }

    /// A proxy was sent a version.
    pub fn proxy_sent(&self, id: u64, version: u64) {
        self.set(|s| {
            if let Some(proxy) = s.proxies.get_mut(&id) {
                proxy.sent_version = version;
            }
        });
    }

    /// A proxy runs a version, or could not.
    pub fn proxy_applied(&self, id: u64, version: u64, revision: Revision, error: String) {
        self.set(|s| {
            if let Some(proxy) = s.proxies.get_mut(&id) {
                proxy.applied_version = version;
                proxy.applied_revision = revision.to_string();
                proxy.error = error.chars().take(500).collect();
            }
        });
    }

    /// A proxy disconnected.
    pub fn proxy_gone(&self, id: u64) {
        self.set(|s| {
            s.proxies.remove(&id);
        });
    }

    /// What the output directory holds.
    pub fn output(&self, files: usize, foreign: Vec<String>, error: Option<String>) {
        self.set(|s| (s.files, s.foreign, s.output_error) = (files, foreign, error));
    }

    /// DNS is answered at these addresses.
    pub fn listens_for_dns(&self, listen: Vec<String>) {
        self.set(|s| s.dns = Some(DnsReport { listen, known: false, imports: 0 }));
    }

    /// The names of so many imports are answered.
    pub fn zone(&self, imports: usize) {
        let told = self.lock().dns.as_ref().is_some_and(|dns| dns.known && dns.imports == imports);
        if !told {
            self.set(|s| {
                if let Some(dns) = &mut s.dns {
                    (dns.known, dns.imports) = (true, imports);
                }
            });
        }
    }

    /// What was written, where that is told often and seldom differs.
    pub fn output_if_new(&self, objects: usize, foreign: Vec<String>, error: Option<String>) {
        let told = (objects, foreign, error);
        let differs = {
            let s = self.lock();
            (&s.files, &s.foreign, &s.output_error) != (&told.0, &told.1, &told.2)
        };
        if differs {
            self.output(told.0, told.1, told.2);
        }
    }

    /// Why the output could not be written, where it could not.
    #[must_use]
    pub fn output_error(&self) -> Option<String> {
        self.lock().output_error.clone()
    }

    /// How many proxies are connected.
    #[must_use]
    pub fn proxies(&self) -> usize {
        self.lock().proxies.len()
    }
}

/// Everything that a report is made of.
#[derive(Debug, Clone)]
pub struct Reporter {
    /// What the parts told.
    pub status: Arc<Status>,
    /// The way to the store.
    pub store: Arc<crate::store::Store>,
    /// The agent's identity towards its proxies.
    pub serving: sealane_trust::tls::Identity,
    /// This process.
    pub instance: InstanceId,
    /// The view.
    pub held: watch::Receiver<Arc<Held>>,
    /// The catalog.
    pub catalog: watch::Receiver<Option<Arc<Catalog>>>,
    /// The lanes.
    pub lanes: watch::Receiver<Arc<Lanes>>,
    /// Cancelled once this process was asked to end.
    pub ending: CancellationToken,
}

/// The agent's status.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// This cluster.
    pub cluster: String,
    /// Its id.
    pub cluster_id: u64,
    /// Its trust domain.
    pub trust_domain: String,
    /// The federation.
    pub federation: String,
    /// This process.
    pub instance: String,
    /// Why nothing new may be sent here; null when it may.
    pub not_ready: Option<String>,
    /// The store removed this cluster: what to do about it.
    pub removed: Option<String>,
    /// The catalog stream.
    pub session: SessionReport,
    /// The view stream.
    pub view: ViewReport,
    /// The manifests, or the API server.
    pub source: SourceReport,
    /// The replicas, where there may be several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseStatus>,
    /// Every export, why the store refused it, and what was left out of it.
    pub exports: BTreeMap<String, ExportReport>,
    /// Changes that the store refused and that are about no service.
    pub refused: Vec<String>,
    /// The lanes.
    pub lanes: BTreeMap<String, LaneReport>,
    /// When certificates end.
    pub certificates: BTreeMap<&'static str, CertificateReport>,
    /// The connected proxies.
    pub proxies: Vec<ProxyStatus>,
    /// The output directory.
    pub output: OutputReport,
    /// DNS, where it is answered.
    pub dns: Option<DnsReport>,
}

/// The catalog stream.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SessionReport {
    /// `never`, `open` or `lost`.
    pub state: &'static str,
    /// The session, when one is open.
    pub id: Option<String>,
    /// Since when it is so.
    pub since: String,
    /// When the store was last heard.
    pub last_heard: Option<String>,
    /// Whether the store has the whole catalog of this session.
    pub synced: bool,
    /// The revision at which the last write was applied.
    pub acknowledged: String,
    /// Why the last session ended.
    pub error: Option<String>,
}

/// The view stream.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ViewReport {
    /// `nothing`, `disk` (the store has not been heard since the start) or `store`.
    pub origin: Origin,
    /// Whether the stream is up.
    pub connected: bool,
    /// Since when it is so.
    pub since: String,
    /// The revision that is served.
    pub revision: String,
    /// The revision on disk, which a restart without the store would serve.
    pub kept_revision: String,
    /// How many imports it has.
    pub imports: usize,
    /// How many peers it has.
    pub peers: usize,
    /// Why the stream is down.
    pub error: Option<String>,
    /// Why the view could not be kept on disk.
    pub disk_error: Option<String>,
}

/// The manifests, or the API server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceReport {
    /// Whether they were read whole once.
    pub ready: bool,
    /// Why they can not be read now.
    pub unavailable: Option<String>,
    /// Of these kinds, for metrics.
    #[serde(skip)]
    pub unreadable: BTreeSet<&'static str>,
    /// What is wrong with them.
    pub problems: Vec<Problem>,
}

/// How this replica stands to the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeaseStatus {
    /// This replica.
    pub replica: String,
    /// The one that writes, as far as is known.
    pub holder: Option<String>,
    /// The term, when this one does.
    pub term: Option<u32>,
    /// How often the Lease went from one holder to the next, as it was last read.
    pub transitions: Option<u32>,
    /// Why the Lease can not be read or written.
    pub error: Option<String>,
}

/// One export.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExportReport {
    /// How many endpoints it has.
    pub endpoints: usize,
    /// Why the store refused it.
    pub refused: Option<String>,
    /// What was left out or guessed.
    pub notes: Vec<String>,
}

/// One lane.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LaneReport {
    /// `up`, `down` or `unknown`.
    pub verdict: &'static str,
    /// Since when.
    pub since: String,
    /// The smoothed round-trip time in microseconds.
    pub rtt_us: Option<u32>,
    /// Why the last failed probe failed.
    pub error: Option<String>,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CertificateReport {
    /// Who it speaks for.
    pub spiffe_id: String,
    /// When it ends.
    pub not_after: String,
}

/// The output directory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OutputReport {
    /// How many files are ours.
    pub files: usize,
    /// Files of others where ours should be; they are not touched.
    pub foreign: Vec<String>,
    /// Why it could not be written.
    pub error: Option<String>,
    /// What is wrong with services, as the objects of the cluster show it; the store is told, and `sealane explain` shows it.
    pub troubles: BTreeMap<String, String>,
}

/// DNS for `clusterset.local`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DnsReport {
    /// Where it is answered, by UDP and TCP.
    pub listen: Vec<String>,
    /// Whether the names are known; until then every answer is SERVFAIL.
    pub known: bool,
    /// How many imports have names.
    pub imports: usize,
}

/// An instant as people read it.
#[must_use]
pub fn rfc3339(at: Millis) -> String {
    let ms = i64::try_from(at.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| at.0.to_string(), |t| t.to_string())
}

impl Reporter {
    /// The status now.
    #[must_use]
    pub fn report(&self) -> Report {
        let membership = self.store.membership();
        let held = self.held.borrow().clone();
        let s = self.status.lock();
        let (state, id, error) = match &s.session {
            SessionState::Never => ("never", None, None),
            SessionState::Open { session } => ("open", Some(session.to_string()), None),
            SessionState::Lost { error } => ("lost", None, Some(error.clone())),
        };
        Report {
            cluster: membership.cluster.to_string(),
            cluster_id: membership.cluster_id.0,
            trust_domain: membership.trust_domain.to_string(),
            federation: membership.federation.to_string(),
            instance: self.instance.to_string(),
            not_ready: self.leaves().or_else(|| not_ready(&s, &held)),
            removed: s.removed.clone(),
            session: SessionReport {
                state,
                id,
                since: rfc3339(s.session_since),
                last_heard: s.heard.map(rfc3339),
                synced: s.synced,
                acknowledged: s.acknowledged.to_string(),
                error,
            },
            view: view_report(&s, &held),
            source: SourceReport {
                ready: s.source_ready,
                unavailable: unavailable(&s.unavailable),
                unreadable: s.unavailable.keys().copied().collect(),
                problems: s.problems.clone(),
            },
            lease: s.lease.clone(),
            exports: self.exports(),
            refused: s.other_refusals.clone(),
            lanes: self.lane_reports(),
            certificates: self.certificates(),
            proxies: s.proxies.values().cloned().collect(),
            output: OutputReport {
                files: s.files,
                foreign: s.foreign.clone(),
                error: s.output_error.clone(),
                troubles: self.troubles(),
            },
            dns: s.dns.clone(),
        }
    }

    fn troubles(&self) -> BTreeMap<String, String> {
        let troubles = self.status.troubles.borrow().clone();
        troubles.iter().map(|(service, why)| (service.to_string(), why.clone())).collect()
    }

    fn exports(&self) -> BTreeMap<String, ExportReport> {
        let refused = self.status.refused.borrow().clone();
        let catalog = self.catalog.borrow().clone().unwrap_or_default();
        let told = catalog.shards.iter().map(|(service, shard)| {
            let refused = refused.get(service).map(|r| r.message.clone());
            let endpoints = shard.backends.len();
            (service.to_string(), ExportReport { endpoints, refused, notes: shard.notes.clone() })
        });
        told.collect()
    }

    fn lane_reports(&self) -> BTreeMap<String, LaneReport> {
        let lanes = self.lanes.borrow().clone();
        let report = |lane: &crate::lanes::Lane| LaneReport {
            verdict: match lane.verdict {
                None => "unknown",
                Some(LaneVerdict::Up) => "up",
                Some(LaneVerdict::Down) => "down",
            },
            since: rfc3339(Millis(lane.since_ms)),
            rtt_us: lane.rtt_us,
            error: lane.error.clone(),
        };
        lanes.all().iter().map(|(cluster, lane)| (cluster.to_string(), report(lane))).collect()
    }

    fn certificates(&self) -> BTreeMap<&'static str, CertificateReport> {
        let report = |svid: sealane_trust::svid::Svid| CertificateReport {
            spiffe_id: svid.spiffe_id.to_string(),
            not_after: rfc3339(svid.not_after),
        };
        let (agent, serving) = (self.store.identity().current(), self.serving.current());
        BTreeMap::from([("agent", report(agent)), ("serving", report(serving))])
    }

    /// Why nothing new may be sent here; `None` when it may.
    #[must_use]
    pub fn not_ready(&self) -> Option<String> {
        let held = self.held.borrow().clone();
        self.leaves().or_else(|| not_ready(&self.status.lock(), &held))
    }

    fn leaves(&self) -> Option<String> {
        self.ending.is_cancelled().then(|| "it was asked to stop".to_owned())
    }
}

fn not_ready(s: &Inner, held: &Held) -> Option<String> {
    if s.removed.is_some() {
        return s.removed.clone();
    }
    if !s.source_ready {
        let reason = unavailable(&s.unavailable);
        let reason = reason.as_deref().unwrap_or("being read");
        return Some(format!("the cluster was not read whole yet: {reason}"));
    }
    if held.origin == Origin::Nothing {
        return Some("no view came yet from the store, and none is on disk".to_owned());
    }
    // Where they can not be read, that is said elsewhere, and exports and headless imports are served all the same.
    if s.addresses_awaited && s.output_error.is_none() {
        return Some("the addresses of imports were not read yet".to_owned());
    }
    let unknown = s.dns.as_ref().is_some_and(|dns| !dns.known);
    unknown.then(|| "the names of imports are not known yet".to_owned())
}

fn unavailable(failures: &Failures) -> Option<String> {
    let named: Vec<String> = failures.iter().map(|(kind, why)| format!("{kind}: {why}")).collect();
    (!named.is_empty()).then(|| named.join("; "))
}

/// The revision that is on disk: what was read from there counts until something newer is kept.
fn kept_revision(s: &Inner, held: &Held) -> Revision {
    let read = (held.origin == Origin::Disk).then_some(held.revision);
    s.kept_revision.or(read).unwrap_or_default()
}

fn view_report(s: &Inner, held: &Held) -> ViewReport {
    ViewReport {
        origin: held.origin,
        connected: s.watching,
        since: rfc3339(s.watch_since),
        revision: held.revision.to_string(),
        imports: held.imports().count(),
        peers: held.peers().count(),
        error: s.watch_error.clone(),
        kept_revision: kept_revision(s, held).to_string(),
        disk_error: s.persist_error.clone(),
    }
}

//! The loop around the leases: what was heard here goes to the leader's table, in memory if this is the leader, else
//! in a batch every 250 ms; the leader proposes what the leases say.

use super::{Action, Leases};
use crate::consensus::replica::Replica;
use crate::machine::Machine;
use crate::peers::Peers;
use crate::writer::Writer;
use sealane_core::command::Action as Command;
use sealane_core::identity::{ClusterId, ServerId, SessionId};
use sealane_core::time::Revision;
use sealane_proto::servers::v1 as pb;
use sealane_proto::servers::v1::servers_client::ServersClient;
use sealane_proto::{Wire, types};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;

/// How often the loop runs, and a follower sends what it heard.
const BEAT: Duration = Duration::from_millis(250);
/// How long the leader may take to answer.
const ANSWER: Duration = Duration::from_secs(1);
/// In how many beats the leader's table is asked for once.
const TABLE_EVERY: u32 = 4;
/// The longest error of an agent that is kept.
const MAX_ERROR: usize = 1_024;

/// What is known of the contact with a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// When it was last heard, by this process's clock.
    pub heard: Option<Instant>,
    /// The server that heard it.
    pub server: ServerId,
    /// The view revision that its agent said it applied, and what went wrong.
    pub applied: Option<(Revision, String)>,
}

/// The contacts with all clusters.
pub type Contacts = BTreeMap<ClusterId, Contact>;

/// This server does not lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this server does not lead")]
pub struct NotLeader;

/// Keeps leases and contacts. Clones share it.
#[derive(Clone)]
pub struct Leasing(Arc<Inner>);

/// What the loop works with.
#[derive(Clone)]
pub struct LeasingParts {
    /// The replica.
    pub replica: Replica<Machine>,
    /// The way of writes.
    pub writer: Writer,
    /// The way to the leader.
    pub peers: Arc<Peers>,
}

struct Inner {
    parts: LeasingParts,
    start: Instant,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    leases: Leases,
    /// Heard at this server, or told to it as the leader.
    own: Contacts,
    /// What the leader last told, and how long it suspects itself.
    leaders: Contacts,
    suspected: Option<Instant>,
    /// To be told to the leader.
    heard: BTreeMap<ClusterId, SessionId>,
    applied: BTreeMap<ClusterId, (Revision, String)>,
    beats: u32,
    /// When each server last told something, on the leader.
    servers: BTreeMap<ServerId, Instant>,
    /// When this server last led, or was answered by the leader.
    current: Option<Instant>,
}

impl fmt::Debug for Leasing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leasing").field("server", &self.0.parts.replica.id()).finish_non_exhaustive()
    }
}

impl Leasing {
    /// Nothing heard yet.
    #[must_use]
    pub fn new(parts: LeasingParts) -> Self {
        Leasing(Arc::new(Inner { parts, start: Instant::now(), book: Mutex::default() }))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> super::Instant {
        self.0.start.elapsed()
    }

    /// A sign of life from a session connected here.
    pub fn heard(&self, cluster: ClusterId, session: SessionId) {
        let me = self.0.parts.replica.id();
        let action = {
            let mut book = self.book();
            book.contact(cluster, me).heard = Some(Instant::now());
            if book.leases.leads().is_none() {
                book.heard.insert(cluster, session);
            }
            book.leases.heard(self.now(), cluster, session)
        };
        self.propose(action);
    }

    /// An agent connected here says what it applied, and what went wrong. Says whether that is news.
    pub fn applied(&self, cluster: ClusterId, revision: Revision, mut error: String) -> bool {
        if error.len() > MAX_ERROR {
            let end = (0..=MAX_ERROR).rev().find(|at| error.is_char_boundary(*at)).unwrap_or(0);
            error.truncate(end);
        }
        let me = self.0.parts.replica.id();
        let mut book = self.book();
        book.applied.insert(cluster, (revision, error.clone()));
        let contact = book.contact(cluster, me);
        contact.server = me;
        let news = contact.applied.as_ref().is_none_or(|(_, before)| *before != error);
        contact.applied = Some((revision, error));
        news
    }

    /// What is known here of the contacts with all clusters.
    #[must_use]
    pub fn contacts(&self) -> Contacts {
        let book = self.book();
        let mut all = book.own.clone();
        if book.leases.leads().is_none() {
            for (cluster, theirs) in &book.leaders {
                let newer = all.get(cluster).is_none_or(|own| own.heard <= theirs.heard);
                if newer {
                    all.insert(*cluster, theirs.clone());
                }
            }
        }
        all
    }

    /// Since when the leader suspects itself, as far as this server knows.
    #[must_use]
    pub fn suspected(&self) -> Option<Instant> {
        let book = self.book();
        match book.leases.leads() {
            Some(_) => book.leases.suspected().map(|at| self.0.start + at),
            None => book.suspected,
        }
    }

    /// When this server last knew itself to be up to date: it led, or the leader answered it.
    #[must_use]
    pub fn current(&self) -> Option<Instant> {
        self.book().current
    }

    /// When this server, as the leader, was last told something by another.
    #[must_use]
    pub fn server_heard(&self, server: ServerId) -> Option<Instant> {
        let book = self.book();
        book.leases.leads().and_then(|_| book.servers.get(&server).copied())
    }

    /// An operator confirms that the silent clusters are gone. Gives how many leases lapse.
    ///
    /// # Errors
    /// When this server does not lead.
    pub fn confirm(&self) -> Result<usize, NotLeader> {
        let actions = {
            let mut book = self.book();
            book.leases.leads().ok_or(NotLeader)?;
            book.leases.confirm(self.now())
        };
        let count = actions.len();
        self.propose(actions);
        Ok(count)
    }

    /// What a follower heard, told to this server as the leader.
    ///
    /// # Errors
    /// When this server does not lead.
    pub fn told(&self, by: ServerId, beat: pb::BeatRequest) -> Result<pb::BeatReply, NotLeader> {
        let (now, instant) = (self.now(), Instant::now());
        let mut book = self.book();
        let term = book.leases.leads().ok_or(NotLeader)?;
        book.servers.insert(by, instant);
        let members = self.0.parts.replica.state();
        let member = |id: u64| members.1.state.clusters.contains_key(&ClusterId(id));
        let mut actions = Vec::new();
        for heard in beat.heard.into_iter().filter(|h| member(h.cluster)) {
            let Ok(session) = <[u8; 16]>::try_from(heard.session.as_slice()) else { continue };
            let contact = book.contact(ClusterId(heard.cluster), by);
            contact.heard = Some(instant);
            contact.server = by;
            actions.extend(book.leases.heard(now, ClusterId(heard.cluster), SessionId(session)));
        }
        for applied in beat.applied.into_iter().filter(|a| member(a.cluster)) {
            let Some(revision) = applied.revision.and_then(|r| Revision::from_wire(r).ok()) else { continue };
            let contact = book.contact(ClusterId(applied.cluster), by);
            contact.applied = Some((revision, applied.error));
        }
        let table = if beat.table {
            book.own.iter().map(|(id, c)| row(*id, c, instant)).collect()
        } else {
            Vec::new()
        };
        let suspected_ms = book.leases.suspected().map(|at| millis(now.saturating_sub(at)));
        drop(book);
        self.propose(actions);
        Ok(pb::BeatReply { term, table, suspected_ms })
    }

    /// Runs until the token is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (done, mut returned) = tokio::sync::mpsc::channel::<()>(1);
        let mut telling = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = returned.recv() => telling = false,
                _ = beat.tick() => {
                    if let Some((leader, batch)) = self.beat(telling) {
                        telling = true;
                        let (me, done) = (self.clone(), done.clone());
                        tokio::spawn(async move {
                            me.tell(leader, batch).await;
                            // The loop has ended when nobody takes this.
                            let _ = done.send(()).await;
                        });
                    }
                }
            }
        }
    }

    /// One beat: the leader's decisions, or what a follower has to tell.
    fn beat(&self, telling: bool) -> Option<(ServerId, pb::BeatRequest)> {
        let status = self.0.parts.replica.status().borrow().clone();
        let state = self.0.parts.replica.state();
        let state = &state.1.state;
        let mut book = self.book();
        book.own.retain(|id, _| state.clusters.contains_key(id));
        if status.is_leader() {
            book.current = Some(Instant::now());
            book.servers.retain(|id, _| state.servers.contains_key(id));
            if book.leases.leads() != Some(status.term) {
                book.leases.lead(self.now(), status.term, state);
            }
            let before = book.leases.suspected();
            let actions = book.leases.tick(self.now(), state);
            let after = book.leases.suspected();
            (book.heard, book.applied) = Default::default();
            drop(book);
            say_suspicion(before.is_some(), after.is_some());
            self.propose(actions);
            return None;
        }
        if book.leases.leads().is_some() {
            book.leases.follow();
        }
        book.suspected = book.suspected.filter(|_| status.leader.is_some());
        let leader = status.leader.filter(|_| !telling)?;
        book.beats = book.beats.wrapping_add(1);
        let table = book.beats.is_multiple_of(TABLE_EVERY);
        (table || !book.heard.is_empty() || !book.applied.is_empty()).then(|| (leader, book.batch(table)))
    }

    async fn tell(&self, leader: ServerId, batch: pb::BeatRequest) {
        let applied = batch.applied.clone();
        let Ok(channel) = self.0.parts.peers.channel(leader) else { return };
        let answer = timeout(ANSWER, ServersClient::new(channel).beat(batch)).await;
        let mut book = self.book();
        match answer {
            Ok(Ok(reply)) => book.learn(reply.into_inner()),
            failed => {
                tracing::debug!(%leader, ?failed, "the leader did not take what was heard");
                for one in applied {
                    let Some(revision) = one.revision.and_then(|r| Revision::from_wire(r).ok()) else {
                        continue;
                    };
                    book.applied.entry(ClusterId(one.cluster)).or_insert((revision, one.error));
                }
            }
        }
    }

    fn propose(&self, actions: impl IntoIterator<Item = Action>) {
        for action in actions {
            let writer = self.0.parts.writer.clone();
            let command = match action {
                Action::Lapse(cluster, session) => {
                    tracing::info!(%cluster, "lease lapsed");
                    Command::Lapse { cluster, session }
                }
                Action::Close(cluster, session) => {
                    tracing::info!(%cluster, "session closed: silent for a whole lease");
                    Command::Close { cluster, session }
                }
                Action::Revive(cluster, session) => {
                    tracing::info!(%cluster, "lease revived");
                    Command::Revive { cluster, session }
                }
            };
            let Ok(command) = crate::writer::command(None, command) else { continue };
            // Tried once: the leases propose it again while it shows no effect.
            tokio::spawn(async move {
                if let Err(error) = writer.attempt(command).await {
                    tracing::debug!(%error, "a lease's change was not committed");
                }
            });
        }
    }
}

fn say_suspicion(before: bool, after: bool) {
    match (before, after) {
        (false, true) => tracing::warn!(
            "most clusters went silent at once: this server suspects itself and lets no lease lapse until they are \
             heard or an administrator confirms"
        ),
        (true, false) => tracing::info!("clusters are heard again: this server no longer suspects itself"),
        _ => {}
    }
}

impl Book {
    fn contact(&mut self, cluster: ClusterId, server: ServerId) -> &mut Contact {
        let contact = self.own.entry(cluster).or_insert(Contact { heard: None, server, applied: None });
        contact.server = server;
        contact
    }

    fn batch(&mut self, table: bool) -> pb::BeatRequest {
        let heard = std::mem::take(&mut self.heard).into_iter();
        let applied = std::mem::take(&mut self.applied).into_iter();
        pb::BeatRequest {
            heard: heard.map(|(c, s)| pb::Heard { cluster: c.0, session: s.0.to_vec() }).collect(),
            applied: applied.map(|(c, (revision, error))| to_applied(c, revision, error)).collect(),
            table,
        }
    }

    fn learn(&mut self, reply: pb::BeatReply) {
        let now = Instant::now();
        self.current = Some(now);
        let ago = |ms: u64| now.checked_sub(Duration::from_millis(ms));
        self.suspected = reply.suspected_ms.map(|ms| ago(ms).unwrap_or(now));
        if reply.table.is_empty() {
            return;
        }
        let rows = reply.table.into_iter().map(|row| {
            let applied = row.applied.and_then(|a| Some((Revision::from_wire(a.revision?).ok()?, a.error)));
            let contact =
                Contact { heard: row.heard_ms.and_then(ago), server: ServerId(row.server), applied };
            (ClusterId(row.cluster), contact)
        });
        self.leaders = rows.collect();
    }
}

fn to_applied(cluster: ClusterId, revision: Revision, error: String) -> pb::Applied {
    let revision: types::v1::Revision = revision.to_wire();
    pb::Applied { cluster: cluster.0, revision: Some(revision), error }
}

fn row(cluster: ClusterId, contact: &Contact, now: Instant) -> pb::ContactRow {
    pb::ContactRow {
        cluster: cluster.0,
        heard_ms: contact.heard.map(|at| millis(now.saturating_duration_since(at))),
        server: contact.server.0,
        applied: contact.applied.clone().map(|(revision, error)| to_applied(cluster, revision, error)),
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

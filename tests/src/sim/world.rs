//! The world: one queue of events by time, and what each does.

mod clients;
mod faults;

use super::check::{Final, Properties, Seen, Violation};
use super::client::{self, Client, Said};
use super::disk::{Disk, Job, Snapshot};
use super::genesis;
use super::machine::Observed;
use super::network::Network;
use super::profile::Profile;
use super::random::Random;
use super::server::{Ended, Server, Ticket};
use super::trace::Trace;
use super::{Counts, Fault, Outcome};
use clients::Request;
use sealane_core::identity::ServerId;
use sealane_federation::consensus::machine::StateMachine;
use sealane_federation::consensus::sim::founding;
use sealane_federation::machine::Machine;
use sealane_proto::peer::v1::RaftMessage;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Faults happen until now, in microseconds.
const HEALED: u64 = 9_000_000;
/// Clients begin nothing new from now on.
const QUIET: u64 = 13_000_000;
/// The federation must have converged.
const END: u64 = 15_000_000;
const SERVERS: [u64; 3] = [1, 2, 3];

/// What is to happen.
enum Event {
    /// A server's round is due.
    Wake(u64),
    /// A message arrives.
    Message { from: u64, to: u64, message: Box<RaftMessage>, snapshot: Option<Snapshot> },
    /// The sender of a snapshot learns what became of it.
    Delivered { at: u64, to: u64, delivered: bool },
    /// A message was lost where the sender could notice.
    Unreachable { at: u64, to: u64 },
    /// A job beside the loop is done, unless its process is gone.
    Job { server: u64, run: u64, job: Job },
    /// A client acts: it begins something, or waited long enough.
    Client { client: usize, number: u64, attempt: u64 },
    /// A request arrives at a server.
    Request(Box<Request>),
    /// An answer arrives at a client.
    Answer(Ticket, Box<Said>),
    /// Something goes wrong.
    Trouble,
    /// A crashed server starts.
    Restart(u64),
    /// The cuts of the network are mended.
    Mend,
    /// All faults are over.
    Heal,
}

/// The world of one history.
pub(super) struct World {
    seed: u64,
    now: u64,
    /// What the servers take for the beginning of time.
    base: Instant,
    count: u64,
    events: BTreeMap<(u64, u64), Event>,
    random: Random,
    profile: Profile,
    servers: BTreeMap<u64, Server>,
    network: Network,
    clients: Vec<Client>,
    /// The highest revision that any client knows of.
    known: u64,
    properties: Properties,
    trace: Trace,
    counts: Counts,
    fault: Option<Fault>,
    violation: Option<Violation>,
}

/// What every server's disk holds at the beginning.
fn founders(random: &mut Random) -> anyhow::Result<BTreeMap<u64, Server>> {
    let state = genesis::state()?;
    let voters: BTreeSet<ServerId> = SERVERS.into_iter().map(ServerId).collect();
    let (mut metadata, mut hard_state) = founding(&voters);
    (metadata.index, hard_state.commit) = (state.meta.revision.index, state.meta.revision.index);
    let records = state.records().map(|record| {
        use sealane_proto::Wire;
        Ok((sealane_proto::key::encode(&record.key()), record.encode()))
    });
    let machine = Machine::restore(records)?;
    let disk = || Disk::new(&metadata, &hard_state, machine.records().collect());
    Ok(SERVERS.into_iter().map(|id| (id, Server::new(id, disk(), random))).collect())
}

impl World {
    pub(super) fn new(seed: u64, fault: Option<Fault>) -> Self {
        let mut random = Random::new(seed ^ 0x5ea1_a4e5_1000_0001);
        let profile = Profile::draw(&mut random);
        let mut world = World {
            seed,
            now: 0,
            base: Instant::now(),
            count: 0,
            events: BTreeMap::new(),
            servers: BTreeMap::new(),
            network: Network::new(profile.weather),
            clients: client::all(&mut random),
            known: 0,
            properties: Properties::all(),
            trace: Trace::new(),
            counts: Counts::default(),
            random,
            profile,
            fault,
            violation: None,
        };
        match founders(&mut world.random) {
            Ok(servers) => world.servers = servers,
            Err(error) => world.broken("servers-go-on", error.to_string()),
        }
        world
    }

    /// Runs the history to its end, or to where something does not hold.
    pub(super) fn run(mut self) -> Outcome {
        SERVERS.into_iter().for_each(|id| self.start(id));
        for client in 0..self.clients.len() {
            self.after(800_000, Event::Client { client, number: 0, attempt: 0 });
        }
        self.after(1_200_000, Event::Trouble);
        self.at(HEALED, Event::Heal);
        while self.violation.is_none()
            && let Some(((at, _), event)) = self.events.pop_first()
            && at < END
        {
            self.now = at;
            self.happen(event);
        }
        if self.violation.is_none() {
            self.now = END;
            self.end();
        }
        self.counts.simulated_ms = self.now / 1000;
        let hash = self.trace.hash();
        Outcome {
            seed: self.seed,
            hash,
            counts: self.counts,
            violation: self.violation,
            tail: self.trace.into_tail(),
        }
    }

    fn at(&mut self, at: u64, event: Event) {
        self.count += 1;
        self.events.insert((at.max(self.now), self.count), event);
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    fn broken(&mut self, property: &'static str, what: String) {
        self.violation.get_or_insert(Violation { property, what });
    }

    fn see(&mut self, seen: &Seen<'_>) {
        if let Err(violation) = self.properties.see(seen) {
            self.violation.get_or_insert(violation);
        }
    }

    fn happen(&mut self, event: Event) {
        self.trace.count(&[self.now]);
        match event {
            Event::Wake(server) => self.wake(server),
            Event::Message { from, to, message, snapshot } => self.message(from, to, *message, snapshot),
            Event::Delivered { at, to, delivered } => {
                self.trace
                    .say(self.now, format_args!("server {at}: snapshot to {to} delivered: {delivered}"));
                self.report(at, |link| link.snapshot_sent(ServerId(to), delivered));
            }
            Event::Unreachable { at, to } => self.report(at, |link| link.unreachable(ServerId(to))),
            Event::Job { server, run, job } => self.job(server, run, job),
            Event::Client { client, number, attempt } => self.client(client, number, attempt),
            Event::Request(request) => self.request(*request),
            Event::Answer(ticket, said) => self.answer(ticket, &said),
            Event::Trouble => self.trouble(),
            Event::Restart(server) => self.start(server),
            Event::Mend => {
                self.trace.say(self.now, format_args!("the network is mended"));
                self.network.heal();
            }
            Event::Heal => self.heal(),
        }
    }

    fn instant(&self) -> Instant {
        self.base + Duration::from_micros(self.now)
    }

    fn start(&mut self, id: u64) {
        let (now, seed) = (self.instant(), self.random.next());
        let Some(server) = self.servers.get_mut(&id).filter(|s| s.station.is_none()) else { return };
        match server.start(now, seed, &self.profile, self.fault) {
            Ok(index) => {
                self.trace.say(self.now, format_args!("server {id} starts at {index}"));
                self.see(&Seen::Started { server: id, index });
                self.rouse(id);
            }
            Err(why) => self.broken("servers-go-on", format!("server {id} does not start: {why}")),
        }
    }

    /// Lets a server have its round as soon as it can.
    fn rouse(&mut self, id: u64) {
        let now = self.now;
        let Some(server) = self.servers.get_mut(&id).filter(|s| s.station.is_some()) else { return };
        let at = now.max(server.paused_until).max(server.busy_until);
        if server.wake_at.is_none_or(|due| at < due) {
            server.wake_at = Some(at);
            self.at(at, Event::Wake(id));
        }
    }

    fn wake(&mut self, id: u64) {
        let (now, instant) = (self.now, self.instant());
        let Some(server) = self.servers.get_mut(&id).filter(|s| s.wake_at == Some(now)) else { return };
        server.wake_at = None;
        if server.paused_until > now || server.busy_until > now {
            return self.rouse(id);
        }
        let ended = server.step(instant);
        self.settle(id);
        match ended {
            Ended::Well => self.next_round(id),
            Ended::Crashed => self.crash(id, "in the middle of a round"),
            Ended::Stopped(why) => self.broken("servers-go-on", format!("server {id} stopped: {why}")),
        }
    }

    /// Takes up what a round left: what was applied, sent, answered and begun.
    fn settle(&mut self, id: u64) {
        let now = self.now;
        let Some(server) = self.servers.get_mut(&id) else { return };
        let run = server.run;
        let syncs = server.disk.take_syncs();
        let cost = 20 + syncs * self.random.around(server.sync_takes);
        server.busy_until = now + cost;
        let (noted, sent, said) = (server.journal.take(), server.outbox.take(), server.answers());
        let jobs = server.disk.take_jobs();
        let state = server.station.as_ref().map(|station| station.state().0);
        for noted in &noted {
            self.trace.count(&[id, noted.index, noted.term, noted.digest, noted.hash]);
            self.see(&Seen::Applied { server: id, noted });
        }
        if let Some(index) = state {
            self.see(&Seen::State { server: id, index });
        }
        for outgoing in sent {
            self.see(&Seen::Sent { from: id, message: &outgoing.message });
            self.send(id, outgoing.to, outgoing.message, outgoing.snapshot, cost);
        }
        for (ticket, said) in said {
            self.reply(ticket, said, cost);
        }
        for job in jobs {
            let delay = self.random.around(30_000);
            self.after(delay, Event::Job { server: id, run, job });
        }
    }

    fn next_round(&mut self, id: u64) {
        let (now, base) = (self.now, self.base);
        let Some(server) = self.servers.get_mut(&id) else { return };
        let Some(station) = &server.station else { return };
        let status = station.status();
        let seen = (status.is_leader(), status.term, status.leader.map(|l| l.0));
        let due = u64::try_from(station.next_tick().saturating_duration_since(base).as_micros());
        let at = due.unwrap_or(u64::MAX).max(server.busy_until).max(now + 1);
        server.wake_at = Some(at);
        let turned = seen != server.seen;
        server.seen = seen;
        self.at(at, Event::Wake(id));
        if turned {
            let part = if seen.0 { "leads" } else { "follows" };
            self.counts.leaders += u64::from(seen.0);
            self.trace.say(now, format_args!("server {id} {part} in term {}, leader {:?}", seen.1, seen.2));
        }
    }

    fn send(&mut self, from: u64, to: u64, message: RaftMessage, snapshot: Option<Snapshot>, cost: u64) {
        let kind = u64::try_from(message.r#type).unwrap_or(0);
        self.trace.count(&[from, to, kind, message.term, message.index, message.commit]);
        let copies = self.network.carry(from, to, &mut self.random);
        self.counts.messages += copies.len() as u64;
        if copies.is_empty() {
            if snapshot.is_some() {
                self.after(cost + 100_000, Event::Delivered { at: from, to, delivered: false });
            } else if self.random.permille(300) {
                self.after(cost + 10_000, Event::Unreachable { at: from, to });
            }
            return;
        }
        let large = if snapshot.is_some() { self.random.around(50_000) } else { 0 };
        for delay in copies {
            let message = Box::new(message.clone());
            let snapshot = snapshot.clone();
            self.after(cost + delay + large, Event::Message { from, to, message, snapshot });
        }
    }

    fn message(&mut self, from: u64, to: u64, message: RaftMessage, snapshot: Option<Snapshot>) {
        let with_snapshot = snapshot.is_some();
        let Some(server) = self.servers.get_mut(&to) else { return };
        let taken = match (&server.station, snapshot) {
            (None, _) => false,
            (Some(station), Some(snapshot)) => {
                self.trace.say(
                    self.now,
                    format_args!("server {to} has snapshot {} of {from}", snapshot.header.metadata.index),
                );
                self.counts.installs += 1;
                server.disk.keep(snapshot);
                station.installed(ServerId(from), message).is_ok()
            }
            (Some(station), None) => {
                match station.link().deliver(ServerId(from), &genesis::FEDERATION.0, vec![message]) {
                    Ok(()) => true,
                    Err(error) => {
                        return self
                            .broken("servers-go-on", format!("server {to} refuses a message: {error}"));
                    }
                }
            }
        };
        if with_snapshot {
            self.after(1_000, Event::Delivered { at: from, to, delivered: taken });
        }
        if taken {
            self.rouse(to);
        }
    }

    fn report(&mut self, at: u64, report: impl FnOnce(&sealane_federation::consensus::transport::Link)) {
        if let Some(station) = self.servers.get(&at).and_then(|s| s.station.as_ref()) {
            report(station.link());
            self.rouse(at);
        }
    }

    fn job(&mut self, id: u64, run: u64, job: Job) {
        let Some(server) = self.servers.get_mut(&id).filter(|s| s.run == run && s.station.is_some()) else {
            return;
        };
        server.work(job);
        if server.disk.is_dead() {
            return self.crash(id, "while it wrote a snapshot");
        }
        self.rouse(id);
    }

    fn end(&mut self) {
        let running = self.servers.values();
        let finals: Vec<Final> = running
            .filter_map(|s| Some(Final { server: s.id, state: s.station.as_ref()?.state() }))
            .collect();
        for Final { server, state } in &finals {
            let hash = super::machine::hash_of(Observed::records(&state.1));
            self.trace.count(&[*server, state.0, hash]);
        }
        let clients = std::mem::take(&mut self.clients);
        self.see(&Seen::End { finals: &finals, clients: &clients, healed: HEALED });
    }
}

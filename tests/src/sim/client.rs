//! Clients: each has one thing in hand, sends it until it is answered, and keeps in mind what it was promised.
//!
//! Agents write their catalog in sessions with sequence numbers, and resync in a new session as the real ones do; the
//! administrator makes tokens under idempotency keys; the reader asks for what all others were acknowledged.

use super::genesis;
use super::machine::Op;
use super::random::Random;
use anyhow::Context;
use sealane_core::command::{Action, AdminAction, CatalogChange, CatalogError, Reply, admin_key};
use sealane_core::endpoint::Endpoint;
use sealane_core::identity::{ClusterId, InstanceId, Principal, SessionId};
use sealane_core::name::{ClusterName, EndpointId, ServiceKey};
use sealane_core::service::{Export, Invalid};
use sealane_core::state::Hash;
use sealane_core::time::Millis;
use std::collections::{BTreeMap, BTreeSet};

const SERVICES: [&str; 3] = ["shop/cart", "shop/till", "bank/vault"];

/// What a cluster exports, as its agent wants it.
pub(super) type Catalog = BTreeMap<ServiceKey, (Millis, BTreeMap<EndpointId, Endpoint>)>;

/// What is asked of a server.
#[derive(Debug, Clone)]
pub(super) enum Body {
    Command(Option<Principal>, Action),
    Read,
}

/// What a client has in hand.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) number: u64,
    pub(super) op: Op,
    pub(super) body: Body,
    pub(super) attempt: u64,
    pub(super) since: u64,
}

/// What a server said.
#[derive(Debug, Clone)]
pub(super) enum Said {
    Applied(u64, Reply),
    Read(u64),
    NotLeader(Option<u64>),
    Unknown,
}

/// What follows from an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reaction {
    /// It is done, at this index.
    Done(u64),
    /// It is given up, and something else follows.
    GivenUp,
    /// It is tried again.
    Again,
    /// It must not be.
    Wrong(String),
}

#[derive(Debug)]
pub(super) struct Agent {
    pub(super) cluster: ClusterId,
    name: &'static str,
    session: Option<(SessionId, u64)>,
    opened: u64,
    resync: bool,
    pub(super) wants: Catalog,
    stamp: u64,
}

#[derive(Debug)]
pub(super) enum Role {
    Agent(Agent),
    /// With the tokens made and acknowledged.
    Admin(BTreeSet<Hash>),
    Reader,
}

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) role: Role,
    pub(super) pending: Option<Pending>,
    /// Where it tries next.
    pub(super) server: u64,
    /// When the last thing that it finished was begun.
    pub(super) finished_since: Option<u64>,
    numbers: u64,
    random: Random,
}

/// All of them.
pub(super) fn all(random: &mut Random) -> Vec<Client> {
    let agents = (1..).zip(genesis::CLUSTERS).map(|(id, name)| {
        Role::Agent(Agent {
            cluster: ClusterId(id),
            name,
            session: None,
            opened: 0,
            resync: false,
            wants: Catalog::new(),
            stamp: 0,
        })
    });
    let roles = agents.chain([Role::Admin(BTreeSet::new()), Role::Reader]).collect::<Vec<_>>();
    let new = |role| Client {
        role,
        pending: None,
        server: 1,
        finished_since: None,
        numbers: 0,
        random: random.fork(),
    };
    roles.into_iter().map(new).collect()
}

impl Client {
    /// Takes something in hand.
    pub(super) fn begin(&mut self, now: u64) -> anyhow::Result<()> {
        let body = match &mut self.role {
            Role::Agent(agent) => agent.next(&mut self.random)?,
            Role::Admin(_) => {
                let bytes = self.random.bytes16();
                let unique = bytes.first_chunk().context("sixteen bytes hold ten")?;
                let key = admin_key(Millis(1_000 + now / 1000), *unique);
                let hash = [self.random.bytes16(); 2].concat();
                let hash: Hash = hash.try_into().ok().context("twice sixteen bytes are a hash")?;
                let scope = genesis::token_scope(self.numbers)?;
                let action = AdminAction::CreateToken { hash, scope, expires: genesis::FAR };
                Body::Command(Some(genesis::admin()?), Action::Admin { key, action })
            }
            Role::Reader => Body::Read,
        };
        let op = match &body {
            Body::Command(_, action) => Op::of(action),
            Body::Read => Op::Other,
        };
        self.numbers += 1;
        self.pending = Some(Pending { number: self.numbers, op, body, attempt: 0, since: now });
        Ok(())
    }

    /// Takes an answer to what it has in hand.
    pub(super) fn hear(&mut self, said: &Said) -> Reaction {
        let Some(pending) = &self.pending else { return Reaction::Again };
        let reaction = match said {
            Said::NotLeader(Some(leader)) => {
                self.server = *leader;
                Reaction::Again
            }
            Said::NotLeader(None) | Said::Unknown => Reaction::Again,
            Said::Read(revision) => Reaction::Done(*revision),
            Said::Applied(index, reply) => self.role.hear(pending, *index, reply),
        };
        match reaction {
            Reaction::Done(_) => {
                self.finished_since = Some(pending.since);
                self.pending = None;
            }
            Reaction::GivenUp => self.pending = None,
            Reaction::Again | Reaction::Wrong(_) => {}
        }
        reaction
    }
}

impl Role {
    fn hear(&mut self, pending: &Pending, index: u64, reply: &Reply) -> Reaction {
        match (self, pending.op, reply) {
            (Role::Agent(agent), Op::Open(session), Reply::Session(Ok(()))) => {
                (agent.session, agent.resync) = (Some((session, 0)), true);
                Reaction::Done(index)
            }
            (Role::Agent(agent), Op::Write(session, sequence), Reply::Catalog(result)) => match result {
                Ok(result) if result.refused.is_empty() => {
                    (agent.session, agent.resync) = (Some((session, sequence)), false);
                    Reaction::Done(index)
                }
                // An old request for an older session of ours came late and took over: a new one, and all of it again.
                Err(CatalogError::Fenced) => {
                    agent.session = None;
                    Reaction::GivenUp
                }
                other => Reaction::Wrong(format!("write {sequence} of {} is answered {other:?}", agent.name)),
            },
            (Role::Admin(made), Op::Admin(_), Reply::TokenCreated { .. }) => {
                if let Body::Command(_, Action::Admin { action: AdminAction::CreateToken { hash, .. }, .. }) =
                    &pending.body
                {
                    made.insert(*hash);
                }
                Reaction::Done(index)
            }
            (_, op, reply) => Reaction::Wrong(format!("{op:?} is answered {reply:?}")),
        }
    }
}

impl Agent {
    fn next(&mut self, random: &mut Random) -> anyhow::Result<Body> {
        let principal = Some(Principal::Agent(ClusterName::parse(self.name)?));
        let cluster = self.cluster;
        let Some((session, sequence)) = self.session.filter(|_| !random.permille(20)) else {
            self.session = None;
            self.opened += 1;
            let session = SessionId::numbered(self.opened, random.bytes8());
            let instance = InstanceId([1; 16]);
            return Ok(Body::Command(
                principal,
                Action::OpenSession { cluster, session, instance, uid: None },
            ));
        };
        let changes = if self.resync { self.all() } else { vec![self.change(random)?] };
        Ok(Body::Command(principal, Action::Catalog { cluster, session, sequence: sequence + 1, changes }))
    }

    fn export(created: Millis) -> Export {
        // What the export says is the domain's subject; here it has to be told apart.
        Export { spec: Err(Invalid::InvalidServiceType), importers: None, created }
    }

    /// The whole catalog, as at the start of a session.
    fn all(&self) -> Vec<CatalogChange> {
        let mut changes = Vec::new();
        for (service, (created, endpoints)) in &self.wants {
            let (ids, service) = (endpoints.keys().cloned().collect(), service.clone());
            changes
                .push(CatalogChange::PutExport { service: service.clone(), export: Self::export(*created) });
            changes.push(CatalogChange::RetainEndpoints { service: service.clone(), ids });
            let endpoints = endpoints.values().cloned().collect();
            changes.push(CatalogChange::PutEndpoints { service, endpoints });
        }
        changes.push(CatalogChange::Synced { services: self.wants.keys().cloned().collect() });
        changes
    }

    fn change(&mut self, random: &mut Random) -> anyhow::Result<CatalogChange> {
        let service = ServiceKey::parse(random.pick(&SERVICES))?;
        self.stamp += 1;
        let stamp = Millis(self.stamp);
        let Some((created, endpoints)) = self.wants.get_mut(&service) else {
            self.wants.insert(service.clone(), (stamp, BTreeMap::new()));
            return Ok(CatalogChange::PutExport { service, export: Self::export(stamp) });
        };
        Ok(match random.below(10) {
            0 => {
                self.wants.remove(&service);
                CatalogChange::RemoveExport { service }
            }
            1 | 2 => {
                *created = stamp;
                CatalogChange::PutExport { service, export: Self::export(stamp) }
            }
            3 => {
                let ids: BTreeSet<EndpointId> = endpoints.pop_first().into_iter().map(|(id, _)| id).collect();
                CatalogChange::RemoveEndpoints { service, ids }
            }
            _ => {
                let port = 1 + u16::try_from(self.stamp % 60_000)?;
                let put = genesis::endpoint(self.name, u8::try_from(random.below(5))?, port)?;
                endpoints.insert(put.id.clone(), put.clone());
                CatalogChange::PutEndpoints { service, endpoints: vec![put] }
            }
        })
    }
}

//! Random histories that mean something: members join, sync, flap, lapse, are removed and come back.

use super::{
    World, address, admin, agent, bundle, endpoint, endpoint_id, export, gateway, instance, key, name, port,
    scope, session, spec,
};
use super::{added, http, interest, put, put_endpoints};
use crate::command::{Action, AdminAction, CatalogChange, Command};
use crate::endpoint::{Endpoint, Locality};
use crate::identity::Principal;
use crate::name::{NetworkName, PortName, TopologyName};
use crate::service::{Export, Invalid, IpFamily, ServiceType, SessionAffinity};
use crate::state::LaneVerdict;
use crate::time::Millis;
use proptest::prelude::*;
use std::collections::BTreeSet;

pub(crate) const CLUSTERS: [&str; 4] = ["ada", "bob", "cyd", "dee"];
const SERVICES: [&str; 3] = ["shop/cart", "shop/till", "bank/vault"];
const NAMESPACES: [&str; 3] = ["shop", "bank", "void"];
const NETWORKS: [&str; 2] = ["north", "south"];

/// One step; numbers choose from the short lists above, so that steps meet.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Join(usize),
    Remove(usize),
    /// By a token of its issuer, which is stated first.
    Enter(usize),
    Open(usize, u8),
    Lapse(usize),
    Revive(usize),
    Close(usize),
    Renew(usize),
    /// The last command once more.
    Again,
    /// A write of a session that is long gone.
    Stale(usize),
    Write(usize, Vec<Change>),
    /// Time passes, in milliseconds.
    Wait(u64),
}

#[derive(Debug, Clone)]
pub(crate) enum Change {
    Profile { network: usize, zone: bool, probes: u8 },
    Export { service: usize, flavour: u8, importers: Option<u8> },
    Unexport(usize),
    Endpoints { service: usize, from: u8, flavours: Vec<u8> },
    Unready { service: usize, ids: u8, retain: bool },
    Gateways(Vec<(u8, u8)>),
    Bundle(u64),
    Interest(u8),
    Lanes(Vec<(usize, bool)>),
    NoLane(usize),
    Synced(u8),
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let cluster = 0..CLUSTERS.len();
    let step = prop_oneof![
        2 => cluster.clone().prop_map(Step::Join),
        1 => cluster.clone().prop_map(Step::Remove),
        1 => cluster.clone().prop_map(Step::Enter),
        3 => (cluster.clone(), 1u8..3).prop_map(|(c, i)| Step::Open(c, i)),
        4 => cluster.clone().prop_map(Step::Lapse),
        2 => cluster.clone().prop_map(Step::Revive),
        2 => cluster.clone().prop_map(Step::Close),
        1 => cluster.clone().prop_map(Step::Renew),
        1 => Just(Step::Again),
        1 => cluster.clone().prop_map(Step::Stale),
        1 => (0u64..8_000).prop_map(Step::Wait),
        24 => (cluster, prop::collection::vec(change(), 1..4)).prop_map(|(c, changes)| Step::Write(c, changes)),
    ];
    prop::collection::vec(step, 1..40)
}

fn change() -> impl Strategy<Value = Change> {
    let service = 0..SERVICES.len();
    let lanes = prop::collection::vec((0..CLUSTERS.len(), prop::bool::weighted(0.3)), 1..4);
    prop_oneof![
        2 => (0..NETWORKS.len(), any::<bool>(), 0u8..3)
            .prop_map(|(network, zone, probes)| Change::Profile { network, zone, probes }),
        4 => (service.clone(), 0u8..8, prop::option::weighted(0.2, 0u8..16))
            .prop_map(|(service, flavour, importers)| Change::Export { service, flavour, importers }),
        1 => service.clone().prop_map(Change::Unexport),
        6 => (service.clone(), 0u8..4, prop::collection::vec(any::<u8>(), 1..3))
            .prop_map(|(service, from, flavours)| Change::Endpoints { service, from, flavours }),
        1 => (service, any::<u8>(), any::<bool>())
            .prop_map(|(service, ids, retain)| Change::Unready { service, ids, retain }),
        3 => prop::collection::vec((0u8..4, any::<u8>()), 0..4).prop_map(Change::Gateways),
        2 => (1u64..4).prop_map(Change::Bundle),
        2 => (0u8..8).prop_map(Change::Interest),
        5 => lanes.prop_map(Change::Lanes),
        1 => (0..CLUSTERS.len()).prop_map(Change::NoLane),
        1 => any::<u8>().prop_map(Change::Synced),
    ]
}

impl World {
    /// Live members that export to each other, so that random steps begin in the middle of things.
    pub(crate) fn busy() -> Self {
        let mut world = World::of(&CLUSTERS[..3]);
        for (n, cluster) in (0u8..).zip(&CLUSTERS[..3]) {
            let cart = Change::Export { service: 0, flavour: 0, importers: None };
            let endpoints = Change::Endpoints { service: 0, from: 0, flavours: vec![0, 1] };
            let far = Change::Profile { network: usize::from(n % 2), zone: true, probes: 1 };
            let gateways = Change::Gateways(vec![(n % 2, 1), (2 + n % 2, 1)]);
            for change in [cart, endpoints, far, gateways] {
                let change = world.change(cluster, &change);
                world.put(cluster, vec![change]);
            }
        }
        // The fourth is still on its way in: nobody can verify it before it publishes its bundle.
        world.join(CLUSTERS[3]);
        world.open(CLUSTERS[3], instance(1)).unwrap();
        world.put(CLUSTERS[3], vec![interest(&["shop"]), put("shop/cart", http())]);
        world.put(CLUSTERS[3], vec![put_endpoints("shop/cart", vec![endpoint(CLUSTERS[3], 1)])]);
        world
    }

    /// The command of a step; `None` where it has no meaning now.
    pub(crate) fn next(&mut self, step: &Step, last: Option<&Command>) -> Option<Command> {
        let member = |at: &usize| self.state.cluster_named(&name(CLUSTERS[*at])).cloned();
        let (principal, action) = match step {
            Step::Wait(ms) => {
                self.at += ms;
                return None;
            }
            Step::Again => return last.cloned(),
            Step::Join(at) => {
                if member(at).is_some() || self.state.admissions.contains_key(&name(CLUSTERS[*at])) {
                    return None;
                }
                let token = self.token(scope(CLUSTERS[*at]));
                (None, Action::Join { token, key: [3; 32], not_after: Millis(1 << 40) })
            }
            Step::Enter(at) => self.enter(CLUSTERS[*at]),
            Step::Remove(at) => {
                let key = self.admin_key();
                (
                    admin(),
                    Action::Admin { key, action: AdminAction::RemoveCluster { name: name(CLUSTERS[*at]) } },
                )
            }
            Step::Open(at, by) => {
                let (cluster, id) = (member(at)?.id, session(self.fresh()));
                (
                    agent(CLUSTERS[*at]),
                    Action::OpenSession { cluster, session: id, instance: instance(*by), uid: None },
                )
            }
            Step::Lapse(at) => {
                let member = member(at)?;
                (None, Action::Lapse { cluster: member.id, session: member.session.as_ref()?.id })
            }
            Step::Revive(at) => {
                let member = member(at)?;
                (None, Action::Revive { cluster: member.id, session: member.session.as_ref()?.id })
            }
            Step::Close(at) => {
                let member = member(at)?;
                (None, Action::Close { cluster: member.id, session: member.session.as_ref()?.id })
            }
            Step::Renew(at) => {
                let cluster = member(at)?.id;
                (
                    agent(CLUSTERS[*at]),
                    Action::Renew { cluster, key: [4; 32], not_after: Millis(self.at + 1000) },
                )
            }
            Step::Stale(at) => {
                let changes = vec![CatalogChange::Synced { services: BTreeSet::new() }];
                let cluster = member(at)?.id;
                (
                    agent(CLUSTERS[*at]),
                    Action::Catalog { cluster, session: session(255), sequence: 1, changes },
                )
            }
            Step::Write(at, changes) => {
                let member = member(at)?;
                let current = member.session.as_ref()?;
                let changes = changes.iter().map(|change| self.change(CLUSTERS[*at], change)).collect();
                let (session, sequence) = (current.id, current.sequence + 1);
                (agent(CLUSTERS[*at]), Action::Catalog { cluster: member.id, session, sequence, changes })
            }
        };
        Some(self.command(principal, action))
    }

    fn enter(&mut self, cluster: &str) -> (Option<Principal>, Action) {
        match self.state.admissions.get(&name(cluster)).map(|admission| admission.put) {
            None => (
                admin(),
                Action::Admin { key: self.admin_key(), action: AdminAction::AddCluster(added(cluster)) },
            ),
            Some(_) => {
                let token = [self.fresh(); 32];
                let proof = self.proof(cluster, token);
                (None, Action::JoinByIssuer { proof, key: [5; 32], not_after: Millis(1 << 40) })
            }
        }
    }

    fn change(&self, cluster: &str, change: &Change) -> CatalogChange {
        match change {
            Change::Profile { network, zone, probes } => CatalogChange::PutProfile {
                network: network_name(*network),
                locality: zone_of(*zone),
                probes: (0..*probes).map(address).collect(),
            },
            Change::Export { service, flavour, importers } => CatalogChange::PutExport {
                service: key(SERVICES[*service]),
                export: flavoured(*flavour, *importers),
            },
            Change::Unexport(service) => CatalogChange::RemoveExport { service: key(SERVICES[*service]) },
            Change::Endpoints { service, from, flavours } => CatalogChange::PutEndpoints {
                service: key(SERVICES[*service]),
                endpoints: (*from..).zip(flavours).map(|(n, f)| flavoured_endpoint(cluster, n, *f)).collect(),
            },
            Change::Unready { service, ids, retain } => {
                let ids = (0u8..5).filter(|n| ids & (1 << n) != 0).map(endpoint_id).collect();
                let service = key(SERVICES[*service]);
                if *retain {
                    CatalogChange::RetainEndpoints { service, ids }
                } else {
                    CatalogChange::RemoveEndpoints { service, ids }
                }
            }
            Change::Gateways(gateways) => CatalogChange::PutGateways {
                gateways: gateways.iter().map(|(n, flavour)| flavoured_gateway(*n, *flavour)).collect(),
            },
            Change::Bundle(sequence) => CatalogChange::PutBundle { bundle: bundle(cluster, *sequence) },
            Change::Interest(mask) => {
                let chosen = (0..3).filter(|n| mask & (1 << n) != 0).map(|n| NAMESPACES[n].parse().unwrap());
                CatalogChange::PutInterest { namespaces: chosen.collect() }
            }
            Change::Lanes(lanes) => {
                let verdict = |up: bool| if up { LaneVerdict::Up } else { LaneVerdict::Down };
                let lanes = lanes.iter().map(|(to, up)| (name(CLUSTERS[*to]), verdict(*up), None));
                CatalogChange::PutLanes { lanes: lanes.collect() }
            }
            Change::NoLane(to) => CatalogChange::RemoveLanes { targets: [name(CLUSTERS[*to])].into() },
            Change::Synced(mask) => {
                let kept = (0..3).filter(|n| mask & (1 << n) != 0).map(|n| key(SERVICES[n]));
                CatalogChange::Synced { services: kept.collect() }
            }
        }
    }
}

fn network_name(at: usize) -> NetworkName {
    NetworkName::parse(NETWORKS[at]).unwrap()
}

fn zone_of(zone: bool) -> Locality {
    Locality { region: zone.then(|| TopologyName::parse("r1").unwrap()), zone: None }
}

fn flavoured(flavour: u8, importers: Option<u8>) -> Export {
    let mut spec = spec(vec![port("http", 80)]);
    match flavour {
        1 => spec.ports.push(port("grpc", 90)),
        2 => spec.ports = vec![port("http", 81)],
        3 => spec.service_type = ServiceType::Headless,
        4 => spec.session_affinity = SessionAffinity::ClientIp,
        5 => spec.ip_families.push(IpFamily::V6),
        6 => spec.labels.extend([("team".to_owned(), "a".to_owned())]),
        _ => {}
    }
    let mut export = export(spec);
    if flavour == 7 {
        export.spec = Err(Invalid::InvalidServiceType);
    }
    export.importers =
        importers.map(|mask| (0..4).filter(|n| mask & (1 << n) != 0).map(|n| name(CLUSTERS[n])).collect());
    export
}

fn flavoured_endpoint(cluster: &str, n: u8, flavour: u8) -> Endpoint {
    let mut endpoint = endpoint(cluster, n);
    endpoint.ready = flavour % 4 != 3;
    if flavour & 16 != 0 {
        endpoint.inbound_port = None;
    }
    if flavour & 32 != 0 {
        endpoint.network = Some(network_name(usize::from(flavour >> 7)));
    }
    if flavour & 64 != 0 {
        endpoint.ports = [(PortName::parse("grpc").unwrap(), 9090)].into();
    }
    endpoint
}

fn flavoured_gateway(n: u8, flavour: u8) -> crate::endpoint::Gateway {
    let mut gateway = gateway(NETWORKS[usize::from(n % 2)], n, u32::from(flavour % 5));
    gateway.ready = flavour & 64 == 0;
    gateway
}

//! The endpoints and gateways of one exporter: what becomes of each, and why.

use super::weigh::{Exporter, effective};
use super::{Computation, ports, shares};
use crate::endpoint::{Endpoint, Gateway, Locality};
use crate::identity::SpiffeId;
use crate::name::{ClusterName, EndpointId, Hostname, NetworkName, PortName};
use crate::report::{Decision, Outcome, Rejection, Subject};
use crate::service::{ExportSpec, Port, ServiceType};
use crate::state::{Cluster, LaneVerdict, Shard};
use crate::view::{Candidate, Import, Path, Standing, Tier};
use std::collections::{BTreeMap, BTreeSet};

/// One place of an exporter, and what becomes of it. Only a report pays for the words.
pub(super) struct Weighed<'a> {
    exporter: &'a Cluster,
    place: Place<'a>,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Copy)]
enum Place<'a> {
    Endpoint(&'a Endpoint),
    Gateway(&'a Gateway),
}

/// What stands behind an exporter's gateways in one network.
#[derive(Default)]
struct Behind<'a> {
    counts: BTreeMap<&'a PortName, u32>,
    identities: BTreeSet<SpiffeId>,
    endpoints: Vec<&'a Endpoint>,
}

/// One exporter, as one importer meets it.
struct Meeting<'a> {
    importer: &'a Cluster,
    exporter: &'a Cluster,
    tier: Tier,
    headless: bool,
    exposed: Exposed,
    /// The gateways that take connections, by network.
    serving: BTreeMap<&'a NetworkName, Vec<&'a Gateway>>,
    behind: BTreeMap<&'a NetworkName, Behind<'a>>,
}

/// Every place of one exporter. `merged` is `None` when the importer does not import the service at all.
pub(super) fn weigh<'a>(
    computation: &Computation<'_>,
    importer: &'a Cluster,
    exporter: &Exporter<'a>,
    merged: Option<&ExportSpec>,
) -> Vec<Weighed<'a>> {
    let spec = exporter.shard.export.spec.as_ref().ok().filter(|_| exporter.counted.is_ok());
    let (Some(merged), Some(spec)) = (merged, spec) else {
        return judge(exporter, |_| Outcome::Rejected(Rejection::ExportNotCounted));
    };
    if let Some(rejection) = barred(computation, importer, exporter.cluster) {
        return judge(exporter, |_| Outcome::Rejected(rejection.clone()));
    }
    let mut meeting = Meeting {
        importer,
        exporter: exporter.cluster,
        tier: tier(importer, exporter.cluster),
        headless: merged.service_type == ServiceType::Headless,
        exposed: Exposed::of(merged.service_type, &merged.ports, &spec.ports),
        serving: serving(&exporter.cluster.gateways),
        behind: BTreeMap::new(),
    };
    meeting.gather(exporter.shard);
    judge(exporter, |place| match place {
        Place::Endpoint(endpoint) => meeting.endpoint(endpoint),
        Place::Gateway(gateway) => meeting.gateway(gateway),
    })
}

fn judge<'a>(exporter: &Exporter<'a>, outcome: impl Fn(Place<'a>) -> Outcome) -> Vec<Weighed<'a>> {
    let endpoints = exporter.shard.endpoints.values().map(|endpoint| Place::Endpoint(endpoint));
    let gateways = exporter.cluster.gateways.iter().map(Place::Gateway);
    let weighed = |place| Weighed { exporter: exporter.cluster, place, outcome: outcome(place) };
    endpoints.chain(gateways).map(weighed).collect()
}

impl Weighed<'_> {
    /// The cluster that has it.
    pub(super) fn cluster(&self) -> &ClusterName {
        &self.exporter.name
    }

    /// The decision, as a report words it.
    pub(super) fn decision(self) -> Decision {
        let default = &self.exporter.locality;
        let subject = match self.place {
            Place::Endpoint(endpoint) => Subject::Endpoint {
                id: endpoint.id.clone(),
                address: endpoint.address,
                locality: effective(&endpoint.locality, default),
                spiffe_id: endpoint.spiffe_id.clone(),
            },
            Place::Gateway(gateway) => Subject::Gateway {
                address: gateway.address.to_string(),
                locality: effective(&gateway.locality, default),
            },
        };
        Decision { cluster: self.exporter.name.clone(), subject, outcome: self.outcome }
    }
}

/// Why nothing of a whole cluster may be used. Its own places are always an importer's to use.
fn barred(computation: &Computation<'_>, importer: &Cluster, exporter: &Cluster) -> Option<Rejection> {
    if importer.id == exporter.id {
        return None;
    }
    if exporter.bundle.is_none() {
        return Some(Rejection::NoBundle);
    }
    let seen_up = importer.lanes.get(&exporter.id).is_some_and(|lane| lane.verdict == LaneVerdict::Up);
    let withdrawn = !seen_up && computation.standing(exporter.id) == Standing::Withdrawn;
    withdrawn.then_some(Rejection::ClusterWithdrawn)
}

fn tier(importer: &Cluster, exporter: &Cluster) -> Tier {
    if importer.id == exporter.id {
        return Tier::Local;
    }
    match importer.lanes.get(&exporter.id).map(|lane| lane.verdict) {
        Some(LaneVerdict::Down) => Tier::Avoided,
        Some(LaneVerdict::Up) | None => Tier::Remote,
    }
}

/// The gateways that take connections, by network, in an order that publishing them again does not change.
fn serving(gateways: &[Gateway]) -> BTreeMap<&NetworkName, Vec<&Gateway>> {
    let mut serving: BTreeMap<&NetworkName, Vec<&Gateway>> = BTreeMap::new();
    for gateway in gateways.iter().filter(|gateway| gateway.ready && gateway.weight > 0) {
        serving.entry(&gateway.network).or_default().push(gateway);
    }
    serving.values_mut().for_each(|list| list.sort_by(|a, b| a.address.cmp(&b.address)));
    serving
}

/// What one exporter of a service exposes of it.
#[derive(Debug)]
struct Exposed {
    /// The merged ports that it exposes itself.
    ports: BTreeSet<PortName>,
    /// Whether its endpoints are places without any port: a headless Service need not have one.
    portless: bool,
}

impl Exposed {
    fn of(service_type: ServiceType, merged: &[Port], own: &[Port]) -> Self {
        let portless = service_type == ServiceType::Headless && own.is_empty();
        Exposed { ports: ports::exposed(merged, own), portless }
    }

    /// The endpoint's target ports for them.
    fn of_endpoint<'a>(&self, endpoint: &'a Endpoint) -> impl Iterator<Item = (&'a PortName, u16)> {
        endpoint.ports.iter().filter(|(name, _)| self.ports.contains(*name)).map(|(name, port)| (name, *port))
    }

    fn has_place_for(&self, endpoint: &Endpoint) -> bool {
        self.portless || self.of_endpoint(endpoint).next().is_some()
    }

    fn direct(&self, endpoint: &Endpoint, locality: &Locality) -> Path {
        Path::Direct {
            id: endpoint.id.clone(),
            address: endpoint.address,
            ports: self.of_endpoint(endpoint).map(|(name, port)| (name.clone(), port)).collect(),
            locality: effective(&endpoint.locality, locality),
            spiffe_id: endpoint.spiffe_id.clone(),
            inbound_port: endpoint.inbound_port,
            hostname: endpoint.hostname.clone(),
        }
    }
}

/// A cluster's own candidates for an import, from its own catalog: the same as the store computes from the same endpoints.
pub fn at_home<'a>(
    import: &Import,
    cluster: &ClusterName,
    locality: &Locality,
    export: &ExportSpec,
    endpoints: impl Iterator<Item = &'a Endpoint>,
) -> Vec<Candidate> {
    let exposed = Exposed::of(import.service_type, &import.ports, &export.ports);
    let ready = endpoints.filter(|endpoint| endpoint.ready && exposed.has_place_for(endpoint));
    let candidate = |endpoint| Candidate {
        cluster: cluster.clone(),
        tier: Tier::Local,
        path: exposed.direct(endpoint, locality),
    };
    ready.map(candidate).collect()
}

impl<'a> Meeting<'a> {
    fn network(&self, endpoint: &'a Endpoint) -> &'a NetworkName {
        endpoint.network.as_ref().unwrap_or(&self.exporter.network)
    }

    /// Whether places of a network are reached directly.
    fn near(&self, network: &NetworkName) -> bool {
        self.tier == Tier::Local || *network == self.importer.network
    }

    /// Counts what stands behind the gateways of each far network.
    fn gather(&mut self, shard: &'a Shard) {
        let mut all: BTreeMap<&NetworkName, Behind<'a>> = BTreeMap::new();
        for endpoint in shard.endpoints.values().filter(|endpoint| endpoint.ready) {
            let network = self.network(endpoint);
            let mut ports = self.exposed.of_endpoint(endpoint).map(|(name, _)| name).peekable();
            if !self.near(network) && ports.peek().is_some() {
                all.entry(network).or_default().add(endpoint, self.exporter, ports);
            }
        }
        self.behind = all;
    }

    fn endpoint(&self, endpoint: &'a Endpoint) -> Outcome {
        let network = self.network(endpoint);
        if !endpoint.ready {
            return Outcome::Rejected(Rejection::NotReady);
        }
        if !self.exposed.has_place_for(endpoint) {
            return Outcome::Rejected(Rejection::NoPort);
        }
        if !self.near(network) {
            return if self.serving.contains_key(network) {
                Outcome::BehindGateway
            } else {
                Outcome::Rejected(Rejection::NoGateway)
            };
        }
        self.choose(self.exposed.direct(endpoint, &self.exporter.locality))
    }

    fn gateway(&self, gateway: &Gateway) -> Outcome {
        if self.near(&gateway.network) {
            return Outcome::Rejected(Rejection::SameNetwork);
        }
        if !gateway.ready {
            return Outcome::Rejected(Rejection::NotReady);
        }
        let weights = self.weights(gateway);
        let Some(behind) = self.behind.get(&gateway.network).filter(|_| !weights.is_empty()) else {
            return Outcome::Rejected(Rejection::NoWeight);
        };
        self.choose(Path::Gateway {
            address: gateway.address.clone(),
            locality: effective(&gateway.locality, &self.exporter.locality),
            weights,
            identities: behind.identities.clone(),
            endpoints: if self.headless { behind.named() } else { Vec::new() },
        })
    }

    fn choose(&self, path: Path) -> Outcome {
        Outcome::Chosen(Candidate { cluster: self.exporter.name.clone(), tier: self.tier, path })
    }

    /// One gateway's share of each port; shares of 0 are left out.
    fn weights(&self, gateway: &Gateway) -> BTreeMap<PortName, u32> {
        let serving = self.serving.get(&gateway.network).map_or(&[][..], Vec::as_slice);
        let place = serving.iter().position(|other| other.address == gateway.address);
        let (Some(place), Some(behind)) = (place, self.behind.get(&gateway.network)) else {
            return BTreeMap::new();
        };
        let weights: Vec<u32> = serving.iter().map(|gateway| gateway.weight).collect();
        let share = |(port, count): (&&PortName, &u32)| {
            (PortName::clone(port), shares::split(*count, &weights)[place])
        };
        behind.counts.iter().map(share).filter(|(_, share)| *share > 0).collect()
    }
}

impl<'a> Behind<'a> {
    fn add(&mut self, endpoint: &'a Endpoint, exporter: &Cluster, ports: impl Iterator<Item = &'a PortName>) {
        for port in ports {
            *self.counts.entry(port).or_default() += 1;
        }
        self.identities.extend(endpoint.spiffe_id.clone());
        if endpoint.inbound_port.is_none() || endpoint.spiffe_id.is_none() {
            // No proxy of its own answers: its cluster's gateway terminates for it.
            self.identities.insert(SpiffeId::gateway(&exporter.trust_domain));
        }
        self.endpoints.push(endpoint);
    }

    /// The endpoints that a client may ask for by name.
    fn named(&self) -> Vec<(EndpointId, Option<Hostname>)> {
        self.endpoints.iter().map(|endpoint| (endpoint.id.clone(), endpoint.hostname.clone())).collect()
    }
}

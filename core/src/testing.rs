//! A small federation for tests, driven by real commands only.

pub(crate) mod histories;

use crate::apply::Applied;
use crate::command::{
    Action, AddCluster, AdminAction, CatalogChange, CatalogResult, Command, Joined, Proof, Reply,
    SessionError,
};
use crate::endpoint::{Endpoint, Gateway, GatewayAddress, GatewayHost, Locality};
use crate::identity::{ClusterId, FederationId, InstanceId, Principal, SessionId, SpiffeId};
use crate::name::{ClusterName, EndpointId, NetworkName, PortName, ServiceAccount, ServiceKey, TrustDomain};
use crate::service::{
    Export, ExportSpec, InternalTrafficPolicy, IpFamily, Port, Protocol, ServiceType, SessionAffinity,
};
use crate::state::{
    Grant, Hash, Issuer, IssuerKey, LaneVerdict, Limits, SignatureAlgorithm, State, TokenScope,
};
use crate::time::Millis;
use crate::trust::Bundle;
use crate::view::{Import, Peer, ViewItem, ViewKey};
use std::collections::BTreeMap;

pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) index: u64,
    pub(crate) at: u64,
    /// Every command so far, with its index.
    pub(crate) log: Vec<(u64, Command)>,
    serial: u8,
}

pub(crate) fn name(s: &str) -> ClusterName {
    ClusterName::parse(s).unwrap()
}

pub(crate) fn key(s: &str) -> ServiceKey {
    ServiceKey::parse(s).unwrap()
}

pub(crate) fn agent(cluster: &str) -> Option<Principal> {
    Some(Principal::Agent(name(cluster)))
}

pub(crate) fn admin() -> Option<Principal> {
    Some(Principal::Admin(ServiceAccount::parse("ada").unwrap()))
}

pub(crate) fn domain(cluster: &str) -> TrustDomain {
    TrustDomain::parse(&format!("{cluster}.fed")).unwrap()
}

pub(crate) fn session(n: u8) -> SessionId {
    SessionId([n; 16])
}

pub(crate) fn instance(n: u8) -> InstanceId {
    InstanceId([n; 16])
}

pub(crate) fn port(name: &str, number: u16) -> Port {
    Port { name: PortName::parse(name).unwrap(), protocol: Protocol::Tcp, port: number, app_protocol: None }
}

pub(crate) fn spec(ports: Vec<Port>) -> ExportSpec {
    ExportSpec {
        service_type: ServiceType::ClusterSetIp,
        ports,
        session_affinity: SessionAffinity::None,
        session_affinity_timeout_s: None,
        internal_traffic_policy: InternalTrafficPolicy::Cluster,
        traffic_distribution: None,
        ip_families: vec![IpFamily::V4],
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    }
}

pub(crate) fn export(spec: ExportSpec) -> Export {
    Export { spec: Ok(spec), importers: None, created: Millis(1) }
}

pub(crate) fn http() -> Export {
    export(spec(vec![port("http", 80)]))
}

pub(crate) fn endpoint_id(n: u8) -> EndpointId {
    EndpointId::parse(&format!("e-aaaaaaaaaaaa{}", char::from(b'a' + n))).unwrap()
}

pub(crate) fn endpoint(cluster: &str, n: u8) -> Endpoint {
    Endpoint {
        id: endpoint_id(n),
        address: [10, 0, 0, n].into(),
        ports: BTreeMap::from([(PortName::parse("http").unwrap(), 8080)]),
        ready: true,
        locality: Locality::default(),
        spiffe_id: Some(SpiffeId::parse(&format!("spiffe://{cluster}.fed/ns/shop/sa/cart")).unwrap()),
        inbound_port: Some(15008),
        hostname: None,
        network: None,
    }
}

pub(crate) fn address(n: u8) -> GatewayAddress {
    GatewayAddress { host: GatewayHost::Ip([192, 0, 2, n].into()), port: 15443 }
}

pub(crate) fn gateway(network: &str, n: u8, weight: u32) -> Gateway {
    Gateway {
        address: address(n),
        network: NetworkName::parse(network).unwrap(),
        locality: Locality::default(),
        weight,
        ready: true,
    }
}

pub(crate) fn bundle(cluster: &str, sequence: u64) -> Bundle {
    Bundle {
        trust_domain: domain(cluster),
        sequence,
        refresh_hint_s: 300,
        roots: vec![vec![u8::try_from(sequence % 256).unwrap(); 4]],
    }
}

pub(crate) fn scope(cluster: &str) -> TokenScope {
    TokenScope::Cluster {
        name: name(cluster),
        trust_domain: domain(cluster),
        exports: Grant::all(),
        imports: Grant::all(),
    }
}

/// What lets a cluster join by tokens of its issuer.
pub(crate) fn added(cluster: &str) -> AddCluster {
    let key = IssuerKey { kid: None, algorithm: SignatureAlgorithm::Es256, key: vec![4; 65] };
    AddCluster {
        name: name(cluster),
        trust_domain: Some(domain(cluster)),
        exports: None,
        imports: None,
        issuer: Issuer::Keys { name: None, keys: vec![key] },
        subject: "system:serviceaccount:sealane-system:sealane-agent".parse().unwrap(),
    }
}

pub(crate) fn interest(namespaces: &[&str]) -> CatalogChange {
    CatalogChange::PutInterest { namespaces: namespaces.iter().map(|n| n.parse().unwrap()).collect() }
}

pub(crate) fn put(service: &str, export: Export) -> CatalogChange {
    CatalogChange::PutExport { service: key(service), export }
}

pub(crate) fn put_endpoints(service: &str, endpoints: Vec<Endpoint>) -> CatalogChange {
    CatalogChange::PutEndpoints { service: key(service), endpoints }
}

pub(crate) fn lanes(lanes: &[(&str, LaneVerdict)]) -> CatalogChange {
    CatalogChange::PutLanes {
        lanes: lanes.iter().map(|(to, verdict)| (name(to), *verdict, Some(900))).collect(),
    }
}

impl World {
    /// A founded federation without members.
    pub(crate) fn new() -> Self {
        let mut world = World { state: State::empty(), index: 0, at: 1_000, log: Vec::new(), serial: 0 };
        let trust_domain = TrustDomain::parse("fed").unwrap();
        world.run(
            None,
            Action::Found { federation: FederationId([7; 16]), trust_domain, limits: Limits::default() },
        );
        world
    }

    /// A federation of live members, each interested in `shop` and with a bundle.
    pub(crate) fn of(members: &[&str]) -> Self {
        let mut world = World::new();
        for member in members {
            world.member(member);
        }
        world
    }

    pub(crate) fn command(&self, principal: Option<Principal>, action: Action) -> Command {
        Command { min_version: action.version(), at: Millis(self.at), principal, action }
    }

    pub(crate) fn run(&mut self, principal: Option<Principal>, action: Action) -> Applied {
        let command = self.command(principal, action);
        self.index += 1;
        self.at += 1;
        self.log.push((self.index, command.clone()));
        self.state.apply(self.index, &command).unwrap()
    }

    fn fresh(&mut self) -> u8 {
        self.serial = self.serial.wrapping_add(1);
        self.serial
    }

    /// The key of an administrator's command that is issued now.
    pub(crate) fn admin_key(&mut self) -> [u8; 16] {
        let unique = [self.fresh(); 10];
        crate::command::admin_key(Millis(self.at), unique)
    }

    pub(crate) fn admin(&mut self, action: AdminAction) -> Reply {
        let key = self.admin_key();
        self.run(admin(), Action::Admin { key, action }).reply
    }

    pub(crate) fn token(&mut self, scope: TokenScope) -> Hash {
        let hash = [self.fresh(); 32];
        let expires = Millis(self.at + 60_000);
        assert!(matches!(
            self.admin(AdminAction::CreateToken { hash, scope, expires }),
            Reply::TokenCreated { .. }
        ));
        hash
    }

    /// What a token of the cluster's issuer proves, for a minute from now.
    pub(crate) fn proof(&self, cluster: &str, token: Hash) -> Proof {
        let admission = self.state.admissions.get(&name(cluster)).map_or(0, |a| a.put);
        Proof { cluster: name(cluster), admission, token, expires: Millis(self.at + 60_000), uid: None }
    }

    pub(crate) fn join(&mut self, cluster: &str) -> ClusterId {
        let token = self.token(scope(cluster));
        let action = Action::Join { token, key: [1; 32], not_after: Millis(1 << 40) };
        match self.run(None, action).reply {
            Reply::Joined(Joined::Cluster { id, .. }) => id,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn id(&self, cluster: &str) -> ClusterId {
        self.state.cluster_named(&name(cluster)).unwrap().id
    }

    pub(crate) fn open(&mut self, cluster: &str, by: InstanceId) -> Result<(), SessionError> {
        let action = Action::OpenSession {
            cluster: self.id(cluster),
            session: session(self.serial),
            instance: by,
            uid: None,
        };
        self.fresh();
        match self.run(agent(cluster), action).reply {
            Reply::Session(result) => result,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn applied(&mut self, cluster: &str, changes: Vec<CatalogChange>) -> Applied {
        let member = self.state.cluster_named(&name(cluster)).unwrap();
        let current = member.session.as_ref().unwrap();
        let action = Action::Catalog {
            cluster: member.id,
            session: current.id,
            sequence: current.sequence + 1,
            changes,
        };
        self.run(agent(cluster), action)
    }

    pub(crate) fn write(&mut self, cluster: &str, changes: Vec<CatalogChange>) -> CatalogResult {
        match self.applied(cluster, changes).reply {
            Reply::Catalog(Ok(result)) => result,
            other => panic!("{other:?}"),
        }
    }

    /// A write of which nothing is refused.
    pub(crate) fn put(&mut self, cluster: &str, changes: Vec<CatalogChange>) {
        assert_eq!(self.write(cluster, changes), CatalogResult::default());
    }

    pub(crate) fn member(&mut self, cluster: &str) -> ClusterId {
        let id = self.join(cluster);
        self.open(cluster, instance(1)).unwrap();
        self.put(cluster, vec![interest(&["shop"]), CatalogChange::PutBundle { bundle: bundle(cluster, 1) }]);
        id
    }

    pub(crate) fn lapse(&mut self, cluster: &str) {
        let member = self.state.cluster_named(&name(cluster)).unwrap();
        let session = member.session.as_ref().unwrap().id;
        let cluster = member.id;
        self.run(None, Action::Lapse { cluster, session });
    }

    /// The stream of `east` ended.
    pub(crate) fn close(&mut self) {
        let member = self.state.cluster_named(&name("east")).unwrap();
        let (cluster, session) = (member.id, member.session.as_ref().unwrap().id);
        self.run(None, Action::Close { cluster, session });
    }

    pub(crate) fn revive(&mut self, cluster: &str) {
        let member = self.state.cluster_named(&name(cluster)).unwrap();
        let session = member.session.as_ref().unwrap().id;
        let cluster = member.id;
        self.run(None, Action::Revive { cluster, session });
    }

    pub(crate) fn remove(&mut self, cluster: &str) -> Reply {
        self.admin(AdminAction::RemoveCluster { name: name(cluster) })
    }

    pub(crate) fn import(&self, cluster: &str, service: &str) -> Option<Import> {
        match crate::compute::compute_item(&self.state, self.id(cluster), &ViewKey::Import(key(service)))? {
            ViewItem::Import(import) => Some((*import).clone()),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn peer(&self, cluster: &str, other: &str) -> Option<Peer> {
        match crate::compute::compute_item(&self.state, self.id(cluster), &ViewKey::Peer(name(other)))? {
            ViewItem::Peer(peer) => Some((*peer).clone()),
            other => panic!("{other:?}"),
        }
    }
}

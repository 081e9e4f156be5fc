//! Random domain values, small but of every shape, for property tests here and in other crates.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use sealane_core::command::{
    Action, AddCluster, AdminAction, CatalogChange, CatalogError, CatalogResult, Command, Joined,
    OtherCluster, Proof, Refusal, RefusalCode, Reply, SessionError, VERSION,
};
use sealane_core::endpoint::{Endpoint, Gateway, GatewayAddress, GatewayHost, Locality};
use sealane_core::identity::{ClusterId, FederationId, InstanceId, Principal, ServerId, SessionId, SpiffeId};
use sealane_core::name::{NameError, ServiceKey};
use sealane_core::reach::Unreached;
use sealane_core::service::{
    Export, ExportSpec, InternalTrafficPolicy, Invalid, IpFamily, Port, Protocol, ServiceType,
    SessionAffinity,
};
use sealane_core::state::{
    AdminKey, AdminResult, Admission, CertificateRecord, Cluster, Consumed, Grant, Hash, Issuer, IssuerKey,
    Lane, LaneVerdict, Lease, Limits, Meta, Record, RecordKey, Server, Session, Shard, SignatureAlgorithm,
    Token, TokenScope, UsedToken,
};
use sealane_core::time::{Millis, Revision};
use sealane_core::trust::Bundle;
use sealane_core::view::{
    Candidate, Conflict, ConflictField, ExportStatus, Import, Path, Peer, Standing, Tier, ViewItem, ViewKey,
};
use std::fmt::Debug;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

/// A name of any kind, from a pattern that its rule accepts.
fn named<T: FromStr<Err = NameError> + Debug>(pattern: &'static str) -> BoxedStrategy<T> {
    pattern.prop_map(|text: String| text.parse().expect("the pattern is within the rule")).boxed()
}

/// An RFC 1123 label as a name of any kind.
pub fn label<T: FromStr<Err = NameError> + Debug>() -> BoxedStrategy<T> {
    named("[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?")
}

/// A service; few enough namespaces that some are prefixes of others.
pub fn service() -> impl Strategy<Value = ServiceKey> {
    (label(), label()).prop_map(|(namespace, name)| ServiceKey { namespace, name })
}

/// A SPIFFE ID of any path.
pub fn spiffe_id() -> impl Strategy<Value = SpiffeId> {
    named("spiffe://[a-z0-9._-]{1,8}/[A-Za-z0-9_]{1,8}(/[A-Za-z0-9_-]{1,8}){0,2}")
}

/// Text of any characters.
fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}

fn millis() -> impl Strategy<Value = Millis> {
    any::<u64>().prop_map(Millis)
}

fn server_id() -> impl Strategy<Value = ServerId> {
    (1..=u64::MAX).prop_map(ServerId)
}

fn cluster_id() -> impl Strategy<Value = ClusterId> {
    any::<u64>().prop_map(ClusterId)
}

fn session_id() -> impl Strategy<Value = SessionId> {
    any::<[u8; 16]>().prop_map(SessionId)
}

fn instance_id() -> impl Strategy<Value = InstanceId> {
    any::<[u8; 16]>().prop_map(InstanceId)
}

/// A revision.
pub fn revision() -> impl Strategy<Value = Revision> {
    any::<(u64, u64)>().prop_map(|(generation, index)| Revision { generation, index })
}

fn hash() -> impl Strategy<Value = Hash> {
    any::<Hash>()
}

fn port_number() -> impl Strategy<Value = u16> {
    1..=u16::MAX
}

/// A locality.
pub fn locality() -> impl Strategy<Value = Locality> {
    (option::of(named("[A-Za-z0-9._-]{0,6}")), option::of(named("[A-Za-z0-9._-]{0,6}")))
        .prop_map(|(region, zone)| Locality { region, zone })
}

/// An endpoint.
pub fn endpoint() -> impl Strategy<Value = Endpoint> {
    let place = (locality(), option::of(label()), option::of(label()));
    (
        named("e-[a-z2-7]{13}"),
        any::<IpAddr>(),
        btree_map(label(), port_number(), 0..3),
        any::<bool>(),
        place,
        option::of(spiffe_id()),
        option::of(port_number()),
    )
        .prop_map(
            |(id, address, ports, ready, (locality, hostname, network), spiffe_id, inbound_port)| Endpoint {
                id,
                address,
                ports,
                ready,
                locality,
                spiffe_id,
                inbound_port,
                hostname,
                network,
            },
        )
}

/// A gateway's address.
pub fn gateway_address() -> impl Strategy<Value = GatewayAddress> {
    let host = prop_oneof![any::<IpAddr>().prop_map(GatewayHost::Ip), label().prop_map(GatewayHost::Dns)];
    (host, port_number()).prop_map(|(host, port)| GatewayAddress { host, port })
}

/// A gateway.
pub fn gateway() -> impl Strategy<Value = Gateway> {
    (gateway_address(), label(), locality(), any::<u32>(), any::<bool>()).prop_map(
        |(address, network, locality, weight, ready)| Gateway { address, network, locality, weight, ready },
    )
}

/// A trust bundle; its roots are bytes, not certificates.
pub fn bundle() -> impl Strategy<Value = Bundle> {
    (label(), any::<u64>(), any::<u32>(), vec(vec(any::<u8>(), 1..20), 1..=8)).prop_map(
        |(trust_domain, sequence, refresh_hint_s, roots)| Bundle {
            trust_domain,
            sequence,
            refresh_hint_s,
            roots,
        },
    )
}

fn port() -> impl Strategy<Value = Port> {
    let protocol = select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    (named("([a-z][a-z0-9]{0,5})?"), protocol, port_number(), option::of(text()))
        .prop_map(|(name, protocol, port, app_protocol)| Port { name, protocol, port, app_protocol })
}

/// What a valid export says.
pub fn export_spec() -> impl Strategy<Value = ExportSpec> {
    let sentences = || btree_map(text(), text(), 0..3);
    let affinity = (select(vec![SessionAffinity::None, SessionAffinity::ClientIp]), option::of(any::<u32>()));
    (
        select(vec![ServiceType::ClusterSetIp, ServiceType::Headless]),
        vec(port(), 0..3),
        affinity,
        select(vec![InternalTrafficPolicy::Cluster, InternalTrafficPolicy::Local]),
        option::of(text()),
        vec(select(vec![IpFamily::V4, IpFamily::V6]), 0..3),
        (sentences(), sentences()),
    )
        .prop_map(
            |(service_type, ports, affinity, policy, distribution, ip_families, (labels, annotations))| {
                ExportSpec {
                    service_type,
                    ports,
                    session_affinity: affinity.0,
                    session_affinity_timeout_s: affinity.1,
                    internal_traffic_policy: policy,
                    traffic_distribution: distribution,
                    ip_families,
                    labels,
                    annotations,
                }
            },
        )
}

/// An export.
pub fn export() -> impl Strategy<Value = Export> {
    let spec = prop_oneof![
        4 => export_spec().prop_map(Ok),
        1 => select(vec![Invalid::NoService, Invalid::InvalidServiceType]).prop_map(Err),
    ];
    (spec, option::of(btree_set(label(), 0..3)), millis()).prop_map(|(spec, importers, created)| Export {
        spec,
        importers,
        created,
    })
}

/// A shard.
pub fn shard() -> impl Strategy<Value = Shard> {
    (export(), any::<u64>(), vec(endpoint(), 0..4), revision()).prop_map(
        |(export, observed, endpoints, changed)| {
            let endpoints = endpoints.into_iter().map(|e| (e.id.clone(), Arc::new(e))).collect();
            Shard { export: Arc::new(export), observed, endpoints, changed }
        },
    )
}

/// A refusal.
pub fn refusal() -> impl Strategy<Value = Refusal> {
    use RefusalCode::{Consumed, Exists, Expired, Forbidden, Forgotten, Invalid, NotFound};
    (select(vec![NotFound, Exists, Forbidden, Expired, Consumed, Invalid, Forgotten]), text())
        .prop_map(|(code, message)| Refusal { code, message })
}

fn catalog_result() -> impl Strategy<Value = CatalogResult> {
    vec((any::<u32>(), refusal()), 0..3).prop_map(|refused| CatalogResult { refused })
}

fn verdict() -> impl Strategy<Value = LaneVerdict> {
    select(vec![LaneVerdict::Up, LaneVerdict::Down])
}

/// A change to a catalog.
pub fn catalog_change() -> impl Strategy<Value = CatalogChange> {
    let ids = || btree_set(named("e-[a-z2-7]{13}"), 0..4);
    prop_oneof![
        (label(), locality(), vec(gateway_address(), 0..3))
            .prop_map(|(network, locality, probes)| CatalogChange::PutProfile { network, locality, probes }),
        (service(), export()).prop_map(|(service, export)| CatalogChange::PutExport { service, export }),
        service().prop_map(|service| CatalogChange::RemoveExport { service }),
        (service(), vec(endpoint(), 0..4))
            .prop_map(|(service, endpoints)| CatalogChange::PutEndpoints { service, endpoints }),
        (service(), ids()).prop_map(|(service, ids)| CatalogChange::RemoveEndpoints { service, ids }),
        (service(), ids()).prop_map(|(service, ids)| CatalogChange::RetainEndpoints { service, ids }),
        vec(gateway(), 0..3).prop_map(|gateways| CatalogChange::PutGateways { gateways }),
        bundle().prop_map(|bundle| CatalogChange::PutBundle { bundle }),
        btree_set(label(), 0..4).prop_map(|namespaces| CatalogChange::PutInterest { namespaces }),
        vec((label(), verdict(), option::of(any::<u32>())), 0..3)
            .prop_map(|lanes| CatalogChange::PutLanes { lanes }),
        btree_set(label(), 0..4).prop_map(|targets| CatalogChange::RemoveLanes { targets }),
        btree_set(service(), 0..4).prop_map(|services| CatalogChange::Synced { services }),
    ]
}

fn grant() -> impl Strategy<Value = Grant> {
    vec(text(), 0..3).prop_map(|namespaces| Grant { namespaces })
}

fn limits() -> impl Strategy<Value = Limits> {
    any::<(u32, u32, u32, u32, u32, u32)>().prop_map(
        |(services, endpoints, ports, label_bytes, gateways, namespaces)| Limits {
            services,
            endpoints,
            ports,
            label_bytes,
            gateways,
            namespaces,
        },
    )
}

fn token_scope() -> impl Strategy<Value = TokenScope> {
    prop_oneof![
        (label(), label(), grant(), grant()).prop_map(|(name, trust_domain, exports, imports)| {
            TokenScope::Cluster { name, trust_domain, exports, imports }
        }),
        any::<u64>().prop_map(|id| TokenScope::Server { id: ServerId(id) }),
    ]
}

fn principal() -> impl Strategy<Value = Principal> {
    prop_oneof![
        server_id().prop_map(Principal::Server),
        label().prop_map(Principal::Agent),
        label().prop_map(Principal::Admin),
        label().prop_map(Principal::Reader),
    ]
}

fn issuer() -> impl Strategy<Value = Issuer> {
    let algorithm =
        select(vec![SignatureAlgorithm::Rs256, SignatureAlgorithm::Es256, SignatureAlgorithm::Es384]);
    let key = (option::of(text()), algorithm, vec(any::<u8>(), 0..9))
        .prop_map(|(kid, algorithm, key)| IssuerKey { kid, algorithm, key });
    prop_oneof![
        (option::of(label()), vec(key, 0..3)).prop_map(|(name, keys)| Issuer::Keys { name, keys }),
        (label(), vec(vec(any::<u8>(), 0..9), 0..3))
            .prop_map(|(url, authorities)| Issuer::Discovery { url, authorities }),
    ]
}

fn add_cluster() -> impl Strategy<Value = AddCluster> {
    (label(), option::of(label()), option::of(grant()), option::of(grant()), issuer(), label()).prop_map(
        |(name, trust_domain, exports, imports, issuer, subject)| AddCluster {
            name,
            trust_domain,
            exports,
            imports,
            issuer,
            subject,
        },
    )
}

fn proof() -> impl Strategy<Value = Proof> {
    (label(), any::<u64>(), hash(), millis(), option::of(label())).prop_map(
        |(cluster, admission, token, expires, uid)| Proof { cluster, admission, token, expires, uid },
    )
}

fn admission() -> impl Strategy<Value = Admission> {
    let used = (hash(), millis()).prop_map(|(key, expires)| UsedToken { key, expires });
    let whom = (label(), label(), grant(), grant());
    let life = (any::<u64>(), btree_map(hash(), used, 0..3), option::of(millis()));
    (whom, issuer(), label(), life).prop_map(|(whom, issuer, subject, (put, used, last_joined))| Admission {
        cluster: whom.0,
        trust_domain: whom.1,
        exports: whom.2,
        imports: whom.3,
        issuer,
        subject,
        put,
        used,
        last_joined,
    })
}

fn action() -> impl Strategy<Value = Action> {
    let admin = prop_oneof![
        (hash(), token_scope(), millis()).prop_map(|(hash, scope, expires)| AdminAction::CreateToken {
            hash,
            scope,
            expires
        }),
        label().prop_map(|name| AdminAction::RemoveCluster { name }),
        add_cluster().prop_map(AdminAction::AddCluster),
    ];
    prop_oneof![
        (any::<[u8; 16]>(), label(), limits()).prop_map(|(id, trust_domain, limits)| Action::Found {
            federation: FederationId(id),
            trust_domain,
            limits
        }),
        server().prop_map(|s| Action::PutServer {
            id: s.id,
            address: s.address,
            status_address: s.status_address
        }),
        server_id().prop_map(|id| Action::RemoveServer { id }),
        any::<u32>().prop_map(|version| Action::RaiseVersion { version }),
        (any::<[u8; 16]>(), admin).prop_map(|(key, action)| Action::Admin { key, action }),
        (hash(), hash(), millis()).prop_map(|(token, key, not_after)| Action::Join { token, key, not_after }),
        (cluster_id(), hash(), millis()).prop_map(|(cluster, key, not_after)| Action::Renew {
            cluster,
            key,
            not_after
        }),
        (proof(), hash(), millis()).prop_map(|(proof, key, not_after)| Action::JoinByIssuer {
            proof,
            key,
            not_after
        }),
        (cluster_id(), session_id(), instance_id(), option::of(label())).prop_map(
            |(cluster, session, instance, uid)| Action::OpenSession { cluster, session, instance, uid }
        ),
        (cluster_id(), session_id(), any::<u64>(), vec(catalog_change(), 0..4)).prop_map(
            |(cluster, session, sequence, changes)| Action::Catalog { cluster, session, sequence, changes }
        ),
        (cluster_id(), session_id()).prop_map(|(cluster, session)| Action::Lapse { cluster, session }),
        (cluster_id(), session_id()).prop_map(|(cluster, session)| Action::Close { cluster, session }),
        (cluster_id(), session_id()).prop_map(|(cluster, session)| Action::Revive { cluster, session }),
    ]
}

/// A command.
pub fn command() -> impl Strategy<Value = Command> {
    (1..=VERSION, millis(), option::of(principal()), action())
        .prop_map(|(min_version, at, principal, action)| Command { min_version, at, principal, action })
}

/// A reply.
pub fn reply() -> impl Strategy<Value = Reply> {
    let session = prop_oneof![
        Just(Ok(())),
        Just(Err(SessionError::NotMember)),
        (instance_id(), any::<u64>()).prop_map(|(by, since_ms)| Err(SessionError::Fenced { by, since_ms })),
        (label(), label(), label()).prop_map(|(name, known, stated)| {
            Err(SessionError::OtherCluster(OtherCluster { name, known, stated }))
        }),
    ];
    let catalog = prop_oneof![
        catalog_result().prop_map(Ok),
        Just(Err(CatalogError::NotMember)),
        Just(Err(CatalogError::Fenced)),
        Just(Err(CatalogError::Expired)),
        any::<(u64, u64)>().prop_map(|(expected, got)| Err(CatalogError::Gap { expected, got })),
    ];
    let joined = prop_oneof![
        (cluster_id(), label(), label()).prop_map(|(id, name, trust_domain)| Joined::Cluster {
            id,
            name,
            trust_domain
        }),
        server_id().prop_map(|id| Joined::Server { id }),
    ];
    prop_oneof![
        Just(Reply::Done),
        option::of(server_id()).prop_map(|server| Reply::TokenCreated { server }),
        joined.prop_map(Reply::Joined),
        session.prop_map(Reply::Session),
        catalog.prop_map(Reply::Catalog),
        refusal().prop_map(Reply::Refused),
    ]
}

/// A record's key.
pub fn record_key() -> impl Strategy<Value = RecordKey> {
    prop_oneof![
        Just(RecordKey::Meta),
        server_id().prop_map(RecordKey::Server),
        hash().prop_map(RecordKey::Token),
        cluster_id().prop_map(RecordKey::Cluster),
        (service(), cluster_id()).prop_map(|(service, cluster)| RecordKey::Shard(service, cluster)),
        any::<u64>().prop_map(|at| RecordKey::AdminResult(AdminKey(at))),
        label().prop_map(RecordKey::Admission),
    ]
}

fn meta() -> impl Strategy<Value = Meta> {
    (any::<[u8; 16]>(), label(), revision(), any::<(u32, u64, u64, u64)>(), (millis(), millis()), limits())
        .prop_map(
            |(
                federation,
                trust_domain,
                revision,
                (cluster_version, next_cluster, next_server, next_observed),
                (now, admin_floor),
                limits,
            )| {
                Meta {
                    federation: FederationId(federation),
                    trust_domain,
                    revision,
                    cluster_version,
                    next_cluster,
                    next_server,
                    next_observed,
                    now,
                    admin_floor,
                    limits,
                }
            },
        )
}

fn server() -> impl Strategy<Value = Server> {
    (server_id(), text(), text()).prop_map(|(id, address, status_address)| Server {
        id,
        address,
        status_address,
    })
}

fn token() -> impl Strategy<Value = Token> {
    let consumed = (hash(), option::of(cluster_id())).prop_map(|(key, cluster)| Consumed { key, cluster });
    (hash(), token_scope(), millis(), option::of(consumed))
        .prop_map(|(hash, scope, expires, consumed)| Token { hash, scope, expires, consumed })
}

fn session() -> impl Strategy<Value = Session> {
    let other = || option::of((instance_id(), millis()));
    let facts = any::<(bool, bool, u64)>();
    (session_id(), instance_id(), millis(), facts, catalog_result(), other(), other()).prop_map(
        |(id, instance, opened, (synced, closed, sequence), last_result, fenced, refused)| Session {
            id,
            instance,
            opened,
            synced,
            sequence,
            last_result: Arc::new(last_result),
            fenced,
            closed,
            refused,
        },
    )
}

fn cluster() -> impl Strategy<Value = Cluster> {
    let lease = prop_oneof![
        Just(Lease::Never),
        millis().prop_map(|since| Lease::Live { since }),
        millis().prop_map(|since| Lease::Lapsed { since }),
    ];
    let lane = (verdict(), millis(), option::of(any::<u32>())).prop_map(|(verdict, since, rtt_us)| Lane {
        verdict,
        since,
        rtt_us,
    });
    let identity = (cluster_id(), label(), label(), grant(), grant(), option::of(label()));
    let life = (millis(), hash(), millis(), option::of(session()), lease);
    let place = (label(), locality(), vec(gateway(), 0..3), vec(gateway_address(), 0..3));
    let rest = (option::of(bundle()), btree_set(label(), 0..3), btree_map(cluster_id(), lane, 0..3));
    (identity, life, place, rest).prop_map(|(identity, life, place, rest)| Cluster {
        id: identity.0,
        name: identity.1,
        trust_domain: identity.2,
        exports: identity.3,
        imports: identity.4,
        uid: identity.5,
        joined: life.0,
        certificate: CertificateRecord { key: life.1, not_after: life.2 },
        session: life.3,
        lease: life.4,
        network: place.0,
        locality: place.1,
        gateways: Arc::new(place.2),
        probes: Arc::new(place.3),
        bundle: rest.0.map(Arc::new),
        interest: Arc::new(rest.1),
        lanes: rest.2,
    })
}

/// A record.
pub fn record() -> impl Strategy<Value = Record> {
    prop_oneof![
        meta().prop_map(Record::Meta),
        server().prop_map(|s| Record::Server(Arc::new(s))),
        token().prop_map(|t| Record::Token(Arc::new(t))),
        cluster().prop_map(|c| Record::Cluster(Arc::new(c))),
        (service(), cluster_id(), shard()).prop_map(|(service, cluster, shard)| Record::Shard(
            service,
            cluster,
            Arc::new(shard)
        )),
        (any::<u64>(), label(), any::<[u8; 16]>(), reply()).prop_map(|(at, by, key, reply)| {
            Record::AdminResult(AdminKey(at), Arc::new(AdminResult { by, key, reply }))
        }),
        admission().prop_map(|a| Record::Admission(Arc::new(a))),
    ]
}

fn candidate() -> impl Strategy<Value = Candidate> {
    let direct = endpoint().prop_map(|e| Path::Direct {
        id: e.id,
        address: e.address,
        ports: e.ports,
        locality: e.locality,
        spiffe_id: e.spiffe_id,
        inbound_port: e.inbound_port,
        hostname: e.hostname,
    });
    let through = (
        gateway_address(),
        locality(),
        btree_map(label(), any::<u32>(), 0..3),
        btree_set(spiffe_id(), 0..3),
        vec((named("e-[a-z2-7]{13}"), option::of(label())), 0..3),
    )
        .prop_map(|(address, locality, weights, identities, endpoints)| Path::Gateway {
            address,
            locality,
            weights,
            identities,
            endpoints,
        });
    (label(), select(vec![Tier::Local, Tier::Remote, Tier::Avoided]), prop_oneof![direct, through])
        .prop_map(|(cluster, tier, path)| Candidate { cluster, tier, path })
}

/// An import.
pub fn import() -> impl Strategy<Value = Import> {
    let whys = select(vec![Unreached::NoGateway, Unreached::NoPort, Unreached::ClusterWithdrawn]);
    let unreached = btree_map(label(), whys, 0..3);
    (service(), export_spec(), btree_set(label(), 0..3), vec(candidate(), 0..3), unreached).prop_map(
        |(service, spec, clusters, candidates, unreached)| Import {
            service,
            service_type: spec.service_type,
            ports: spec.ports,
            session_affinity: spec.session_affinity,
            session_affinity_timeout_s: spec.session_affinity_timeout_s,
            internal_traffic_policy: spec.internal_traffic_policy,
            traffic_distribution: spec.traffic_distribution,
            ip_families: spec.ip_families,
            labels: spec.labels,
            annotations: spec.annotations,
            clusters,
            candidates,
            unreached,
        },
    )
}

fn export_status() -> impl Strategy<Value = ExportStatus> {
    use ConflictField::{
        Annotations, InternalTrafficPolicy, IpFamily, Labels, Port, SessionAffinity, SessionAffinityConfig,
        TrafficDistribution, Type,
    };
    let fields = vec![
        Port,
        Type,
        SessionAffinity,
        SessionAffinityConfig,
        InternalTrafficPolicy,
        TrafficDistribution,
        Labels,
        Annotations,
        IpFamily,
    ];
    let conflict = (select(fields), text()).prop_map(|(field, message)| Conflict { field, message });
    let ready = option::of(refusal()).prop_map(|r| r.map_or(Ok(()), Err));
    (service(), ready, vec(conflict, 0..3), btree_set(label(), 0..3)).prop_map(
        |(service, ready, conflicts, importers)| ExportStatus { service, ready, conflicts, importers },
    )
}

fn peer() -> impl Strategy<Value = Peer> {
    let standing = select(vec![Standing::Live, Standing::Suspect, Standing::Withdrawn]);
    let place = (label(), vec(gateway(), 0..3), vec(gateway_address(), 0..3));
    (cluster_id(), label(), label(), option::of(bundle()), place, any::<(bool, bool)>(), standing).prop_map(
        |(
            id,
            name,
            trust_domain,
            bundle,
            (network, gateways, probes),
            (exports_to_us, imports_from_us),
            standing,
        )| {
            Peer {
                id,
                name,
                trust_domain,
                bundle: bundle.map(Arc::new),
                network,
                gateways: Arc::new(gateways),
                probes: Arc::new(probes),
                exports_to_us,
                imports_from_us,
                standing,
            }
        },
    )
}

/// An item of a view.
pub fn view_item() -> impl Strategy<Value = ViewItem> {
    prop_oneof![
        import().prop_map(|i| ViewItem::Import(Arc::new(i))),
        export_status().prop_map(|e| ViewItem::Export(Arc::new(e))),
        peer().prop_map(|p| ViewItem::Peer(Arc::new(p))),
    ]
}

/// The key of an item of a view.
pub fn view_key() -> impl Strategy<Value = ViewKey> {
    prop_oneof![
        service().prop_map(ViewKey::Import),
        service().prop_map(ViewKey::Export),
        label().prop_map(ViewKey::Peer),
    ]
}

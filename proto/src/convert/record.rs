//! Records: the state, one by one, as the store and snapshots hold it.

use super::command::{server_id, version};
use super::endpoint::shared;
use super::field::{
    hash, id, inner, list, map, name, names, optional, optional_name, present, texts, to_list,
};
use super::{Invalid, Wire, WireEnum};
use crate::store::v1 as wire;
use sealane_core::identity::{ClusterId, FederationId, InstanceId, SessionId};
use sealane_core::name::{EndpointId, ServiceKey};
use sealane_core::state::{
    AdminKey, AdminResult, CertificateRecord, Cluster, Consumed, Lane, LaneVerdict, Lease, Meta, Record,
    RecordKey, Server, Session, Shard, Token,
};
use sealane_core::time::Millis;
use std::sync::Arc;

/// The version of the set of records that this build writes and understands.
///
/// 2: admissions, and the UID of a cluster.
pub(super) const VERSION: u32 = 2;

/// The lowest version that has all of a record: what says nothing new is read by older builds.
fn needed(record: &Record) -> u32 {
    match record {
        Record::Admission(_) => 2,
        Record::Cluster(cluster) if cluster.uid.is_some() => 2,
        _ => 1,
    }
}

impl Wire for RecordKey {
    type Message = wire::RecordKey;

    fn to_wire(&self) -> wire::RecordKey {
        use wire::record_key::Kind;
        let kind = match self {
            RecordKey::Meta => Kind::Meta(wire::Empty {}),
            RecordKey::Server(id) => Kind::Server(id.0),
            RecordKey::Token(hash) => Kind::Token(hash.to_vec()),
            RecordKey::Cluster(id) => Kind::Cluster(id.0),
            RecordKey::Shard(service, cluster) => {
                Kind::Shard(wire::ShardKey { service: Some(service.to_wire()), cluster: cluster.0 })
            }
            RecordKey::AdminResult(at) => Kind::AdminResult(at.0),
            RecordKey::Admission(name) => Kind::Admission(name.to_string()),
        };
        wire::RecordKey { kind: Some(kind) }
    }

    fn from_wire(m: wire::RecordKey) -> Result<Self, Invalid> {
        use wire::record_key::Kind;
        Ok(match m.kind.ok_or_else(|| Invalid::unknown("kind"))? {
            Kind::Meta(wire::Empty {}) => RecordKey::Meta,
            Kind::Server(number) => RecordKey::Server(server_id(number, "server")?),
            Kind::Token(bytes) => RecordKey::Token(hash(&bytes, "token")?),
            Kind::Cluster(number) => RecordKey::Cluster(ClusterId(number)),
            Kind::Shard(m) => RecordKey::Shard(present(m.service, "shard.service")?, ClusterId(m.cluster)),
            Kind::AdminResult(number) => RecordKey::AdminResult(AdminKey(number)),
            Kind::Admission(text) => RecordKey::Admission(name(&text, "admission")?),
        })
    }
}

impl Wire for Record {
    type Message = wire::Record;

    fn to_wire(&self) -> wire::Record {
        use wire::record::Kind;
        let kind = match self {
            Record::Meta(meta) => Kind::Meta(meta.to_wire()),
            Record::Server(server) => Kind::Server(server.to_wire()),
            Record::Token(token) => Kind::Token(token.to_wire()),
            Record::Cluster(cluster) => Kind::Cluster(cluster.to_wire()),
            Record::Shard(service, cluster, shard) => Kind::Shard(to_shard(service, *cluster, shard)),
            Record::AdminResult(at, result) => Kind::AdminResult(wire::AdminResultRecord {
                at: at.0,
                key: result.key.to_vec(),
                reply: Some(result.reply.to_wire()),
                by: result.by.to_string(),
            }),
            Record::Admission(admission) => Kind::Admission(admission.to_wire()),
        };
        wire::Record { min_version: needed(self), kind: Some(kind) }
    }

    fn from_wire(m: wire::Record) -> Result<Self, Invalid> {
        use wire::record::Kind;
        version(m.min_version, VERSION)?;
        Ok(match m.kind.ok_or_else(|| Invalid::unknown("kind"))? {
            Kind::Meta(m) => Record::Meta(inner(m, "meta")?),
            Kind::Server(m) => Record::Server(shared(m, "server")?),
            Kind::Token(m) => Record::Token(shared(m, "token")?),
            Kind::Cluster(m) => Record::Cluster(shared(m, "cluster")?),
            Kind::Shard(m) => shard(m).map_err(|e| e.within("shard"))?,
            Kind::AdminResult(m) => Record::AdminResult(
                AdminKey(m.at),
                Arc::new(AdminResult {
                    by: name(&m.by, "admin_result.by")?,
                    key: id(&m.key, "admin_result.key")?,
                    reply: present(m.reply, "admin_result.reply")?,
                }),
            ),
            Kind::Admission(m) => Record::Admission(shared(m, "admission")?),
        })
    }
}

fn to_shard(service: &ServiceKey, cluster: ClusterId, shard: &Shard) -> wire::ShardRecord {
    wire::ShardRecord {
        service: Some(service.to_wire()),
        cluster: cluster.0,
        export: Some(shard.export.to_wire()),
        observed: shard.observed,
        endpoints: shard.endpoints.values().map(|e| e.to_wire()).collect(),
        changed: Some(shard.changed.to_wire()),
    }
}

fn shard(m: wire::ShardRecord) -> Result<Record, Invalid> {
    let endpoints = map(
        m.endpoints.into_iter().map(|m| {
            let endpoint = sealane_core::endpoint::Endpoint::from_wire(m)?;
            Ok::<(EndpointId, _), Invalid>((endpoint.id.clone(), Arc::new(endpoint)))
        }),
        "endpoints",
    )?;
    Ok(Record::Shard(
        present(m.service, "service")?,
        ClusterId(m.cluster),
        Arc::new(Shard {
            export: Arc::new(present(m.export, "export")?),
            observed: m.observed,
            endpoints: endpoints.into_iter().collect(),
            changed: present(m.changed, "changed")?,
        }),
    ))
}

impl Wire for Meta {
    type Message = wire::Meta;

    fn to_wire(&self) -> wire::Meta {
        wire::Meta {
            federation: self.federation.0.to_vec(),
            trust_domain: self.trust_domain.to_string(),
            revision: Some(self.revision.to_wire()),
            cluster_version: self.cluster_version,
            next_cluster: self.next_cluster,
            next_server: self.next_server,
            next_observed: self.next_observed,
            now_ms: self.now.0,
            limits: Some(self.limits.to_wire()),
            admin_floor_ms: self.admin_floor.0,
        }
    }

    fn from_wire(m: wire::Meta) -> Result<Self, Invalid> {
        Ok(Meta {
            federation: FederationId(id(&m.federation, "federation")?),
            trust_domain: name(&m.trust_domain, "trust_domain")?,
            revision: present(m.revision, "revision")?,
            cluster_version: m.cluster_version,
            next_cluster: m.next_cluster,
            next_server: m.next_server,
            next_observed: m.next_observed,
            now: Millis(m.now_ms),
            admin_floor: Millis(m.admin_floor_ms),
            limits: present(m.limits, "limits")?,
        })
    }
}

impl Wire for Server {
    type Message = wire::Server;

    fn to_wire(&self) -> wire::Server {
        wire::Server {
            id: self.id.0,
            address: self.address.clone(),
            status_address: self.status_address.clone(),
        }
    }

    fn from_wire(m: wire::Server) -> Result<Self, Invalid> {
        Ok(Server { id: server_id(m.id, "id")?, address: m.address, status_address: m.status_address })
    }
}

impl Wire for Token {
    type Message = wire::Token;

    fn to_wire(&self) -> wire::Token {
        let consumed = |c: &Consumed| wire::Consumed { key: c.key.to_vec(), cluster: c.cluster.map(|c| c.0) };
        wire::Token {
            hash: self.hash.to_vec(),
            scope: Some(self.scope.to_wire()),
            expires_ms: self.expires.0,
            consumed: self.consumed.as_ref().map(consumed),
        }
    }

    fn from_wire(m: wire::Token) -> Result<Self, Invalid> {
        let consumed = |m: wire::Consumed| -> Result<Consumed, Invalid> {
            Ok(Consumed { key: hash(&m.key, "consumed.key")?, cluster: m.cluster.map(ClusterId) })
        };
        Ok(Token {
            hash: hash(&m.hash, "hash")?,
            scope: present(m.scope, "scope")?,
            expires: Millis(m.expires_ms),
            consumed: m.consumed.map(consumed).transpose()?,
        })
    }
}

impl Wire for Cluster {
    type Message = wire::Cluster;

    fn to_wire(&self) -> wire::Cluster {
        wire::Cluster {
            id: self.id.0,
            name: self.name.to_string(),
            trust_domain: self.trust_domain.to_string(),
            exports: Some(self.exports.to_wire()),
            imports: Some(self.imports.to_wire()),
            joined_ms: self.joined.0,
            certificate_key: self.certificate.key.to_vec(),
            certificate_not_after_ms: self.certificate.not_after.0,
            session: self.session.as_ref().map(Wire::to_wire),
            lease: Some(self.lease.to_wire()),
            network: self.network.to_string(),
            locality: Some(self.locality.to_wire()),
            bundle: self.bundle.as_ref().map(|b| b.to_wire()),
            gateways: to_list(&*self.gateways),
            probes: to_list(&*self.probes),
            interest: texts(&*self.interest),
            lanes: self.lanes.iter().map(to_lane).collect(),
            uid: self.uid.as_ref().map(ToString::to_string),
        }
    }

    fn from_wire(m: wire::Cluster) -> Result<Self, Invalid> {
        Ok(Cluster {
            id: ClusterId(m.id),
            name: name(&m.name, "name")?,
            trust_domain: name(&m.trust_domain, "trust_domain")?,
            uid: optional_name(m.uid.as_deref(), "uid")?,
            exports: present(m.exports, "exports")?,
            imports: present(m.imports, "imports")?,
            joined: Millis(m.joined_ms),
            certificate: CertificateRecord {
                key: hash(&m.certificate_key, "certificate_key")?,
                not_after: Millis(m.certificate_not_after_ms),
            },
            session: optional(m.session, "session")?,
            lease: present(m.lease, "lease")?,
            network: name(&m.network, "network")?,
            locality: present(m.locality, "locality")?,
            bundle: m.bundle.map(|b| shared(b, "bundle")).transpose()?,
            gateways: Arc::new(list(m.gateways, "gateways")?),
            probes: Arc::new(list(m.probes, "probes")?),
            interest: Arc::new(names(&m.interest, "interest")?),
            lanes: map(m.lanes.into_iter().map(lane), "lanes")?,
        })
    }
}

fn to_lane((cluster, lane): (&ClusterId, &Lane)) -> wire::Lane {
    wire::Lane {
        cluster: cluster.0,
        verdict: lane.verdict.to_number(),
        since_ms: lane.since.0,
        rtt_us: lane.rtt_us,
    }
}

fn lane(m: wire::Lane) -> Result<(ClusterId, Lane), Invalid> {
    let verdict = LaneVerdict::from_number(m.verdict, "verdict")?;
    Ok((ClusterId(m.cluster), Lane { verdict, since: Millis(m.since_ms), rtt_us: m.rtt_us }))
}

impl Wire for Lease {
    type Message = wire::Lease;

    fn to_wire(&self) -> wire::Lease {
        use wire::lease::Kind;
        let kind = match self {
            Lease::Never => Kind::Never(wire::Empty {}),
            Lease::Live { since } => Kind::LiveSinceMs(since.0),
            Lease::Lapsed { since } => Kind::LapsedSinceMs(since.0),
        };
        wire::Lease { kind: Some(kind) }
    }

    fn from_wire(m: wire::Lease) -> Result<Self, Invalid> {
        use wire::lease::Kind;
        Ok(match m.kind.ok_or_else(|| Invalid::unknown("kind"))? {
            Kind::Never(wire::Empty {}) => Lease::Never,
            Kind::LiveSinceMs(since) => Lease::Live { since: Millis(since) },
            Kind::LapsedSinceMs(since) => Lease::Lapsed { since: Millis(since) },
        })
    }
}

impl Wire for Session {
    type Message = wire::Session;

    fn to_wire(&self) -> wire::Session {
        let fenced = |(instance, at): (InstanceId, Millis)| wire::FencedSession {
            instance: instance.0.to_vec(),
            at_ms: at.0,
        };
        wire::Session {
            id: self.id.0.to_vec(),
            instance: self.instance.0.to_vec(),
            opened_ms: self.opened.0,
            synced: self.synced,
            sequence: self.sequence,
            last_result: Some(self.last_result.to_wire()),
            fenced: self.fenced.map(fenced),
            closed: self.closed,
            refused: self.refused.map(fenced),
        }
    }

    fn from_wire(m: wire::Session) -> Result<Self, Invalid> {
        let other = |m: Option<wire::FencedSession>, field: &'static str| -> Result<_, Invalid> {
            m.map(|m| Ok((InstanceId(id(&m.instance, field)?), Millis(m.at_ms)))).transpose()
        };
        Ok(Session {
            id: SessionId(id(&m.id, "id")?),
            instance: InstanceId(id(&m.instance, "instance")?),
            opened: Millis(m.opened_ms),
            synced: m.synced,
            sequence: m.sequence,
            last_result: Arc::new(present(m.last_result, "last_result")?),
            fenced: other(m.fenced, "fenced.instance")?,
            closed: m.closed,
            refused: other(m.refused, "refused.instance")?,
        })
    }
}

//! What commands are answered.

use super::command::server_id;
use super::field::{id, inner, name};
use super::{Invalid, Wire};
use crate::store::v1 as wire;
use sealane_core::command::{CatalogError, Joined, OtherCluster, Reply, SessionError};
use sealane_core::identity::{ClusterId, InstanceId};

impl Wire for Reply {
    type Message = wire::Reply;

    fn to_wire(&self) -> wire::Reply {
        use wire::reply::Kind;
        let kind = match self {
            Reply::Done => Kind::Done(wire::Empty {}),
            Reply::TokenCreated { server } => {
                Kind::TokenCreated(wire::TokenCreated { server: server.map(|s| s.0) })
            }
            Reply::Joined(joined) => Kind::Joined(joined.to_wire()),
            Reply::Session(result) => Kind::Session(to_session(result)),
            Reply::Catalog(result) => Kind::Catalog(to_catalog(result)),
            Reply::Refused(refusal) => Kind::Refused(refusal.to_wire()),
        };
        wire::Reply { kind: Some(kind) }
    }

    fn from_wire(m: wire::Reply) -> Result<Self, Invalid> {
        use wire::reply::Kind;
        match m.kind.ok_or_else(|| Invalid::unknown("kind"))? {
            Kind::Done(wire::Empty {}) => Ok(Reply::Done),
            Kind::TokenCreated(m) => Ok(Reply::TokenCreated {
                server: m.server.map(|n| server_id(n, "token_created.server")).transpose()?,
            }),
            Kind::Joined(m) => Ok(Reply::Joined(inner(m, "joined")?)),
            Kind::Session(m) => Ok(Reply::Session(session(m).map_err(|e| e.within("session"))?)),
            Kind::Catalog(m) => Ok(Reply::Catalog(catalog(m).map_err(|e| e.within("catalog"))?)),
            Kind::Refused(m) => Ok(Reply::Refused(inner(m, "refused")?)),
        }
    }
}

impl Wire for Joined {
    type Message = wire::Joined;

    fn to_wire(&self) -> wire::Joined {
        use wire::joined::Kind;
        let kind = match self {
            Joined::Cluster { id, name, trust_domain } => Kind::Cluster(wire::JoinedCluster {
                id: id.0,
                name: name.to_string(),
                trust_domain: trust_domain.to_string(),
            }),
            Joined::Server { id } => Kind::Server(id.0),
        };
        wire::Joined { kind: Some(kind) }
    }

    fn from_wire(m: wire::Joined) -> Result<Self, Invalid> {
        use wire::joined::Kind;
        match m.kind.ok_or_else(|| Invalid::unknown("kind"))? {
            Kind::Cluster(m) => Ok(Joined::Cluster {
                id: ClusterId(m.id),
                name: name(&m.name, "cluster.name")?,
                trust_domain: name(&m.trust_domain, "cluster.trust_domain")?,
            }),
            Kind::Server(n) => Ok(Joined::Server { id: server_id(n, "server")? }),
        }
    }
}

fn to_session(result: &Result<(), SessionError>) -> wire::SessionReply {
    use wire::session_reply::Kind;
    let kind = match result {
        Ok(()) => Kind::Open(wire::Empty {}),
        Err(SessionError::NotMember) => Kind::NotMember(wire::Empty {}),
        Err(SessionError::Fenced { by, since_ms }) => {
            Kind::Fenced(wire::Fenced { by: by.0.to_vec(), since_ms: *since_ms })
        }
        Err(SessionError::OtherCluster(other)) => Kind::OtherCluster(wire::OtherCluster {
            name: other.name.to_string(),
            known: other.known.to_string(),
            stated: other.stated.to_string(),
        }),
    };
    wire::SessionReply { kind: Some(kind) }
}

fn session(m: wire::SessionReply) -> Result<Result<(), SessionError>, Invalid> {
    use wire::session_reply::Kind;
    Ok(match m.kind.ok_or_else(|| Invalid::unknown("kind"))? {
        Kind::Open(wire::Empty {}) => Ok(()),
        Kind::NotMember(wire::Empty {}) => Err(SessionError::NotMember),
        Kind::Fenced(m) => {
            Err(SessionError::Fenced { by: InstanceId(id(&m.by, "fenced.by")?), since_ms: m.since_ms })
        }
        Kind::OtherCluster(m) => Err(SessionError::OtherCluster(OtherCluster {
            name: name(&m.name, "other_cluster.name")?,
            known: name(&m.known, "other_cluster.known")?,
            stated: name(&m.stated, "other_cluster.stated")?,
        })),
    })
}

fn to_catalog(result: &Result<sealane_core::command::CatalogResult, CatalogError>) -> wire::CatalogReply {
    use wire::catalog_reply::Kind;
    let kind = match result {
        Ok(result) => Kind::Applied(result.to_wire()),
        Err(CatalogError::NotMember) => Kind::NotMember(wire::Empty {}),
        Err(CatalogError::Fenced) => Kind::Fenced(wire::Empty {}),
        Err(CatalogError::Gap { expected, got }) => Kind::Gap(wire::Gap { expected: *expected, got: *got }),
        Err(CatalogError::Expired) => Kind::Expired(wire::Empty {}),
    };
    wire::CatalogReply { kind: Some(kind) }
}

fn catalog(
    m: wire::CatalogReply,
) -> Result<Result<sealane_core::command::CatalogResult, CatalogError>, Invalid> {
    use wire::catalog_reply::Kind;
    Ok(match m.kind.ok_or_else(|| Invalid::unknown("kind"))? {
        Kind::Applied(m) => Ok(inner(m, "applied")?),
        Kind::NotMember(wire::Empty {}) => Err(CatalogError::NotMember),
        Kind::Fenced(wire::Empty {}) => Err(CatalogError::Fenced),
        Kind::Gap(wire::Gap { expected, got }) => Err(CatalogError::Gap { expected, got }),
        Kind::Expired(wire::Empty {}) => Err(CatalogError::Expired),
    })
}

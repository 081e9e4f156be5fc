//! Commands: entries of the log.

use super::admission;
use super::field::{hash, id, inner, list, name, optional, optional_name, present, to_list};
use super::{Invalid, Wire};
use crate::store::v1 as wire;
use sealane_core::command::{Action, AdminAction, Command, VERSION};
use sealane_core::identity::{ClusterId, FederationId, InstanceId, Principal, ServerId, SessionId};
use sealane_core::state::{Grant, Limits, Server, TokenScope};
use sealane_core::time::Millis;

/// The id of a server, never 0.
pub(super) fn server_id(number: u64, field: &str) -> Result<ServerId, Invalid> {
    if number == 0 { Err(Invalid::new(field, "must not be 0")) } else { Ok(ServerId(number)) }
}

/// Refuses what only a newer version understands.
pub(super) fn version(min_version: u32, understood: u32) -> Result<(), Invalid> {
    if min_version == 0 {
        return Err(Invalid::new("min_version", "must not be 0"));
    }
    if min_version > understood {
        let rule = format!(
            "needs version {min_version}, and this process understands up to {understood}: it is too old and must be \
             upgraded"
        );
        return Err(Invalid::new("min_version", rule));
    }
    Ok(())
}

impl Wire for Principal {
    type Message = wire::Principal;

    fn to_wire(&self) -> wire::Principal {
        use wire::principal::Kind;
        let kind = match self {
            Principal::Server(id) => Kind::Server(id.0),
            Principal::Agent(name) => Kind::Agent(name.to_string()),
            Principal::Admin(name) => Kind::Admin(name.to_string()),
            Principal::Reader(name) => Kind::Reader(name.to_string()),
        };
        wire::Principal { kind: Some(kind) }
    }

    fn from_wire(m: wire::Principal) -> Result<Self, Invalid> {
        use wire::principal::Kind;
        Ok(match m.kind.ok_or_else(|| Invalid::unknown("kind"))? {
            Kind::Server(number) => Principal::Server(server_id(number, "server")?),
            Kind::Agent(text) => Principal::Agent(name(&text, "agent")?),
            Kind::Admin(text) => Principal::Admin(name(&text, "admin")?),
            Kind::Reader(text) => Principal::Reader(name(&text, "reader")?),
        })
    }
}

impl Wire for Limits {
    type Message = wire::Limits;

    fn to_wire(&self) -> wire::Limits {
        wire::Limits {
            services: self.services,
            endpoints: self.endpoints,
            ports: self.ports,
            label_bytes: self.label_bytes,
            gateways: self.gateways,
            namespaces: self.namespaces,
        }
    }

    fn from_wire(m: wire::Limits) -> Result<Self, Invalid> {
        Ok(Limits {
            services: m.services,
            endpoints: m.endpoints,
            ports: m.ports,
            label_bytes: m.label_bytes,
            gateways: m.gateways,
            namespaces: m.namespaces,
        })
    }
}

impl Wire for Grant {
    type Message = wire::Grant;

    fn to_wire(&self) -> wire::Grant {
        wire::Grant { namespaces: self.namespaces.clone() }
    }

    fn from_wire(m: wire::Grant) -> Result<Self, Invalid> {
        Ok(Grant { namespaces: m.namespaces })
    }
}

impl Wire for TokenScope {
    type Message = wire::TokenScope;

    fn to_wire(&self) -> wire::TokenScope {
        use wire::token_scope::Kind;
        let kind = match self {
            TokenScope::Cluster { name, trust_domain, exports, imports } => {
                Kind::Cluster(wire::ClusterScope {
                    name: name.to_string(),
                    trust_domain: trust_domain.to_string(),
                    exports: Some(exports.to_wire()),
                    imports: Some(imports.to_wire()),
                })
            }
            TokenScope::Server { id } => Kind::Server(id.0),
        };
        wire::TokenScope { kind: Some(kind) }
    }

    fn from_wire(m: wire::TokenScope) -> Result<Self, Invalid> {
        use wire::token_scope::Kind;
        match m.kind.ok_or_else(|| Invalid::unknown("kind"))? {
            Kind::Cluster(m) => Ok(TokenScope::Cluster {
                name: name(&m.name, "cluster.name")?,
                trust_domain: name(&m.trust_domain, "cluster.trust_domain")?,
                exports: present(m.exports, "cluster.exports")?,
                imports: present(m.imports, "cluster.imports")?,
            }),
            // 0 in a command: `apply` gives the id.
            Kind::Server(number) => Ok(TokenScope::Server { id: ServerId(number) }),
        }
    }
}

impl Wire for Command {
    type Message = wire::Command;

    fn to_wire(&self) -> wire::Command {
        wire::Command {
            min_version: self.min_version,
            at_ms: self.at.0,
            principal: self.principal.as_ref().map(Wire::to_wire),
            action: Some(to_action(&self.action)),
        }
    }

    fn from_wire(m: wire::Command) -> Result<Self, Invalid> {
        version(m.min_version, VERSION)?;
        Ok(Command {
            min_version: m.min_version,
            at: Millis(m.at_ms),
            principal: optional(m.principal, "principal")?,
            action: action(m.action.ok_or_else(|| Invalid::unknown("action"))?)?,
        })
    }
}

fn to_action(action: &Action) -> wire::command::Action {
    use wire::command::Action as Kind;
    match action {
        Action::Found { federation, trust_domain, limits } => Kind::Found(wire::Found {
            federation: federation.0.to_vec(),
            trust_domain: trust_domain.to_string(),
            limits: Some(limits.to_wire()),
        }),
        Action::PutServer { id, address, status_address } => Kind::PutServer(wire::Server {
            id: id.0,
            address: address.clone(),
            status_address: status_address.clone(),
        }),
        Action::RemoveServer { id } => Kind::RemoveServer(id.0),
        Action::RaiseVersion { version } => Kind::RaiseVersion(*version),
        Action::Admin { key, action } => {
            Kind::Admin(wire::Admin { key: key.to_vec(), action: Some(to_admin(action)) })
        }
        Action::Join { token, key, not_after } => {
            Kind::Join(wire::Join { token: token.to_vec(), key: key.to_vec(), not_after_ms: not_after.0 })
        }
        Action::JoinByIssuer { proof, key, not_after } => {
            Kind::JoinByIssuer(admission::to_join(proof, key, *not_after))
        }
        Action::Renew { cluster, key, not_after } => {
            Kind::Renew(wire::Renew { cluster: cluster.0, key: key.to_vec(), not_after_ms: not_after.0 })
        }
        Action::OpenSession { cluster, session, instance, uid } => Kind::OpenSession(wire::OpenSession {
            cluster: cluster.0,
            session: session.0.to_vec(),
            instance: instance.0.to_vec(),
            uid: uid.as_ref().map(ToString::to_string),
        }),
        Action::Catalog { cluster, session, sequence, changes } => Kind::Catalog(wire::Catalog {
            cluster: cluster.0,
            session: session.0.to_vec(),
            sequence: *sequence,
            changes: to_list(changes),
        }),
        Action::Lapse { cluster, session } => Kind::Lapse(to_session_ref(*cluster, *session)),
        Action::Close { cluster, session } => Kind::Close(to_session_ref(*cluster, *session)),
        Action::Revive { cluster, session } => Kind::Revive(to_session_ref(*cluster, *session)),
    }
}

fn to_session_ref(cluster: ClusterId, session: SessionId) -> wire::SessionRef {
    wire::SessionRef { cluster: cluster.0, session: session.0.to_vec() }
}

fn to_admin(action: &AdminAction) -> wire::admin::Action {
    match action {
        AdminAction::CreateToken { hash, scope, expires } => {
            wire::admin::Action::CreateToken(wire::CreateToken {
                hash: hash.to_vec(),
                scope: Some(scope.to_wire()),
                expires_ms: expires.0,
            })
        }
        AdminAction::RemoveCluster { name } => wire::admin::Action::RemoveCluster(name.to_string()),
        AdminAction::AddCluster(add) => wire::admin::Action::AddCluster(add.to_wire()),
    }
}

fn action(kind: wire::command::Action) -> Result<Action, Invalid> {
    use wire::command::Action as Kind;
    Ok(match kind {
        Kind::Found(m) => Action::Found {
            federation: FederationId(id(&m.federation, "found.federation")?),
            trust_domain: name(&m.trust_domain, "found.trust_domain")?,
            limits: present(m.limits, "found.limits")?,
        },
        Kind::PutServer(m) => {
            let Server { id, address, status_address } = inner(m, "put_server")?;
            Action::PutServer { id, address, status_address }
        }
        Kind::RaiseVersion(version) => Action::RaiseVersion { version },
        Kind::RemoveServer(number) => Action::RemoveServer { id: server_id(number, "remove_server")? },
        Kind::Admin(m) => Action::Admin {
            key: id(&m.key, "admin.key")?,
            action: admin(m.action.ok_or_else(|| Invalid::unknown("admin.action"))?)
                .map_err(|e| e.within("admin"))?,
        },
        Kind::Join(m) => Action::Join {
            token: hash(&m.token, "join.token")?,
            key: hash(&m.key, "join.key")?,
            not_after: Millis(m.not_after_ms),
        },
        Kind::JoinByIssuer(m) => Action::JoinByIssuer {
            proof: admission::proof(&m).map_err(|e| e.within("join_by_issuer"))?,
            key: hash(&m.key, "join_by_issuer.key")?,
            not_after: Millis(m.not_after_ms),
        },
        Kind::Renew(m) => Action::Renew {
            cluster: ClusterId(m.cluster),
            key: hash(&m.key, "renew.key")?,
            not_after: Millis(m.not_after_ms),
        },
        Kind::OpenSession(m) => Action::OpenSession {
            cluster: ClusterId(m.cluster),
            session: SessionId(id(&m.session, "open_session.session")?),
            instance: InstanceId(id(&m.instance, "open_session.instance")?),
            uid: optional_name(m.uid.as_deref(), "open_session.uid")?,
        },
        Kind::Catalog(m) => Action::Catalog {
            cluster: ClusterId(m.cluster),
            session: SessionId(id(&m.session, "catalog.session")?),
            sequence: m.sequence,
            changes: list(m.changes, "catalog.changes")?,
        },
        Kind::Lapse(m) => Action::Lapse {
            cluster: ClusterId(m.cluster),
            session: SessionId(id(&m.session, "lapse.session")?),
        },
        Kind::Close(m) => Action::Close {
            cluster: ClusterId(m.cluster),
            session: SessionId(id(&m.session, "close.session")?),
        },
        Kind::Revive(m) => Action::Revive {
            cluster: ClusterId(m.cluster),
            session: SessionId(id(&m.session, "revive.session")?),
        },
    })
}

fn admin(action: wire::admin::Action) -> Result<AdminAction, Invalid> {
    Ok(match action {
        wire::admin::Action::CreateToken(m) => AdminAction::CreateToken {
            hash: hash(&m.hash, "create_token.hash")?,
            scope: present(m.scope, "create_token.scope")?,
            expires: Millis(m.expires_ms),
        },
        wire::admin::Action::RemoveCluster(text) => {
            AdminAction::RemoveCluster { name: name(&text, "remove_cluster")? }
        }
        wire::admin::Action::AddCluster(m) => AdminAction::AddCluster(inner(m, "add_cluster")?),
    })
}

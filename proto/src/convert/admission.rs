//! Admissions: clusters that may join by tokens of their own issuers.

use super::field::{at_most, hash, list, map, name, optional, optional_name, present, to_list};
use super::{Invalid, Wire, WireEnum, wire_enum};
use crate::store::v1 as wire;
use sealane_core::command::{AddCluster, Proof};
use sealane_core::state::{
    Admission, Hash, Issuer, IssuerKey, MAX_AUTHORITIES, MAX_KEYS, SignatureAlgorithm, UsedToken,
};
use sealane_core::time::Millis;

wire_enum!(SignatureAlgorithm, wire::SignatureAlgorithm, [Rs256, Es256, Es384]);

impl Wire for IssuerKey {
    type Message = wire::IssuerKey;

    fn to_wire(&self) -> wire::IssuerKey {
        wire::IssuerKey {
            kid: self.kid.clone(),
            algorithm: self.algorithm.to_number(),
            key: self.key.clone(),
        }
    }

    fn from_wire(m: wire::IssuerKey) -> Result<Self, Invalid> {
        Ok(IssuerKey {
            kid: m.kid,
            algorithm: SignatureAlgorithm::from_number(m.algorithm, "algorithm")?,
            key: m.key,
        })
    }
}

impl Wire for Issuer {
    type Message = wire::Issuer;

    fn to_wire(&self) -> wire::Issuer {
        use wire::issuer::Kind;
        let kind = match self {
            Issuer::Keys { name, keys } => Kind::Keys(wire::GivenKeys {
                name: name.as_ref().map(ToString::to_string),
                keys: to_list(keys),
            }),
            Issuer::Discovery { url, authorities } => Kind::Discovery(wire::IssuerDiscovery {
                url: url.to_string(),
                authorities: authorities.clone(),
            }),
        };
        wire::Issuer { kind: Some(kind) }
    }

    fn from_wire(m: wire::Issuer) -> Result<Self, Invalid> {
        use wire::issuer::Kind;
        match m.kind.ok_or_else(|| Invalid::unknown("kind"))? {
            Kind::Keys(m) => {
                at_most(&m.keys, MAX_KEYS, "keys.keys")?;
                Ok(Issuer::Keys {
                    name: optional_name(m.name.as_deref(), "keys.name")?,
                    keys: list(m.keys, "keys.keys")?,
                })
            }
            Kind::Discovery(m) => {
                at_most(&m.authorities, MAX_AUTHORITIES, "discovery.authorities")?;
                Ok(Issuer::Discovery { url: name(&m.url, "discovery.url")?, authorities: m.authorities })
            }
        }
    }
}

impl Wire for AddCluster {
    type Message = wire::AddCluster;

    fn to_wire(&self) -> wire::AddCluster {
        wire::AddCluster {
            name: self.name.to_string(),
            trust_domain: self.trust_domain.as_ref().map(ToString::to_string),
            exports: self.exports.as_ref().map(Wire::to_wire),
            imports: self.imports.as_ref().map(Wire::to_wire),
            issuer: Some(self.issuer.to_wire()),
            subject: self.subject.to_string(),
        }
    }

    fn from_wire(m: wire::AddCluster) -> Result<Self, Invalid> {
        Ok(AddCluster {
            name: name(&m.name, "name")?,
            trust_domain: optional_name(m.trust_domain.as_deref(), "trust_domain")?,
            exports: optional(m.exports, "exports")?,
            imports: optional(m.imports, "imports")?,
            issuer: present(m.issuer, "issuer")?,
            subject: name(&m.subject, "subject")?,
        })
    }
}

impl Wire for Admission {
    type Message = wire::Admission;

    fn to_wire(&self) -> wire::Admission {
        wire::Admission {
            cluster: self.cluster.to_string(),
            trust_domain: self.trust_domain.to_string(),
            exports: Some(self.exports.to_wire()),
            imports: Some(self.imports.to_wire()),
            issuer: Some(self.issuer.to_wire()),
            subject: self.subject.to_string(),
            put: self.put,
            used: self.used.iter().map(to_used).collect(),
            last_joined_ms: self.last_joined.map(|at| at.0),
        }
    }

    fn from_wire(m: wire::Admission) -> Result<Self, Invalid> {
        Ok(Admission {
            cluster: name(&m.cluster, "cluster")?,
            trust_domain: name(&m.trust_domain, "trust_domain")?,
            exports: present(m.exports, "exports")?,
            imports: present(m.imports, "imports")?,
            issuer: present(m.issuer, "issuer")?,
            subject: name(&m.subject, "subject")?,
            put: m.put,
            used: map(m.used.into_iter().map(used), "used")?,
            last_joined: m.last_joined_ms.map(Millis),
        })
    }
}

fn to_used((token, used): (&Hash, &UsedToken)) -> wire::UsedToken {
    wire::UsedToken { token: token.to_vec(), key: used.key.to_vec(), expires_ms: used.expires.0 }
}

fn used(m: wire::UsedToken) -> Result<(Hash, UsedToken), Invalid> {
    let expires = Millis(m.expires_ms);
    Ok((hash(&m.token, "token")?, UsedToken { key: hash(&m.key, "key")?, expires }))
}

pub(super) fn to_join(proof: &Proof, key: &Hash, not_after: Millis) -> wire::JoinByIssuer {
    wire::JoinByIssuer {
        cluster: proof.cluster.to_string(),
        admission: proof.admission,
        token: proof.token.to_vec(),
        expires_ms: proof.expires.0,
        uid: proof.uid.as_ref().map(ToString::to_string),
        key: key.to_vec(),
        not_after_ms: not_after.0,
    }
}

pub(super) fn proof(m: &wire::JoinByIssuer) -> Result<Proof, Invalid> {
    Ok(Proof {
        cluster: name(&m.cluster, "cluster")?,
        admission: m.admission,
        token: hash(&m.token, "token")?,
        expires: Millis(m.expires_ms),
        uid: optional_name(m.uid.as_deref(), "uid")?,
    })
}

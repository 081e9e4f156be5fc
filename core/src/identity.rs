//! Who is who: ids that are never reused, and SPIFFE IDs as this federation writes them.

use crate::name::{ClusterName, NameError, Namespace, ServiceAccount, TrustDomain};
use std::fmt;
use std::str::FromStr;

/// A cluster's id: given once by the log and never again, so that a certificate of a removed cluster can not
/// speak for a later one of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u64);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The raft id of a federation server; never 0, never reused after its disk was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub u64);

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

macro_rules! id128 {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            /// Parses 32 lower-case hexadecimal digits.
            fn from_str(s: &str) -> Result<Self, NameError> {
                let refusal = || NameError::new($kind, s, "must be 32 lower-case hexadecimal digits");
                let digits = s.as_bytes();
                if digits.len() != 32 || digits.iter().any(u8::is_ascii_uppercase) {
                    return Err(refusal());
                }
                let mut id = [0u8; 16];
                for (byte, pair) in id.iter_mut().zip(digits.chunks(2)) {
                    let pair = std::str::from_utf8(pair).map_err(|_| refusal())?;
                    *byte = u8::from_str_radix(pair, 16).map_err(|_| refusal())?;
                }
                Ok($name(id))
            }
        }
    };
}

id128!(
    /// The federation's id, made by `init` and pinned by everyone who joins.
    FederationId,
    "federation id"
);
id128!(
    /// One run of an agent's uplink: writes carry it, and a newer session shuts an older one out. The sessions of one
    /// instance are ordered, so that a late copy of an older opening is known for what it is.
    SessionId,
    "session id"
);

impl SessionId {
    /// The session of an instance with this number; later ones must have higher numbers. The tail tells sessions of
    /// different instances apart.
    #[must_use]
    pub fn numbered(number: u64, tail: [u8; 8]) -> Self {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        id[8..].copy_from_slice(&tail);
        SessionId(id)
    }
}
id128!(
    /// One installation of an agent (its disk), so that two agents with a cloned disk are told apart by their run.
    InstanceId,
    "instance id"
);

/// A SPIFFE ID (SPIFFE-ID section 2) with a non-empty path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    path: std::sync::Arc<str>,
}

impl SpiffeId {
    /// Parses `spiffe://<trust domain>/<path>`.
    ///
    /// # Errors
    /// When the scheme, the trust domain or a path segment is not as SPIFFE-ID section 2 demands (no query, no
    /// fragment, no empty or dot segment), or the whole is longer than 2048 bytes.
    pub fn parse(s: &str) -> Result<Self, NameError> {
        let refuse = |rule| NameError::new("SPIFFE ID", s, rule);
        if s.len() > 2048 {
            return Err(refuse("must be at most 2048 bytes"));
        }
        let rest = s.strip_prefix("spiffe://").ok_or_else(|| refuse("must begin with spiffe://"))?;
        let (domain, path) = rest.split_once('/').ok_or_else(|| refuse("must have a path"))?;
        let segment = |p: &str| {
            !p.is_empty()
                && p != "."
                && p != ".."
                && p.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        };
        if !path.split('/').all(segment) {
            return Err(refuse(
                "its path segments must be of A-Z, a-z, 0-9, '.', '-' and '_', and not '.' or '..'",
            ));
        }
        Ok(SpiffeId { trust_domain: TrustDomain::parse(domain)?, path: path.into() })
    }

    fn made(trust_domain: &TrustDomain, path: String) -> Self {
        SpiffeId { trust_domain: trust_domain.clone(), path: path.into() }
    }

    /// The identity of a federation server.
    #[must_use]
    pub fn server(federation: &TrustDomain, id: ServerId) -> Self {
        Self::made(federation, format!("server/{id}"))
    }

    /// The identity of a cluster's agent towards the store.
    #[must_use]
    pub fn agent(federation: &TrustDomain, cluster: &ClusterName) -> Self {
        Self::made(federation, format!("agent/{cluster}"))
    }

    /// The identity of an administrator.
    #[must_use]
    pub fn admin(federation: &TrustDomain, name: &ServiceAccount) -> Self {
        Self::made(federation, format!("admin/{name}"))
    }

    /// The identity of a reader of the status API.
    #[must_use]
    pub fn reader(federation: &TrustDomain, name: &ServiceAccount) -> Self {
        Self::made(federation, format!("reader/{name}"))
    }

    /// The identity of a workload: its namespace and ServiceAccount in its cluster's trust domain.
    #[must_use]
    pub fn workload(domain: &TrustDomain, namespace: &Namespace, account: &ServiceAccount) -> Self {
        Self::made(domain, format!("ns/{namespace}/sa/{account}"))
    }

    /// The identity of a cluster's gateways.
    #[must_use]
    pub fn gateway(domain: &TrustDomain) -> Self {
        Self::made(domain, "sealane/gateway".to_owned())
    }

    /// The identity under which a cluster's agent serves its own proxies.
    #[must_use]
    pub fn cluster_agent(domain: &TrustDomain) -> Self {
        Self::made(domain, "sealane/agent".to_owned())
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The path without its leading slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The role that this id has in a federation of the given trust domain, or `None` for a stranger's.
    #[must_use]
    pub fn principal(&self, federation: &TrustDomain) -> Option<Principal> {
        if self.trust_domain != *federation {
            return None;
        }
        let (role, name) = self.path.split_once('/')?;
        match role {
            "server" => {
                let id: u64 = name.parse().ok()?;
                (id != 0 && id.to_string() == name).then_some(Principal::Server(ServerId(id)))
            }
            "agent" => ClusterName::parse(name).ok().map(Principal::Agent),
            "admin" => ServiceAccount::parse(name).ok().map(Principal::Admin),
            "reader" => ServiceAccount::parse(name).ok().map(Principal::Reader),
            _ => None,
        }
    }
}

/// Who a certificate of the federation's trust domain speaks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Principal {
    /// A federation server.
    Server(ServerId),
    /// The agent of the named cluster. The certificate also carries the cluster's id; see `trust`.
    Agent(ClusterName),
    /// An administrator.
    Admin(ServiceAccount),
    /// A reader of the status API.
    Reader(ServiceAccount),
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}", self.trust_domain, self.path)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for SpiffeId {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        SpiffeId::parse(s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spiffe_id_is_parsed_whole_or_refused() {
        let id = SpiffeId::parse("spiffe://west.example/ns/shop/sa/cart").unwrap();
        assert_eq!((id.trust_domain().as_str(), id.path()), ("west.example", "ns/shop/sa/cart"));
        for bad in [
            "http://west/x",
            "spiffe://west",
            "spiffe://west/",
            "spiffe://west/a//b",
            "spiffe://west/../b",
            "spiffe://West/a",
            "spiffe://west/a?b",
            "spiffe://u@west/a",
            "spiffe://west:1/a",
        ] {
            assert!(SpiffeId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_principal_belongs_to_its_own_federation_only() {
        let (ours, other) = (TrustDomain::parse("fed").unwrap(), TrustDomain::parse("fed2").unwrap());
        let id = SpiffeId::agent(&ours, &ClusterName::parse("west").unwrap());
        assert_eq!(id.principal(&ours), Some(Principal::Agent(ClusterName::parse("west").unwrap())));
        assert_eq!(id.principal(&other), None);
        for strange in
            ["spiffe://fed/server/0", "spiffe://fed/server/01", "spiffe://fed/nobody/x", "spiffe://fed/agent"]
        {
            assert_eq!(SpiffeId::parse(strange).unwrap().principal(&ours), None, "{strange}");
        }
    }

    #[test]
    fn an_id_prints_as_it_parses() {
        let text = "00112233445566778899aabbccddeeff";
        assert_eq!(text.parse::<FederationId>().unwrap().to_string(), text);
        assert!("00112233445566778899AABBCCDDEEFF".parse::<FederationId>().is_err());
        assert!("0011".parse::<FederationId>().is_err());
    }
}

//! Names: made by parsing, so that a value of one of these types is always well formed.
//!
//! Every name is cheap to clone (a shared string) because views and state hold the same one many times.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A name that was refused, with the input and the rule that it broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {kind} {input:?}: {rule}")]
pub struct NameError {
    /// What the text was meant to be, such as `cluster name`.
    pub kind: &'static str,
    /// The refused text, cut to 80 characters.
    pub input: String,
    /// The rule that it broke, as a sentence for its author.
    pub rule: &'static str,
}

impl NameError {
    pub(crate) fn new(kind: &'static str, input: &str, rule: &'static str) -> Self {
        NameError { kind, input: input.chars().take(80).collect(), rule }
    }
}

/// Whether `s` is an RFC 1123 label of at most `max` characters.
pub(crate) fn is_label(s: &str, max: usize) -> bool {
    !s.is_empty()
        && s.len() <= max
        && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !s.starts_with('-')
        && !s.ends_with('-')
}

fn is_visible(s: &str, max: usize) -> bool {
    !s.is_empty() && s.len() <= max && s.bytes().all(|b| b.is_ascii_graphic())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses the name.
            ///
            /// # Errors
            /// When the text breaks the rule of this kind of name; the error states the rule.
            pub fn parse(s: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> bool = $check;
                if check(s) { Ok($name(s.into())) } else { Err(NameError::new($kind, s, $rule)) }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> {
                $name::parse(s)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// The name of a cluster: an RFC 1123 label of at most 40 characters, because it is a DNS label in
    /// `<hostname>.<cluster>.<service>…` and a label value on every slice.
    ClusterName,
    "cluster name",
    "must be 1 to 40 of a-z, 0-9 and '-', and begin and end with a letter or digit",
    |s| is_label(s, 40)
);
name!(
    /// The UID of a cluster's namespace `kube-system`: what tells one Kubernetes cluster from another of the same name.
    ClusterUid,
    "cluster UID",
    "must be 1 to 64 of a-z, A-Z, 0-9 and '-'",
    |s| !s.is_empty() && s.len() <= 64 && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
);
name!(
    /// The issuer of tokens, as they name it (`iss`). One whose keys are fetched is an https URL.
    IssuerName,
    "issuer",
    "must be 1 to 512 visible ASCII characters",
    |s| is_visible(s, 512)
);
name!(
    /// Who a token speaks for (`sub`), such as `system:serviceaccount:sealane-system:sealane-agent`.
    Subject,
    "subject",
    "must be 1 to 512 visible ASCII characters",
    |s| is_visible(s, 512)
);
name!(
    /// A Kubernetes namespace (RFC 1123 label).
    Namespace,
    "namespace",
    "must be 1 to 63 of a-z, 0-9 and '-', and begin and end with a letter or digit",
    |s| is_label(s, 63)
);
name!(
    /// The name of a Service (RFC 1123 label; newer Kubernetes versions relaxed RFC 1035 to this).
    ServiceName,
    "service name",
    "must be 1 to 63 of a-z, 0-9 and '-', and begin and end with a letter or digit",
    |s| is_label(s, 63)
);
name!(
    /// The name of a ServiceAccount (RFC 1123 subdomain).
    ServiceAccount,
    "service account",
    "must be 1 to 253 of a-z, 0-9, '-' and '.', each label beginning and ending with a letter or digit",
    |s| s.len() <= 253 && s.split('.').all(|l| is_label(l, 63))
);
name!(
    /// The name of a Service port; empty where a Service has a single unnamed port.
    PortName,
    "port name",
    "must be empty, or at most 63 of a-z, 0-9 and '-', and begin and end with a letter or digit",
    |s| s.is_empty() || is_label(s, 63)
);
name!(
    /// The name of a network: endpoints in one network reach each other without a gateway.
    NetworkName,
    "network name",
    "must be 1 to 63 of a-z, 0-9, '-', '_' and '.', and begin and end with a letter or digit",
    |s| {
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        s.len() <= 63
            && s.bytes().all(|b| word(b) || matches!(b, b'-' | b'_' | b'.'))
            && s.bytes().next().is_some_and(word)
            && s.bytes().last().is_some_and(word)
    }
);
name!(
    /// A region or a zone, from the labels `topology.kubernetes.io/{region,zone}` (a label value).
    TopologyName,
    "region or zone",
    "must be at most 63 of A-Z, a-z, 0-9, '-', '_' and '.'",
    |s| s.len() <= 63 && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
);
name!(
    /// The hostname of one endpoint of a headless service (RFC 1123 label).
    Hostname,
    "endpoint hostname",
    "must be 1 to 63 of a-z, 0-9 and '-', and begin and end with a letter or digit",
    |s| is_label(s, 63)
);
name!(
    /// The address of a gateway that a cloud gives as a DNS name (RFC 1123 subdomain, lower case).
    DnsName,
    "DNS name",
    "must be 1 to 253 of a-z, 0-9, '-' and '.', each label beginning and ending with a letter or digit",
    |s| s.len() <= 253 && s.split('.').all(|l| is_label(l, 63))
);
name!(
    /// The id of one endpoint, stable for the life of its pod: `e-` and 13 base32 characters, issued by the
    /// exporting agent. It is also the leading SNI label that asks for this endpoint and no other.
    EndpointId,
    "endpoint id",
    "must be 'e-' followed by 13 of a-z and 2-7",
    |s| s.len() == 15
        && s.starts_with("e-")
        && s[2..].bytes().all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b))
);
name!(
    /// A SPIFFE trust domain name (SPIFFE-ID section 2.1): lower case, at most 255 characters.
    TrustDomain,
    "trust domain",
    "must be 1 to 255 of a-z, 0-9, '.', '-' and '_'",
    |s| !s.is_empty()
        && s.len() <= 255
        && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'))
);

impl NetworkName {
    /// A cluster's default network: one of its own, which is the safe guess.
    #[must_use]
    pub fn of_cluster(cluster: &ClusterName) -> Self {
        // Every cluster name is a network name: both are labels, and a network's may be longer.
        NetworkName(cluster.0.clone())
    }
}

impl TrustDomain {
    /// What stands in a state before its federation is founded; no certificate is ever issued under it.
    pub(crate) fn unfounded() -> Self {
        TrustDomain("unfounded".into())
    }
}

/// A service's identity in the federation, by namespace sameness (KEP-1645): one namespaced name, everywhere.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// The namespace, the same in every cluster.
    pub namespace: Namespace,
    /// The name within the namespace.
    pub name: ServiceName,
}

impl ServiceKey {
    /// Parses `namespace/name`.
    ///
    /// # Errors
    /// When the slash is missing or either part is not a valid name.
    pub fn parse(s: &str) -> Result<Self, NameError> {
        let (namespace, name) = s
            .split_once('/')
            .ok_or_else(|| NameError::new("service", s, "must be written NAMESPACE/NAME"))?;
        Ok(ServiceKey { namespace: Namespace::parse(namespace)?, name: ServiceName::parse(name)? })
    }

    /// The least key that a namespace can hold: where a range over the namespace begins.
    #[must_use]
    pub fn first_of(namespace: &Namespace) -> Self {
        // "0" is the least label: a label begins with a digit or a letter, and "0" is a prefix of no smaller one.
        ServiceKey { namespace: namespace.clone(), name: ServiceName("0".into()) }
    }

    /// The least key of all: where a range over every service begins.
    #[must_use]
    pub fn first() -> Self {
        ServiceKey { namespace: Namespace("0".into()), name: ServiceName("0".into()) }
    }
}

impl FromStr for ServiceKey {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        ServiceKey::parse(s)
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_refused_with_its_rule() {
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", &"a".repeat(41)] {
            let refusal = ClusterName::parse(bad).unwrap_err();
            assert_eq!(refusal.kind, "cluster name", "{bad:?}");
        }
        assert_eq!(ClusterName::parse("west-2").unwrap().as_str(), "west-2");
    }

    #[test]
    fn an_endpoint_id_has_one_form() {
        assert!(EndpointId::parse("e-abcdefghij234").is_ok());
        for bad in
            ["e-abcdefghij23", "e-abcdefghij2341", "f-abcdefghij234", "e-abcdefghij231", "e-ABCDEFGHIJ234"]
        {
            assert!(EndpointId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_service_key_needs_both_parts() {
        assert_eq!(ServiceKey::parse("shop/cart").unwrap().to_string(), "shop/cart");
        for bad in ["shop", "shop/", "/cart", "shop/cart/x"] {
            assert!(ServiceKey::parse(bad).is_err(), "{bad}");
        }
    }
}

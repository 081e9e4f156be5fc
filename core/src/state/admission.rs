//! Admissions: clusters that may join by tokens of their own issuer.

use super::{Grant, Hash};
use crate::name::{ClusterName, IssuerName, Subject, TrustDomain};
use crate::time::Millis;
use std::collections::BTreeMap;

/// The most keys of one issuer.
pub const MAX_KEYS: usize = 32;
/// The most bytes of one key: RSA of 8192 bits.
pub const MAX_KEY_BYTES: usize = 1_100;
/// The longest name of a key.
pub const MAX_KID: usize = 256;
/// The most certificate authorities by which an issuer is verified.
pub const MAX_AUTHORITIES: usize = 8;
/// The most bytes of one of them.
pub const MAX_AUTHORITY_BYTES: usize = 8 * 1024;
/// How far the clocks of issuers and servers may be apart.
pub const TOKEN_SKEW_MS: u64 = 60_000;

/// A cluster's standing permission to join by tokens of its own issuer: now, and again whenever it has lost what joining
/// brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The cluster.
    pub cluster: ClusterName,
    /// The trust domain that it will have; as a member it keeps the one that it has.
    pub trust_domain: TrustDomain,
    /// What it may export, once it joins.
    pub exports: Grant,
    /// What it may import, once it joins.
    pub imports: Grant,
    /// Whose tokens.
    pub issuer: Issuer,
    /// Whom they must speak for.
    pub subject: Subject,
    /// The index of the command that put it: a token that was looked at by an older one is refused.
    pub put: u64,
    /// Tokens that were used and have not run out, by the hash of what was signed.
    pub used: BTreeMap<Hash, UsedToken>,
    /// When the cluster last joined by it.
    pub last_joined: Option<Millis>,
}

/// The use of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsedToken {
    /// SHA-256 of the public key of the certificate request: that one may retry, another is refused.
    pub key: Hash,
    /// When the token runs out.
    pub expires: Millis,
}

/// Who signs tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Issuer {
    /// Whoever holds these keys.
    Keys {
        /// What tokens must name as their issuer; `None` for anything.
        name: Option<IssuerName>,
        /// The keys.
        keys: Vec<IssuerKey>,
    },
    /// An OpenID provider: servers fetch its keys.
    Discovery {
        /// Its https URL, which tokens name as their issuer.
        url: IssuerName,
        /// The only authorities by which it is verified, in DER; none for those of the servers' machines.
        authorities: Vec<Vec<u8>>,
    },
}

/// A public key of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerKey {
    /// Its name, which tokens state.
    pub kid: Option<String>,
    /// How it signs.
    pub algorithm: SignatureAlgorithm,
    /// RSA: the `RSAPublicKey` of RFC 8017 in DER. ECDSA: the uncompressed point.
    pub key: Vec<u8>,
}

/// How tokens are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SignatureAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA by P-256 with SHA-256.
    Es256,
    /// ECDSA by P-384 with SHA-384.
    Es384,
}

impl Issuer {
    /// What tokens must name as their issuer.
    #[must_use]
    pub fn name(&self) -> Option<&IssuerName> {
        match self {
            Issuer::Keys { name, .. } => name.as_ref(),
            Issuer::Discovery { url, .. } => Some(url),
        }
    }

    /// Why it can not be one; `None` for a sound one.
    #[must_use]
    pub fn flaw(&self) -> Option<String> {
        match self {
            Issuer::Keys { keys, .. } => keys_flaw(keys),
            Issuer::Discovery { url, authorities } => {
                url_flaw(url.as_str()).or_else(|| authorities_flaw(authorities))
            }
        }
    }
}

fn keys_flaw(keys: &[IssuerKey]) -> Option<String> {
    if keys.is_empty() || keys.len() > MAX_KEYS {
        return Some(format!("an issuer has 1 to {MAX_KEYS} keys, not {}", keys.len()));
    }
    let bad = |k: &&IssuerKey| {
        k.key.is_empty()
            || k.key.len() > MAX_KEY_BYTES
            || k.kid.as_ref().is_some_and(|kid| kid.is_empty() || kid.len() > MAX_KID)
    };
    keys.iter().find(bad).map(|_| {
        format!(
            "a key of an issuer has 1 to {MAX_KEY_BYTES} bytes, and a name of 1 to {MAX_KID} bytes or none"
        )
    })
}

fn url_flaw(url: &str) -> Option<String> {
    let host = url.strip_prefix("https://").map(|rest| rest.split('/').next().unwrap_or_default());
    let sound = host.is_some_and(|host| !host.is_empty() && !host.contains('@'));
    if sound && !url.contains(['?', '#', '\\']) {
        return None;
    }
    Some(format!(
        "issuer {url:?} must be an https URL without user, query and fragment for its keys to be fetched"
    ))
}

fn authorities_flaw(authorities: &[Vec<u8>]) -> Option<String> {
    let sound = authorities.len() <= MAX_AUTHORITIES
        && authorities.iter().all(|a| !a.is_empty() && a.len() <= MAX_AUTHORITY_BYTES);
    (!sound).then(|| {
        format!(
            "an issuer has at most {MAX_AUTHORITIES} authorities of 1 to {MAX_AUTHORITY_BYTES} bytes each"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_fetched_from_an_https_url_only() {
        let at = |url: &str| Issuer::Discovery { url: url.parse().unwrap(), authorities: Vec::new() }.flaw();
        assert_eq!(at("https://kubernetes.default.svc"), None);
        assert_eq!(at("https://oidc.example/id/1:2"), None);
        for bad in
            ["http://a.example", "https://", "https:///x", "https://a@b.example", "https://a.example?x", "a"]
        {
            assert!(at(bad).is_some(), "{bad}");
        }
        let many = Issuer::Discovery { url: "https://a".parse().unwrap(), authorities: vec![vec![1]; 9] };
        assert!(many.flaw().is_some());
    }

    #[test]
    fn given_keys_are_bounded() {
        let key = |kid: Option<&str>, length| IssuerKey {
            kid: kid.map(str::to_owned),
            algorithm: SignatureAlgorithm::Es256,
            key: vec![4; length],
        };
        let of = |keys| Issuer::Keys { name: None, keys }.flaw();
        assert_eq!(of(vec![key(Some("a"), 65), key(None, 65)]), None);
        for bad in [
            vec![],
            vec![key(None, 65); 33],
            vec![key(Some(""), 65)],
            vec![key(None, 0)],
            vec![key(None, 1_101)],
        ] {
            assert!(of(bad).is_some());
        }
    }
}

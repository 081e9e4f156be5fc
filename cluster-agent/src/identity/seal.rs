//! What shows that a token was made by an agent of this cluster, before anybody is asked about it.
//!
//! It decides nothing: a token whose seal is right may be used up, expired or unknown. But whoever may dial the agent may send
//! it tokens, and each that is looked up in a Secret costs the API server a request; an invented one costs nothing.

use crate::ca::Ca;
use std::fmt;
use zeroize::Zeroizing;

const PURPOSE: &[u8] = b"sealane workload token";
const NONCE: usize = 32;
const TAG: usize = 32;

/// A key that every replica has, because it is made from that of the cluster's root.
#[derive(Clone)]
pub struct Seal(Zeroizing<[u8; 32]>);

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(..)")
    }
}

impl Seal {
    /// That of a cluster.
    #[must_use]
    pub fn of(ca: &Ca) -> Self {
        Seal(Zeroizing::new(sealane_trust::hmac_sha256(ca.key_pem().as_bytes(), PURPOSE)))
    }

    /// The secret of a token: random bytes, and that they are ours.
    pub(crate) fn secret(&self, nonce: [u8; NONCE]) -> Vec<u8> {
        [nonce, sealane_trust::hmac_sha256(self.0.as_slice(), &nonce)].concat()
    }

    pub(super) fn is_on(&self, secret: &[u8]) -> bool {
        secret.len() == NONCE + TAG
            && sealane_trust::is_hmac_sha256(self.0.as_slice(), &secret[..NONCE], &secret[NONCE..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clusters_own_seal_is_right() {
        let seal = |domain: &str| Seal::of(&Ca::make(&domain.parse().unwrap()).unwrap());
        let (east, west) = (seal("east.fed"), seal("west.fed"));
        let secret = east.secret([7; 32]);
        assert!(east.is_on(&secret) && east.clone().is_on(&secret) && !west.is_on(&secret));
        for bad in [&secret[..32], &secret[..63], &[0; 64], b"", &[&secret[..], &[0]].concat()] {
            assert!(!east.is_on(bad), "{bad:?}");
        }
    }
}

//! What a workload token is good for, and for whom: the agent's half of it, without its I/O.
//!
//! Law: a token makes one key's holder one identity, for a while. Whoever shows it first with a key has consumed it; the same
//! key may come again, because the reply may have been lost.

use data_encoding::HEXLOWER;
use sealane_core::identity::SpiffeId;
use sealane_core::name::{Namespace, ServiceAccount, TrustDomain};
use sealane_core::time::Millis;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Who a token makes of its holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// A workload.
    Workload {
        /// Its namespace.
        namespace: String,
        /// Its ServiceAccount.
        service_account: String,
    },
    /// A gateway.
    Gateway,
}

impl Claim {
    /// A workload's.
    #[must_use]
    pub fn workload(namespace: &Namespace, account: &ServiceAccount) -> Self {
        Claim::Workload { namespace: namespace.to_string(), service_account: account.to_string() }
    }

    fn check(&self) -> Result<Checked, String> {
        Ok(match self {
            Claim::Gateway => Checked::Gateway,
            Claim::Workload { namespace, service_account } => Checked::Workload(
                Namespace::parse(namespace).map_err(|e| e.to_string())?,
                ServiceAccount::parse(service_account).map_err(|e| e.to_string())?,
            ),
        })
    }
}

/// A claim whose names were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// A workload.
    Workload(Namespace, ServiceAccount),
    /// A gateway.
    Gateway,
}

impl Checked {
    /// The identity that the claim stands for.
    #[must_use]
    pub fn spiffe_id(&self, domain: &TrustDomain) -> SpiffeId {
        match self {
            Checked::Workload(namespace, account) => SpiffeId::workload(domain, namespace, account),
            Checked::Gateway => SpiffeId::gateway(domain),
        }
    }
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redeemed {
    /// It is good for this.
    Granted(Checked),
    /// It is not; the reason is for its holder.
    Refused(&'static str),
    /// The agent can not tell; the reason is for its log.
    Failed(String),
}

impl Redeemed {
    /// There is no such token.
    pub(crate) const UNKNOWN: Redeemed = Redeemed::Refused(
        "the token is unknown: make one with `sealane-agent workload-token` on an agent of this cluster",
    );
}

/// The agent's half of a token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Grant {
    v: u32,
    claim: Claim,
    expires_ms: u64,
    consumed_by: Option<String>,
}

impl Grant {
    pub(crate) fn new(claim: Claim, now: Millis, ttl: Duration) -> Self {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        Grant { v: 1, claim, expires_ms: now.plus(ttl_ms).0, consumed_by: None }
    }

    /// The name that it is kept under: nobody can make the secret of it.
    pub(crate) fn name(secret: &[u8]) -> String {
        HEXLOWER.encode(&sealane_trust::sha256(secret))
    }

    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(text).map_err(|e| e.to_string())
    }

    pub(crate) fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    pub(crate) fn expired(&self, now: Millis) -> bool {
        self.expires_ms < now.0
    }

    /// Takes it for a key. What comes second is what has to be kept before the answer is given, if it changed.
    pub(crate) fn take(&self, key: [u8; 32], now: Millis) -> Result<(Redeemed, Option<Grant>), String> {
        if self.expired(now) {
            return Ok((Redeemed::Refused("the token expired: make another one"), None));
        }
        let (key, granted) = (HEXLOWER.encode(&key), Redeemed::Granted(self.claim.check()?));
        match &self.consumed_by {
            Some(other) if *other != key => {
                Ok((Redeemed::Refused("the token was used already: make another one"), None))
            }
            Some(_) => Ok((granted, None)),
            None => Ok((granted, Some(Grant { consumed_by: Some(key), ..self.clone() }))),
        }
    }
}

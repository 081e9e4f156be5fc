//! Trust bundles: data only. Verification is the work of the crate `sealane-trust`.

use crate::name::TrustDomain;

/// The roots of one trust domain (SPIFFE Trust Domain and Bundle, section 4).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bundle {
    /// Whose roots these are. Accepted only when it is the domain bound to the cluster that sent it.
    pub trust_domain: TrustDomain,
    /// Raised by one with every change of the roots; a lower one is refused.
    pub sequence: u64,
    /// How often to look for a newer one, in seconds.
    pub refresh_hint_s: u32,
    /// 1 to 8 DER certificates, each at most 8 KiB.
    pub roots: Vec<Vec<u8>>,
}

//! Whether a goodbye is the federation's, and meant for this cluster as it is a member. Pure.

use crate::state::Membership;
use prost::Message;
use sealane_core::identity::Principal;
use sealane_core::time::{Millis, Revision};
use sealane_proto::convert::field;
use sealane_proto::federation::v1 as wire;
use sealane_proto::{GOODBYE, Invalid};
use sealane_trust::CertificateDer;
use sealane_trust::bundle::Bundle;
use sealane_trust::statement::{Signed, StatementError};

/// A goodbye that changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum GoodbyeError {
    /// It can not be read.
    #[error("it can not be read: {0}")]
    Malformed(String),
    /// Nobody of the federation signed it.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// Who signed it is no server.
    #[error("{0} signed it, which is no server of the federation")]
    NoServer(String),
    /// It is for somebody else: of another federation, or with another id, as one that had this name before.
    #[error("it is for cluster {cluster} with the id {id} of federation {federation}")]
    Other {
        /// The name.
        cluster: String,
        /// The id.
        id: u64,
        /// The federation.
        federation: String,
    },
    /// It is older than what the federation said since.
    #[error("it is of revision {found}, and the view that is held of {held}")]
    Old {
        /// Its revision.
        found: Revision,
        /// The view's.
        held: Revision,
    },
}

impl From<Invalid> for GoodbyeError {
    fn from(invalid: Invalid) -> Self {
        GoodbyeError::Malformed(invalid.to_string())
    }
}

/// The revision at which the federation said goodbye to this cluster.
pub(super) fn verify(
    said: &[u8],
    membership: &Membership,
    roots: &Bundle,
    held: Revision,
    now: Millis,
) -> Result<Revision, GoodbyeError> {
    let malformed = |error: prost::DecodeError| GoodbyeError::Malformed(error.to_string());
    let wire::Goodbye { departure, signature, chain } = wire::Goodbye::decode(said).map_err(malformed)?;
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    let signed = Signed { statement: departure, signature, chain };
    let signer = signed.verify(roots, GOODBYE, now)?;
    if !matches!(signer.spiffe_id.principal(&membership.federation_domain), Some(Principal::Server(_))) {
        return Err(GoodbyeError::NoServer(signer.spiffe_id.to_string()));
    }
    let wire::Departure { federation, cluster_id, cluster, revision } =
        wire::Departure::decode(&signed.statement[..]).map_err(malformed)?;
    let ours = (membership.federation.0.as_slice(), membership.cluster_id.0, membership.cluster.as_str());
    if (federation.as_slice(), cluster_id, cluster.as_str()) != ours {
        let federation = data_encoding::HEXLOWER.encode(&federation);
        return Err(GoodbyeError::Other { cluster, id: cluster_id, federation });
    }
    let found: Revision = field::present(revision, "departure.revision")?;
    if found < held { Err(GoodbyeError::Old { found, held }) } else { Ok(found) }
}

#[cfg(test)]
mod tests;

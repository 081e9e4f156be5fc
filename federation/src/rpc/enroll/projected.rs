//! Joining by a token of the cluster's own issuer: what it proves.

use super::{EnrollService, LOOK, invalid};
use crate::issuers::Source;
use sealane_core::command::Proof;
use sealane_core::name::ClusterName;
use sealane_core::state::{Admission, Issuer, IssuerKey};
use sealane_proto::convert::field;
use sealane_proto::federation::v1 as pb;
use sealane_trust::clock;
use sealane_trust::oidc::{Expected, Token, TokenRefusal};
use std::net::IpAddr;
use std::sync::Arc;
use tonic::Status;

/// What a token was found to be.
pub(super) struct Shown {
    pub(super) proof: Proof,
    /// Its name, for whoever looks into what joined by what.
    pub(super) id: String,
}

impl EnrollService {
    /// Verifies a token by the admission of the cluster that it is shown for.
    pub(super) async fn verified(&self, from: IpAddr, shown: &pb::ProjectedToken) -> Result<Shown, Status> {
        let name: ClusterName = field::name(&shown.cluster, "projected.cluster").map_err(|e| invalid(&e))?;
        let uid = field::optional_name(shown.uid.as_deref(), "projected.uid").map_err(|e| invalid(&e))?;
        let refuse = |refusal: TokenRefusal| {
            tracing::warn!(cluster = %name, source = %from, reason = %refusal, "a token of an issuer was refused");
            Status::permission_denied(refusal.to_string())
        };
        let token = Token::parse(&shown.token).map_err(refuse)?;
        let admission = self.admission(&name).await?;
        let fetched;
        let keys: &[IssuerKey] = match &admission.issuer {
            Issuer::Keys { keys, .. } => keys,
            Issuer::Discovery { url, authorities } => {
                let source = Source { url: url.to_string(), authorities: authorities.clone() };
                let issuers = &self.serving.issuers;
                let found = issuers.keys(&source, |keys| token.is_of(keys)).await;
                fetched = found.map_err(|e| Status::unavailable(e.to_string()))?;
                &fetched
            }
        };
        let audience = self.serving.federation.to_string();
        let expected = Expected {
            issuer: admission.issuer.name().map(AsRef::as_ref),
            subject: admission.subject.as_str(),
            audience: &audience,
            now: clock::now(),
        };
        let claims = token.verify(keys, &expected).map_err(refuse)?;
        let (admission, expires) = (admission.put, claims.expires);
        let proof = Proof { cluster: name.clone(), admission, token: token.hash(), expires, uid };
        Ok(Shown { proof, id: claims.id.unwrap_or_default() })
    }

    /// What admits a cluster. One that is not known here may be new, so the look is as of now.
    async fn admission(&self, name: &ClusterName) -> Result<Arc<Admission>, Status> {
        let known = || self.serving.replica.state().1.state.admissions.get(name).cloned();
        if let Some(admission) = known() {
            return Ok(admission);
        }
        let end = tokio::time::Instant::now() + LOOK;
        self.serving.replica.read_index(end).await.map_err(|e| Status::unavailable(e.to_string()))?;
        known().ok_or_else(|| {
            Status::not_found(format!(
                "cluster {name} may not join by a token of its issuer: let it with `sealane cluster add {name}`"
            ))
        })
    }
}

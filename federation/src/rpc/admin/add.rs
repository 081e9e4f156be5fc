//! Adding a cluster that joins by tokens of its own issuer.

use super::{AdminService, invalid};
use crate::rpc::{refused, unexpected};
use sealane_core::command::{AddCluster, AdminAction, Reply};
use sealane_core::state::{Grant, Issuer};
use sealane_proto::convert::field;
use sealane_proto::federation::v1 as pb;
use sealane_proto::federation::v1::add_cluster_request::Issuer as Stated;
use sealane_trust::{CertificateDer, oidc, tls};
use tonic::{Request, Status};

impl AdminService {
    pub(super) async fn with_cluster(
        &self,
        request: Request<pb::AddClusterRequest>,
    ) -> Result<pb::AddClusterReply, Status> {
        let admin = self.serving.admin(&request)?;
        let request = request.into_inner();
        let key = request.key.clone();
        let add = add(request)?;
        let name = add.name.clone();
        match self.command(admin.clone(), &key, AdminAction::AddCluster(add)).await?.1 {
            Reply::Done => {}
            Reply::Refused(refusal) => return Err(refused(&refusal)),
            _ => return Err(unexpected()),
        }
        tracing::info!(%admin, cluster = %name, "cluster added: it may join by tokens of its issuer");
        let known = self.serving.replica.state().1.state.admissions.get(&name).cloned();
        let known = known.ok_or_else(|| {
            Status::unavailable(
                "the cluster was added, but this server has not seen it yet, or it was removed meanwhile",
            )
        })?;
        Ok(pb::AddClusterReply {
            federation: self.serving.federation.0.to_vec(),
            root_hash: self.serving.pki.root_hash().0.to_vec(),
            servers: self.serving.addresses(),
            trust_domain: known.trust_domain.to_string(),
        })
    }
}

fn add(request: pb::AddClusterRequest) -> Result<AddCluster, Status> {
    let stated = |namespaces: Vec<String>| (!namespaces.is_empty()).then_some(Grant { namespaces });
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let trust_domain = text(&request.trust_domain);
    Ok(AddCluster {
        name: field::name(&request.name, "name").map_err(|e| invalid(&e))?,
        trust_domain: field::optional_name(trust_domain.as_deref(), "trust_domain")
            .map_err(|e| invalid(&e))?,
        exports: stated(request.exports),
        imports: stated(request.imports),
        issuer: issuer(request.issuer)?,
        subject: field::name(&request.subject, "subject").map_err(|e| invalid(&e))?,
    })
}

fn issuer(stated: Option<Stated>) -> Result<Issuer, Status> {
    let issuer = match stated.ok_or_else(|| Status::invalid_argument("issuer: is missing"))? {
        Stated::Keys(pb::add_cluster_request::GivenKeys { name, jwks }) => {
            let keys = oidc::keys(&jwks).map_err(|e| Status::invalid_argument(format!("jwks: {e}")))?;
            let name = (!name.is_empty()).then_some(name);
            Issuer::Keys {
                name: field::optional_name(name.as_deref(), "issuer").map_err(|e| invalid(&e))?,
                keys,
            }
        }
        Stated::Discovery(pb::add_cluster_request::Discovery { url, authorities }) => {
            let roots: Vec<_> = authorities.iter().map(|a| CertificateDer::from(a.as_slice())).collect();
            if !roots.is_empty() {
                let sound = tls::web_client(&roots);
                sound.map_err(|e| Status::invalid_argument(format!("authorities: {e}")))?;
            }
            Issuer::Discovery { url: field::name(&url, "issuer").map_err(|e| invalid(&e))?, authorities }
        }
    };
    match issuer.flaw() {
        Some(flaw) => Err(Status::invalid_argument(flaw)),
        None => Ok(issuer),
    }
}

//! Joining and renewing: how a key becomes a member's.

use super::draft::Draft;
use super::{authority, issuer};
use crate::command::{Joined, Refusal, RefusalCode, Reply};
use crate::events::ClusterFact;
use crate::identity::{ClusterId, Principal};
use crate::name::{ClusterName, NetworkName, TrustDomain};
use crate::state::{
    CertificateRecord, Cluster, Consumed, Grant, Hash, Lease, RecordKey, State, Token, TokenScope,
};
use crate::time::Millis;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(super) fn join(draft: &mut Draft, token: &Hash, key: Hash, not_after: Millis) -> Result<Reply, Refusal> {
    let Some(token) = draft.state.tokens.get(token).cloned() else {
        let rule = "there is no such join token: make one with `sealane token create`";
        return Err(Refusal::new(RefusalCode::NotFound, rule));
    };
    if let Some(consumed) = &token.consumed {
        return retry(draft, &token, consumed, key, not_after);
    }
    if token.expires <= draft.now() {
        let rule = "the join token ran out: make another with `sealane token create`";
        return Err(Refusal::new(RefusalCode::Expired, rule));
    }
    let (joined, cluster) = match &token.scope {
        TokenScope::Cluster { name, trust_domain, exports, imports } => {
            issuer::not_added(&draft.state, name)?;
            free(&draft.state, name, trust_domain)?;
            let certificate = CertificateRecord { key, not_after };
            let id = add_cluster(draft, name, trust_domain, (exports, imports), certificate);
            (Joined::Cluster { id, name: name.clone(), trust_domain: trust_domain.clone() }, Some(id))
        }
        TokenScope::Server { id } if draft.state.servers.contains_key(id) => {
            return Err(Refusal::new(RefusalCode::Exists, format!("server {id} is a member already")));
        }
        TokenScope::Server { id } => (Joined::Server { id: *id }, None),
    };
    let hash = token.hash;
    let consumed = Token { consumed: Some(Consumed { key, cluster }), ..(*token).clone() };
    draft.state.tokens.insert(hash, Arc::new(consumed));
    draft.dirty.insert(RecordKey::Token(hash));
    Ok(Reply::Joined(joined))
}

/// The consumer of a token asks again (its answer was lost): it gets the same answer.
fn retry(
    draft: &mut Draft,
    token: &Token,
    consumed: &Consumed,
    key: Hash,
    not_after: Millis,
) -> Result<Reply, Refusal> {
    if consumed.key != key {
        let rule = "the join token was consumed by another key: make another with `sealane token create`, and find out who used this one";
        return Err(Refusal::new(RefusalCode::Consumed, rule));
    }
    match (&token.scope, consumed.cluster) {
        (TokenScope::Cluster { name, trust_domain, .. }, Some(id)) => {
            // The certificate that this retry gets has its own expiry, unless the agent renewed since.
            let certificate = CertificateRecord { key, not_after };
            if draft.cluster(id).is_some_and(|c| c.certificate.key == key && c.certificate != certificate) {
                draft.edit(id, None, |cluster| cluster.certificate = certificate);
            }
            let (name, trust_domain) = (name.clone(), trust_domain.clone());
            Ok(Reply::Joined(Joined::Cluster { id, name, trust_domain }))
        }
        (TokenScope::Server { id }, _) => Ok(Reply::Joined(Joined::Server { id: *id })),
        (TokenScope::Cluster { name, .. }, None) => {
            Err(Refusal::new(RefusalCode::NotFound, format!("cluster {name} is not a member any more")))
        }
    }
}

/// Whether a name and a trust domain may be given to a new member.
pub(super) fn free(state: &State, name: &ClusterName, trust_domain: &TrustDomain) -> Result<(), Refusal> {
    if state.by_name.contains_key(name) {
        let rule = format!(
            "cluster {name} is a member already: remove it first with `sealane cluster remove {name}`, or choose another name"
        );
        return Err(Refusal::new(RefusalCode::Exists, rule));
    }
    let taken = match state.by_trust_domain.get(trust_domain).and_then(|id| state.clusters.get(id)) {
        Some(other) => format!("cluster {}", other.name),
        None if *trust_domain == state.meta.trust_domain => "the federation itself".to_owned(),
        None => return Ok(()),
    };
    let rule = format!("trust domain {trust_domain} belongs to {taken}: choose another");
    Err(Refusal::new(RefusalCode::Exists, rule))
}

pub(super) fn add_cluster(
    draft: &mut Draft,
    name: &ClusterName,
    trust_domain: &TrustDomain,
    (exports, imports): (&Grant, &Grant),
    certificate: CertificateRecord,
) -> ClusterId {
    let id = ClusterId(draft.state.meta.next_cluster);
    draft.state.meta.next_cluster += 1;
    draft.put_cluster(Cluster {
        id,
        name: name.clone(),
        trust_domain: trust_domain.clone(),
        uid: None,
        exports: exports.clone(),
        imports: imports.clone(),
        joined: draft.now(),
        certificate,
        session: None,
        lease: Lease::Never,
        network: NetworkName::of_cluster(name),
        locality: crate::endpoint::Locality::default(),
        bundle: None,
        gateways: Arc::default(),
        probes: Arc::default(),
        interest: Arc::new(BTreeSet::new()),
        lanes: BTreeMap::new(),
    });
    draft.events.fact(id, ClusterFact::Membership);
    id
}

pub(super) fn renew(
    draft: &mut Draft,
    by: Option<&Principal>,
    id: ClusterId,
    key: Hash,
    not_after: Millis,
) -> Result<Reply, Refusal> {
    let Some(cluster) = draft.cluster(id) else {
        let rule = "the cluster is not a member any more: join again with a new token";
        return Err(Refusal::new(RefusalCode::NotFound, rule));
    };
    authority::agent_of(by, &cluster)?;
    let certificate = CertificateRecord { key, not_after };
    if cluster.certificate != certificate {
        draft.edit(id, None, |cluster| cluster.certificate = certificate);
    }
    Ok(Reply::Done)
}

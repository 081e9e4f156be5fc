//! Clusters that join by tokens of their own issuers, and which Kubernetes cluster a member is.
//!
//! The server that was shown a token verified it by the cluster's admission; here it is known whether that admission still
//! holds, and whether the token was used. A token is used by one key, which may retry: who copied it from the wire or out
//! of a log gets nothing by it.

use super::admin::sound_grant;
use super::draft::Draft;
use super::join;
use crate::command::{AddCluster, Joined, OtherCluster, Proof, Refusal, RefusalCode, Reply};
use crate::identity::ClusterId;
use crate::name::{ClusterName, ClusterUid, TrustDomain};
use crate::state::{
    Admission, CertificateRecord, Cluster, Grant, Hash, RecordKey, State, TOKEN_SKEW_MS, UsedToken,
};
use crate::time::Millis;
use std::sync::Arc;

/// The most admissions kept at once.
const MAX_ADMISSIONS: usize = 10_000;
/// The most tokens of one cluster that were used and have not run out.
const MAX_USED: usize = 64;

/// Lets a cluster join, or changes by which tokens it may.
pub(super) fn add(draft: &mut Draft, add: &AddCluster) -> Result<Reply, Refusal> {
    if let Some(flaw) = add.issuer.flaw() {
        return Err(Refusal::new(RefusalCode::Invalid, flaw));
    }
    let known = draft.state.admissions.get(&add.name).cloned();
    if known.is_none() && draft.state.admissions.len() >= MAX_ADMISSIONS {
        let rule = format!("{MAX_ADMISSIONS} clusters were added already: remove some");
        return Err(Refusal::new(RefusalCode::Invalid, rule));
    }
    let member = draft.state.cluster_named(&add.name).cloned();
    let (trust_domain, exports, imports) = match &member {
        Some(member) => as_it_is(member, add)?,
        None => as_stated(&draft.state, add)?,
    };
    put(
        draft,
        Admission {
            cluster: add.name.clone(),
            trust_domain,
            exports,
            imports,
            issuer: add.issuer.clone(),
            subject: add.subject.clone(),
            put: draft.state.meta.revision.index,
            used: known.as_ref().map(|k| k.used.clone()).unwrap_or_default(),
            last_joined: known.and_then(|k| k.last_joined),
        },
    );
    Ok(Reply::Done)
}

/// What a member is was fixed when it joined.
fn as_it_is(member: &Cluster, add: &AddCluster) -> Result<(TrustDomain, Grant, Grant), Refusal> {
    let differs = add.trust_domain.as_ref().is_some_and(|d| *d != member.trust_domain)
        || add.exports.as_ref().is_some_and(|g| *g != member.exports)
        || add.imports.as_ref().is_some_and(|g| *g != member.imports);
    if differs {
        let rule = format!(
            "cluster {} is a member with trust domain {}, exports {} and imports {}, which do not change while it is one: \
             state none of them, or remove it first with `sealane cluster remove {}`",
            member.name, member.trust_domain, member.exports, member.imports, member.name
        );
        return Err(Refusal::new(RefusalCode::Exists, rule));
    }
    Ok((member.trust_domain.clone(), member.exports.clone(), member.imports.clone()))
}

fn as_stated(state: &State, add: &AddCluster) -> Result<(TrustDomain, Grant, Grant), Refusal> {
    let trust_domain = match &add.trust_domain {
        Some(stated) => stated.clone(),
        None => TrustDomain::parse(&format!("{}.{}", add.name, state.meta.trust_domain))
            .map_err(|e| Refusal::new(RefusalCode::Invalid, e.to_string()))?,
    };
    join::free(state, &add.name, &trust_domain)?;
    let taken = |other: &&Arc<Admission>| other.trust_domain == trust_domain && other.cluster != add.name;
    if let Some(other) = state.admissions.values().find(taken) {
        let rule =
            format!("trust domain {trust_domain} is kept for cluster {}: choose another", other.cluster);
        return Err(Refusal::new(RefusalCode::Exists, rule));
    }
    let exports = add.exports.clone().unwrap_or_else(Grant::exports);
    let imports = add.imports.clone().unwrap_or_else(Grant::all);
    sound_grant(&exports)?;
    sound_grant(&imports)?;
    Ok((trust_domain, exports, imports))
}

fn put(draft: &mut Draft, admission: Admission) {
    draft.dirty.insert(RecordKey::Admission(admission.cluster.clone()));
    draft.state.admissions.insert(admission.cluster.clone(), Arc::new(admission));
}

/// Takes back that a cluster may join. Says whether it might.
pub(super) fn forget(draft: &mut Draft, name: &ClusterName) -> bool {
    let known = draft.state.admissions.remove(name).is_some();
    if known {
        draft.dirty.insert(RecordKey::Admission(name.clone()));
    }
    known
}

/// A cluster has one way in.
pub(super) fn not_added(state: &State, name: &ClusterName) -> Result<(), Refusal> {
    if !state.admissions.contains_key(name) {
        return Ok(());
    }
    let rule = format!(
        "cluster {name} was added to join by tokens of its issuer, and needs no join token; `sealane cluster remove {name}` \
         takes that back"
    );
    Err(Refusal::new(RefusalCode::Exists, rule))
}

/// Takes a cluster in, or in again: a member gets another certificate and stays what it is.
pub(super) fn join(draft: &mut Draft, proof: &Proof, key: Hash, not_after: Millis) -> Result<Reply, Refusal> {
    let admission = admitted(draft, proof, &key)?;
    let certificate = CertificateRecord { key, not_after };
    let (id, trust_domain) = match draft.state.cluster_named(&proof.cluster).cloned() {
        Some(member) => {
            same_cluster(&member, proof.uid.as_ref())
                .map_err(|other| Refusal::new(RefusalCode::Exists, other.to_string()))?;
            if member.certificate != certificate {
                draft.edit(member.id, None, |cluster| cluster.certificate = certificate);
            }
            (member.id, member.trust_domain.clone())
        }
        None => {
            let Admission { cluster, trust_domain, exports, imports, .. } = &*admission;
            join::free(&draft.state, cluster, trust_domain)?;
            let id = join::add_cluster(draft, cluster, trust_domain, (exports, imports), certificate);
            (id, trust_domain.clone())
        }
    };
    state_uid(draft, id, proof.uid.as_ref());
    if !admission.used.contains_key(&proof.token) {
        note_use(draft, Admission::clone(&admission), proof, key)?;
    }
    Ok(Reply::Joined(Joined::Cluster { id, name: proof.cluster.clone(), trust_domain }))
}

fn note_use(draft: &mut Draft, mut admission: Admission, proof: &Proof, key: Hash) -> Result<(), Refusal> {
    let now = draft.now();
    admission.used.retain(|_, used| used.expires.plus(TOKEN_SKEW_MS) > now);
    admission.used.insert(proof.token, UsedToken { key, expires: proof.expires });
    if admission.used.len() > MAX_USED {
        let rule = format!(
            "cluster {} has joined by {MAX_USED} tokens that have not run out yet: find out why it joins that often, and \
             try again when they have",
            proof.cluster
        );
        return Err(Refusal::new(RefusalCode::Invalid, rule));
    }
    admission.last_joined = Some(now);
    put(draft, admission);
    Ok(())
}

/// The admission of a proof, if it still admits and the token is no other key's.
fn admitted(draft: &Draft, proof: &Proof, key: &Hash) -> Result<Arc<Admission>, Refusal> {
    let name = &proof.cluster;
    let known = draft.state.admissions.get(name).filter(|admission| admission.put == proof.admission);
    let Some(admission) = known else {
        let rule = format!(
            "cluster {name} may not join by a token of its issuer (any more): `sealane cluster add {name}` lets it; if it was \
             changed just now, try again"
        );
        return Err(Refusal::new(RefusalCode::NotFound, rule));
    };
    if proof.expires.plus(TOKEN_SKEW_MS) <= draft.now() {
        return Err(Refusal::new(RefusalCode::Expired, "the token has run out: show a newer one"));
    }
    match admission.used.get(&proof.token) {
        Some(used) if used.key != *key => {
            let rule = "the token was used by another key: wait for the next one of its issuer, and if it was not this \
                        cluster's agent, find out who used it";
            Err(Refusal::new(RefusalCode::Consumed, rule))
        }
        _ => Ok(admission.clone()),
    }
}

/// Whether whoever states this UID can be the member. Where either does not say, nothing is known.
pub(super) fn same_cluster(member: &Cluster, stated: Option<&ClusterUid>) -> Result<(), OtherCluster> {
    match (&member.uid, stated) {
        (Some(known), Some(stated)) if known != stated => {
            Err(OtherCluster { name: member.name.clone(), known: known.clone(), stated: stated.clone() })
        }
        _ => Ok(()),
    }
}

/// Records which Kubernetes cluster a member is, where that was not known yet.
pub(super) fn state_uid(draft: &mut Draft, id: ClusterId, stated: Option<&ClusterUid>) {
    let unknown = draft.state.clusters.get(&id).is_some_and(|cluster| cluster.uid.is_none());
    if let Some(stated) = stated.filter(|_| unknown) {
        draft.edit(id, None, |cluster| cluster.uid = Some(stated.clone()));
    }
}

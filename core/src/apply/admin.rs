//! Administrators' commands: tokens and removal. Each runs once under its key, whatever is retried, and however late:
//! the answers of the latest are kept, and what was issued before those is not run.

use super::draft::Draft;
use super::{issuer, join};
use crate::command::{ADMIN_SKEW_MS, AdminAction, Refusal, RefusalCode, Reply, issued};
use crate::events::ClusterFact;
use crate::identity::{ClusterId, ServerId};
use crate::name::{ClusterName, ServiceAccount};
use crate::state::{ADMIN_RESULTS, AdminKey, AdminResult, Grant, Hash, RecordKey, Token, TokenScope};
use crate::time::Millis;
use std::sync::Arc;

/// The most tokens kept at once, consumed ones included.
const MAX_TOKENS: usize = 10_000;
/// How long a token is kept after its expiry, so that its consumer may retry and others learn that it ran out.
const TOKEN_KEPT_MS: u64 = 24 * 3600 * 1000;

/// Runs the action, or answers again what this key was answered.
pub(super) fn once(draft: &mut Draft, by: &ServiceAccount, key: [u8; 16], action: &AdminAction) -> Reply {
    let own = |kept: &&Arc<AdminResult>| kept.key == key && kept.by == *by;
    if let Some(kept) = draft.state.admin_results.values().find(own) {
        return kept.reply.clone();
    }
    if issued(&key) < draft.state.meta.admin_floor {
        let rule = "the command was issued so long ago that it is not known any more whether it was done: nothing was \
                    changed now; look, and if it is still to be done, issue it anew";
        return Reply::Refused(Refusal::new(RefusalCode::Forgotten, rule));
    }
    let reply = match draft.attempt(|draft| run(draft, action)) {
        Ok(reply) => reply,
        Err(refusal) => Reply::Refused(refusal),
    };
    keep(draft, AdminResult { by: by.clone(), key, reply: reply.clone() });
    reply
}

fn keep(draft: &mut Draft, result: AdminResult) {
    let place = AdminKey(draft.state.meta.revision.index);
    draft.state.admin_results.insert(place, Arc::new(result));
    draft.dirty.insert(RecordKey::AdminResult(place));
    while draft.state.admin_results.len() > ADMIN_RESULTS {
        let Some(oldest) = draft.state.admin_results.get_min().map(|(key, _)| *key) else { return };
        if let Some(evicted) = draft.state.admin_results.remove(&oldest) {
            // A clock that is far ahead must not shut everybody else out.
            let issued = issued(&evicted.key).min(draft.now().plus(ADMIN_SKEW_MS));
            let floor = draft.state.meta.admin_floor.max(issued.plus(1));
            draft.state.meta.admin_floor = floor;
        }
        draft.dirty.insert(RecordKey::AdminResult(oldest));
    }
}

fn run(draft: &mut Draft, action: &AdminAction) -> Result<Reply, Refusal> {
    match action {
        AdminAction::CreateToken { hash, scope, expires } => create_token(draft, *hash, scope, *expires),
        AdminAction::RemoveCluster { name } => remove_cluster(draft, name),
        AdminAction::AddCluster(add) => issuer::add(draft, add),
    }
}

fn create_token(
    draft: &mut Draft,
    hash: Hash,
    scope: &TokenScope,
    expires: Millis,
) -> Result<Reply, Refusal> {
    forget_tokens(draft);
    if expires <= draft.now() {
        return Err(Refusal::new(
            RefusalCode::Invalid,
            "the token would be expired already: choose a later expiry",
        ));
    }
    if draft.state.tokens.contains_key(&hash) {
        return Err(Refusal::new(
            RefusalCode::Exists,
            "a token with this secret exists already: make another secret",
        ));
    }
    if draft.state.tokens.len() >= MAX_TOKENS {
        let rule = format!("{MAX_TOKENS} tokens are open already: wait until some expire");
        return Err(Refusal::new(RefusalCode::Invalid, rule));
    }
    let scope = match scope {
        TokenScope::Cluster { name, trust_domain, exports, imports } => {
            sound_grant(exports)?;
            sound_grant(imports)?;
            join::free(&draft.state, name, trust_domain)?;
            issuer::not_added(&draft.state, name)?;
            scope.clone()
        }
        TokenScope::Server { id } => TokenScope::Server { id: server_id(draft, *id)? },
    };
    let server = match &scope {
        TokenScope::Server { id } => Some(*id),
        TokenScope::Cluster { .. } => None,
    };
    draft.state.tokens.insert(hash, Arc::new(Token { hash, scope, expires, consumed: None }));
    draft.dirty.insert(RecordKey::Token(hash));
    Ok(Reply::TokenCreated { server })
}

pub(super) fn sound_grant(grant: &Grant) -> Result<(), Refusal> {
    grant.flaw().map_or(Ok(()), |flaw| Err(Refusal::new(RefusalCode::Invalid, flaw)))
}

/// The id of the server to be: the next one, or the wanted one when no server ever had it.
fn server_id(draft: &mut Draft, wanted: ServerId) -> Result<ServerId, Refusal> {
    let next = draft.state.meta.next_server;
    let id = if wanted.0 == 0 { next } else { wanted.0 };
    if id < next {
        let rule = format!(
            "server id {id} was given before and ids are never reused: leave the id to the federation"
        );
        return Err(Refusal::new(RefusalCode::Exists, rule));
    }
    draft.state.meta.next_server = id.saturating_add(1);
    Ok(ServerId(id))
}

fn forget_tokens(draft: &mut Draft) {
    let now = draft.now();
    drop_tokens(draft, |token| token.expires.plus(TOKEN_KEPT_MS) < now);
}

/// Says how many there were.
pub(super) fn drop_tokens(draft: &mut Draft, gone: impl Fn(&Token) -> bool) -> usize {
    let hashes: Vec<Hash> = draft.state.tokens.values().filter(|t| gone(t)).map(|t| t.hash).collect();
    for hash in &hashes {
        draft.state.tokens.remove(hash);
        draft.dirty.insert(RecordKey::Token(*hash));
    }
    hashes.len()
}

fn remove_cluster(draft: &mut Draft, name: &ClusterName) -> Result<Reply, Refusal> {
    let added = issuer::forget(draft, name);
    let Some(id) = draft.state.by_name.get(name).copied() else {
        if added {
            return Ok(Reply::Done);
        }
        return Err(Refusal::new(RefusalCode::NotFound, format!("there is no cluster {name}")));
    };
    let services: Vec<_> = draft.state.services_of(id).cloned().collect();
    for service in &services {
        draft.remove_shard(service, id);
    }
    drop_tokens(draft, |token| token.consumed.as_ref().is_some_and(|c| c.cluster == Some(id)));
    forget_lanes_to(draft, id);
    if let Some(cluster) = draft.state.clusters.remove(&id) {
        draft.state.by_name.remove(&cluster.name);
        draft.state.by_trust_domain.remove(&cluster.trust_domain);
        draft.events.lanes.extend(cluster.lanes.keys().map(|target| (id, *target)));
    }
    draft.dirty.insert(RecordKey::Cluster(id));
    draft.events.fact(id, ClusterFact::Membership);
    Ok(Reply::Done)
}

fn forget_lanes_to(draft: &mut Draft, target: ClusterId) {
    let reporters: Vec<ClusterId> =
        draft.state.clusters.values().filter(|c| c.lanes.contains_key(&target)).map(|c| c.id).collect();
    for reporter in reporters {
        draft.edit(reporter, None, |cluster| {
            cluster.lanes.remove(&target);
        });
        draft.events.lanes.insert((reporter, target));
    }
}

//! Catalog writes: one cluster's own facts, under its session, once each.

use super::draft::Draft;
use super::{authority, endpoints, exports, profile};
use crate::command::{CatalogChange, CatalogError, CatalogResult, Refusal, Reply};
use crate::identity::{ClusterId, Principal, SessionId};
use crate::state::Session;
use std::sync::Arc;

pub(super) fn write(
    draft: &mut Draft,
    by: Option<&Principal>,
    id: ClusterId,
    session: SessionId,
    sequence: u64,
    changes: &[CatalogChange],
) -> Result<Reply, Refusal> {
    let Some(cluster) = draft.cluster(id) else {
        return Ok(Reply::Catalog(Err(CatalogError::NotMember)));
    };
    authority::agent_of(by, &cluster)?;
    let Some(current) = cluster.session.as_ref().filter(|current| current.id == session) else {
        return Ok(Reply::Catalog(Err(CatalogError::Fenced)));
    };
    match due(current, sequence) {
        Ok(Some(again)) => Ok(Reply::Catalog(Ok(again))),
        Err(refused) => Ok(Reply::Catalog(Err(refused))),
        Ok(None) => {
            let result = run(draft, id, changes);
            let kept = Arc::new(result.clone());
            on_session(draft, id, |session| {
                session.sequence = sequence;
                session.last_result = kept;
            });
            Ok(Reply::Catalog(Ok(result)))
        }
    }
}

/// Whether a write is due (`None`), was answered already, or does not follow.
fn due(session: &Session, sequence: u64) -> Result<Option<CatalogResult>, CatalogError> {
    let expected = session.sequence.saturating_add(1);
    match sequence {
        got if got == expected => Ok(None),
        got if got > expected => Err(CatalogError::Gap { expected, got }),
        got if got == session.sequence && got > 0 => Ok(Some((*session.last_result).clone())),
        _ => Err(CatalogError::Expired),
    }
}

fn run(draft: &mut Draft, id: ClusterId, changes: &[CatalogChange]) -> CatalogResult {
    let mut result = CatalogResult::default();
    for (place, change) in (0u32..).zip(changes) {
        if let Err(refusal) = one(draft, id, change) {
            result.refused.push((place, refusal));
        }
    }
    result
}

/// One change. Each checks all before it changes anything (lanes alone keep what is sound; see there).
fn one(draft: &mut Draft, id: ClusterId, change: &CatalogChange) -> Result<(), Refusal> {
    match change {
        CatalogChange::PutProfile { network, locality, probes } => {
            profile::put(draft, id, network, locality, probes)
        }
        CatalogChange::PutExport { service, export } => exports::put(draft, id, service, export),
        CatalogChange::RemoveExport { service } => {
            draft.remove_shard(service, id);
            Ok(())
        }
        CatalogChange::PutEndpoints { service, endpoints } => endpoints::put(draft, id, service, endpoints),
        CatalogChange::RemoveEndpoints { service, ids } => {
            endpoints::keep(draft, id, service, |endpoint| !ids.contains(endpoint));
            Ok(())
        }
        CatalogChange::RetainEndpoints { service, ids } => {
            endpoints::keep(draft, id, service, |endpoint| ids.contains(endpoint));
            Ok(())
        }
        CatalogChange::PutGateways { gateways } => profile::put_gateways(draft, id, gateways),
        CatalogChange::PutBundle { bundle } => profile::put_bundle(draft, id, bundle),
        CatalogChange::PutInterest { namespaces } => profile::put_interest(draft, id, namespaces),
        CatalogChange::PutLanes { lanes } => profile::put_lanes(draft, id, lanes),
        CatalogChange::RemoveLanes { targets } => {
            profile::remove_lanes(draft, id, targets);
            Ok(())
        }
        CatalogChange::Synced { services } => {
            exports::retain(draft, id, services);
            on_session(draft, id, |session| session.synced = true);
            Ok(())
        }
    }
}

fn on_session(draft: &mut Draft, id: ClusterId, change: impl FnOnce(&mut Session)) {
    draft.edit(id, None, |cluster| {
        if let Some(session) = cluster.session.as_mut() {
            change(session);
        }
    });
}

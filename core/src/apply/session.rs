//! Sessions and leases: who writes a catalog now, and whether it was heard from.

use super::draft::Draft;
use super::{authority, issuer};
use crate::command::{CatalogResult, Refusal, Reply, SessionError};
use crate::events::ClusterFact;
use crate::identity::{ClusterId, InstanceId, Principal, SessionId};
use crate::name::ClusterUid;
use crate::state::{Cluster, Lease, Session};
use crate::time::Millis;
use std::sync::Arc;

/// How long a fenced instance may not reopen: one lease TTL.
pub const FENCE_MS: u64 = 5_000;

pub(super) fn open(
    draft: &mut Draft,
    by: Option<&Principal>,
    id: ClusterId,
    (session, instance): (SessionId, InstanceId),
    uid: Option<&ClusterUid>,
) -> Result<Reply, Refusal> {
    let Some(cluster) = draft.cluster(id) else {
        return Ok(Reply::Session(Err(SessionError::NotMember)));
    };
    authority::agent_of(by, &cluster)?;
    if let Err(other) = issuer::same_cluster(&cluster, uid) {
        return Ok(Reply::Session(Err(SessionError::OtherCluster(other))));
    }
    if cluster.session.as_ref().is_some_and(|current| current.id == session) {
        return Ok(Reply::Session(Ok(())));
    }
    let now = draft.now();
    if let Some(current) = cluster.session.as_ref().filter(|c| c.instance == instance && session < c.id) {
        // A late copy of what opened an older session of this process: nobody waits for its answer.
        let since_ms = now.since(current.opened);
        return Ok(Reply::Session(Err(SessionError::Fenced { by: instance, since_ms })));
    }
    let fenced = match fence(&cluster, instance, now) {
        Ok(fenced) => fenced,
        Err(held) => {
            refuse(draft, id, instance);
            return Ok(Reply::Session(Err(held)));
        }
    };
    let refused = cluster.session.as_ref().and_then(|current| current.refused);
    issuer::state_uid(draft, id, uid);
    start(
        draft,
        &cluster,
        Session {
            id: session,
            instance,
            opened: now,
            synced: false,
            sequence: 0,
            last_result: Arc::new(CatalogResult::default()),
            fenced,
            closed: false,
            refused: refused.filter(|(refused, _)| *refused != instance),
        },
    );
    Ok(Reply::Session(Ok(())))
}

/// Whom the new session shuts out, or why it is shut out itself.
///
/// Two agents with a cloned disk would fence each other for ever if the newer one always won. So the holder stays: it is
/// replaced only when its stream ended (a restarted agent) or its lease lapsed.
fn fence(
    cluster: &Cluster,
    instance: InstanceId,
    now: Millis,
) -> Result<Option<(InstanceId, Millis)>, SessionError> {
    let Some(current) = &cluster.session else { return Ok(None) };
    if current.instance == instance {
        return Ok(current.fenced);
    }
    let held = !current.closed && matches!(cluster.lease, Lease::Live { .. });
    let fenced = current.fenced.is_some_and(|(fenced, at)| fenced == instance && now.since(at) < FENCE_MS);
    if held || fenced {
        return Err(SessionError::Fenced { by: current.instance, since_ms: now.since(current.opened) });
    }
    Ok(Some((current.instance, now)))
}

/// Keeps for the status who was refused, and since when: asking again changes nothing.
fn refuse(draft: &mut Draft, id: ClusterId, instance: InstanceId) {
    let now = draft.now();
    draft.edit(id, None, |cluster| {
        if let Some(session) = cluster.session.as_mut().filter(|s| s.refused.is_none_or(|r| r.0 != instance))
        {
            session.refused = Some((instance, now));
        }
    });
}

fn start(draft: &mut Draft, cluster: &Cluster, session: Session) {
    let id = cluster.id;
    draft.events.lanes.extend(cluster.lanes.keys().map(|target| (id, *target)));
    draft.edit(id, None, |cluster| {
        cluster.session = Some(session);
        cluster.lanes.clear();
    });
    enliven(draft, cluster);
}

pub(super) fn lapse(draft: &mut Draft, id: ClusterId, session: SessionId) -> Reply {
    let live = current(draft, id, session).filter(|cluster| matches!(cluster.lease, Lease::Live { .. }));
    if live.is_some() {
        let since = draft.now();
        draft.edit(id, Some(ClusterFact::Lease), |cluster| cluster.lease = Lease::Lapsed { since });
    }
    Reply::Done
}

pub(super) fn close(draft: &mut Draft, id: ClusterId, session: SessionId) -> Reply {
    let open = current(draft, id, session).and_then(|cluster| cluster.session.clone()).filter(|s| !s.closed);
    if let Some(session) = open {
        draft.edit(id, None, |cluster| cluster.session = Some(Session { closed: true, ..session }));
    }
    Reply::Done
}

pub(super) fn revive(draft: &mut Draft, id: ClusterId, session: SessionId) -> Reply {
    if let Some(cluster) = current(draft, id, session) {
        enliven(draft, &cluster);
    }
    Reply::Done
}

fn enliven(draft: &mut Draft, cluster: &Cluster) {
    if !matches!(cluster.lease, Lease::Live { .. }) {
        let since = draft.now();
        draft.edit(cluster.id, Some(ClusterFact::Lease), |cluster| cluster.lease = Lease::Live { since });
    }
}

fn current(draft: &Draft, id: ClusterId, session: SessionId) -> Option<Arc<Cluster>> {
    draft.cluster(id).filter(|cluster| cluster.session.as_ref().is_some_and(|current| current.id == session))
}

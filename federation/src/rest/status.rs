//! `/status` and `/servers`.

use super::cluster::standing;
use super::types::{self, ServerRole};
use super::{Reading, STALE, count, millis};
use crate::consensus::status::{RaftStatus, Role};
use axum::Json;
use sealane_core::command::VERSION;
use sealane_core::identity::ServerId;
use sealane_core::liveness;
use sealane_core::state::State;
use sealane_trust::clock;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Certificates are warned about when they end sooner.
const SOON_MS: u64 = 24 * 3600 * 1000;

/// For how long the leader may hear nothing of a server that tells it something every second.
const UNHEARD: Duration = Duration::from_secs(3);

/// How this server and the federation fare.
#[utoipa::path(get, path = "/api/v1/status", params(super::openapi::Consistent),
    responses((status = 200, body = types::Status), (status = "4XX", body = types::ApiError),
              (status = 503, body = types::ApiError)))]
pub(super) async fn status(reading: Reading) -> Json<types::Status> {
    let suspected = reading.serving.leasing.suspected().is_some();
    let standings = standings(&reading.facts);
    let warnings = warnings(&reading, suspected, &standings);
    Json(types::Status {
        federation: reading.serving.federation.to_string(),
        trust_domain: reading.serving.trust_domain.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        server: reading.serving.id.0,
        role: own_role(&reading.raft),
        term: reading.raft.term,
        applied: reading.raft.applied,
        commit: reading.raft.commit,
        suspected_self: suspected,
        servers: count(members(&reading.raft, &reading.facts).len()),
        clusters: standings
            .into_iter()
            .map(|(standing, names)| (standing.to_owned(), count(names.len())))
            .collect(),
        services: count(reading.facts.services().len()),
        warnings,
        freshness: reading.freshness,
    })
}

/// The servers and how far each has come.
#[utoipa::path(get, path = "/api/v1/servers", params(super::openapi::Consistent),
    responses((status = 200, body = types::Servers), (status = "4XX", body = types::ApiError),
              (status = 503, body = types::ApiError)))]
pub(super) async fn servers(reading: Reading) -> Json<types::Servers> {
    let servers = members(&reading.raft, &reading.facts).into_iter();
    let servers = servers.map(|id| server(id, &reading)).collect();
    Json(types::Servers { freshness: reading.freshness, servers })
}

fn members(raft: &RaftStatus, state: &State) -> BTreeSet<ServerId> {
    raft.voters.iter().chain(&raft.learners).chain(state.servers.keys()).copied().collect()
}

fn own_role(raft: &RaftStatus) -> ServerRole {
    match raft.role {
        Role::Leader => ServerRole::Leader,
        Role::PreCandidate | Role::Candidate => ServerRole::Candidate,
        Role::Follower if raft.voters.contains(&raft.id) => ServerRole::Follower,
        Role::Follower => ServerRole::Learner,
    }
}

fn server(id: ServerId, reading: &Reading) -> types::Server {
    let raft = &reading.raft;
    let heard = reading.serving.leasing.server_heard(id);
    let recorded = reading.facts.servers.get(&id);
    let progress = raft.progress.get(&id).filter(|_| raft.is_leader());
    let role = match () {
        () if id == raft.id => own_role(raft),
        () if raft.leader == Some(id) => ServerRole::Leader,
        () if raft.learners.contains(&id) => ServerRole::Learner,
        () if raft.leader.is_some() && raft.voters.contains(&id) => ServerRole::Follower,
        () => ServerRole::Unknown,
    };
    let own = (id == raft.id).then_some(raft.last);
    types::Server {
        id: id.0,
        address: recorded.map(|s| s.address.clone()),
        status_address: recorded.map(|s| s.status_address.clone()),
        role,
        voter: raft.voters.contains(&id),
        matched: own.or(progress.map(|p| p.matched)),
        reachable: reachable(id, reading),
        last_heard_ms: heard.map(|at| millis(at.elapsed())),
        snapshot: progress.map(|p| p.snapshot),
    }
}

/// Whether a server is heard of; only the leader knows of others.
fn reachable(id: ServerId, reading: &Reading) -> Option<bool> {
    let raft = &reading.raft;
    if id == raft.id {
        return Some(true);
    }
    let progress = raft.progress.get(&id).filter(|_| raft.is_leader())?;
    // Raft forgets whom it heard at each check of the quorum, so that its word alone would be wrong now and then.
    let lately = reading.serving.leasing.server_heard(id).is_some_and(|at| at.elapsed() < UNHEARD);
    Some(progress.active || lately)
}

fn standings(state: &State) -> BTreeMap<&'static str, Vec<String>> {
    let mut all = BTreeMap::from([("live", Vec::new()), ("suspect", Vec::new()), ("withdrawn", Vec::new())]);
    for cluster in state.clusters.values() {
        let standing = match standing(&liveness::verdict(state, cluster.id)) {
            types::Standing::Joining => "joining",
            types::Standing::Live => "live",
            types::Standing::Suspect => "suspect",
            types::Standing::Withdrawn => "withdrawn",
        };
        all.entry(standing).or_default().push(cluster.name.to_string());
    }
    all
}

fn warnings(
    reading: &Reading,
    suspected: bool,
    standings: &BTreeMap<&'static str, Vec<String>>,
) -> Vec<String> {
    let mut all = Vec::new();
    let raft = &reading.raft;
    if raft.ticked.elapsed() > STALE {
        all.push("this server's replica stands still: its disk may be slow".to_owned());
    }
    if raft.leader.is_none() {
        all.push("there is no leader: nothing can be written, and this answer may be old".to_owned());
    }
    if suspected {
        all.push(
            "most clusters went silent at once, so the servers suspect themselves and let no lease lapse; if the \
             clusters are gone indeed, confirm it by `sealane cluster confirm-lapses`"
                .to_owned(),
        );
    }
    for (standing, names) in
        standings.iter().filter(|(standing, names)| **standing != "live" && !names.is_empty())
    {
        let why =
            if *standing == "joining" { " (joined, and no agent has opened a session yet)" } else { "" };
        all.push(format!("{standing}: {}{why}", names.join(", ")));
    }
    let silent = raft.progress.keys().filter(|id| reachable(**id, reading) == Some(false));
    all.extend(silent.map(|id| format!("server {id} is not heard of")));
    let (holds, understood) = (reading.facts.meta.cluster_version, VERSION);
    if reading.facts.is_founded() && holds < understood {
        all.push(format!(
            "the federation is at command version {holds}, and this server understands {understood}: once every server is \
             upgraded, run `sealane server raise-version`; older builds can not come back after it"
        ));
    }
    certificates(reading, &mut all);
    all
}

fn certificates(reading: &Reading, all: &mut Vec<String>) {
    let soon = clock::now().plus(SOON_MS);
    let pki = &reading.serving.pki;
    if pki.identity.current().not_after < soon {
        all.push("this server's certificate ends within a day and was not renewed".to_owned());
    }
    if pki.issuer.not_after() < soon.plus(29 * SOON_MS) {
        all.push("this server's issuer ends within 30 days: let the server join anew".to_owned());
    }
    for cluster in reading.facts.clusters.values().filter(|c| c.certificate.not_after < soon) {
        all.push(format!("the certificate of cluster {}'s agent ends within a day", cluster.name));
    }
}

//! A server's own place in the federation: its addresses recorded, its vote asked for.

use super::directory::{Directory, Identity};
use super::recover::FORGET;
use crate::rpc::Serving;
use sealane_core::command::Action;
use sealane_core::identity::{Principal, ServerId};
use sealane_core::state::State;
use sealane_proto::servers::v1::AddServerRequest;
use sealane_proto::servers::v1::servers_client::ServersClient;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tonic::Code;

/// The pause between two rounds of asking.
const PAUSE: Duration = Duration::from_millis(500);
/// How long one server may take: the leader waits until this one caught up.
const PATIENCE: Duration = Duration::from_secs(65);

/// For how long a server that votes no more may be about to be taken out: its record goes after its vote.
const TAKEN_OUT: Duration = Duration::from_secs(3);

/// Sees to it that this server votes and that its addresses are recorded, for as long as it runs; returns when the
/// federation refuses it, or has taken it out: then it says why, for the server has no use.
pub(super) async fn settle(serving: Serving, directory: Directory, refused: watch::Sender<Option<String>>) {
    let me = directory.identity.clone();
    let mut said = None;
    loop {
        // First of all, so that the replica has read its own disk before it is asked.
        sleep(PAUSE).await;
        let status = serving.replica.status().borrow().clone();
        let voter = status.voters.contains(&serving.id);
        if voter && status.leader.is_some() {
            let state = serving.state();
            if recorded(&state, &me) {
                if forget_others(&serving, &directory, &state).await {
                    votes(&serving).await;
                }
            } else if let Err(error) = record(&serving, &me).await {
                tracing::debug!(error, "this server's addresses are not recorded yet");
            }
        } else if !voter {
            match ask_in(&serving, &me).await {
                Asked::Taken => {}
                Asked::Refused(why) => {
                    refused.send_replace(Some(why));
                    return;
                }
                Asked::NotYet(why) => {
                    if said.as_ref() != Some(&why) {
                        tracing::warn!(reason = why, "not taken into the federation yet; asking on");
                        said = Some(why);
                    }
                }
            }
        }
    }
}

/// Waits until this server votes no more. It would answer on with what it knew last, and call itself ready.
async fn votes(serving: &Serving) {
    let mut status = serving.replica.status();
    if status.wait_for(|s| !s.voters.contains(&serving.id)).await.is_err() {
        // The replica ended, and with it everything.
        std::future::pending::<()>().await;
    }
    tracing::warn!("this server votes no more");
    sleep(TAKEN_OUT).await;
}

fn recorded(state: &State, me: &Identity) -> bool {
    let known = state.servers.get(&me.server);
    known.is_some_and(|s| s.address == me.address && s.status_address == me.status_address)
}

async fn record(serving: &Serving, me: &Identity) -> Result<(), String> {
    let (address, status_address) = (me.address.clone(), me.status_address.clone());
    let action = Action::PutServer { id: me.server, address, status_address };
    let written = serving.writer.write(Some(Principal::Server(me.server)), action).await;
    written.map(drop).map_err(|e| e.to_string())
}

/// After a recovery: the records of servers that are no members any more.
async fn forget_others(serving: &Serving, directory: &Directory, state: &State) -> bool {
    let word = directory.path.join(FORGET);
    if !word.exists() {
        return true;
    }
    for id in state.servers.keys().filter(|id| **id != serving.id) {
        let action = Action::RemoveServer { id: *id };
        if serving.writer.write(Some(Principal::Server(serving.id)), action).await.is_err() {
            return false;
        }
        tracing::info!(server = %id, "server forgotten after the recovery");
    }
    std::fs::remove_file(&word).is_ok()
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Taken,
    Refused(String),
    NotYet(String),
}

/// Asks every server that is known to take this one in; the leader among them does.
async fn ask_in(serving: &Serving, me: &Identity) -> Asked {
    let recorded = serving.state().servers.keys().copied().collect::<BTreeSet<ServerId>>();
    let everyone = recorded.into_iter().chain(me.peers.keys().copied()).filter(|id| *id != serving.id);
    let mut reason = "no other server is known".to_owned();
    for id in everyone.collect::<BTreeSet<_>>() {
        let Ok(channel) = serving.peers.channel(id) else { continue };
        let (address, status_address) = (me.address.clone(), me.status_address.clone());
        let request = AddServerRequest { address, status_address };
        match timeout(PATIENCE, ServersClient::new(channel).add_server(request)).await {
            Ok(Ok(_)) => return Asked::Taken,
            Ok(Err(status)) if status.code() == Code::PermissionDenied => {
                return Asked::Refused(status.message().to_owned());
            }
            Ok(Err(status)) => reason = format!("server {id}: {}", sealane_trust::grpc::causes(&status)),
            Err(_) => reason = format!("server {id}: no answer within {} s", PATIENCE.as_secs()),
        }
    }
    Asked::NotYet(reason)
}

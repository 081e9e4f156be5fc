//! What was acknowledged to a client is in every replica's log and state, for ever.

use super::{Property, Seen};
use crate::sim::client::{Catalog, Client, Role};
use crate::sim::machine::Op;
use sealane_core::endpoint::Endpoint;
use sealane_core::name::EndpointId;
use sealane_core::state::State;
use sealane_core::time::Millis;
use std::collections::BTreeMap;

/// See the file.
#[derive(Debug, Default)]
pub(super) struct AcknowledgedNeverLost {
    acknowledged: BTreeMap<u64, Op>,
    applied: BTreeMap<u64, Op>,
}

impl AcknowledgedNeverLost {
    fn at(&self, index: u64) -> Result<(), String> {
        match (self.acknowledged.get(&index), self.applied.get(&index)) {
            (Some(promised), Some(found)) if promised != found => {
                Err(format!("entry {index} was acknowledged as {promised:?}, and it is {found:?}"))
            }
            _ => Ok(()),
        }
    }
}

fn catalog_of(state: &State, agent: &crate::sim::client::Agent) -> Catalog {
    let own = state.shards.iter().filter(|((_, cluster), _)| *cluster == agent.cluster);
    own.map(|((service, _), shard)| {
        let endpoints = shard.endpoints.iter().map(|(id, endpoint)| (id.clone(), (**endpoint).clone()));
        (service.clone(), (shard.export.created, endpoints.collect()))
    })
    .collect()
}

/// An export in so many words: when it was made, and the endpoints with their ports, which are all different.
fn brief(export: Option<&(Millis, BTreeMap<EndpointId, Endpoint>)>) -> String {
    let Some((created, endpoints)) = export else { return "absent".to_owned() };
    let ports = endpoints.values().flat_map(|endpoint| endpoint.ports.values()).map(u16::to_string);
    format!("made {} with ports [{}]", created.0, ports.collect::<Vec<_>>().join(", "))
}

/// What a client was promised, in a replica's last state.
fn holds(server: u64, state: &State, client: &Client) -> Result<(), String> {
    if client.pending.is_some() {
        return Ok(());
    }
    match &client.role {
        Role::Agent(agent) => {
            let found = catalog_of(state, agent);
            let mut services = found.keys().chain(agent.wants.keys());
            match services.find(|service| found.get(*service) != agent.wants.get(*service)) {
                None => Ok(()),
                Some(service) => Err(format!(
                    "{service} of cluster {} is {} on server {server}, and {} was acknowledged",
                    agent.cluster,
                    brief(found.get(service)),
                    brief(agent.wants.get(service))
                )),
            }
        }
        Role::Admin(made) => match made.iter().find(|hash| !state.tokens.contains_key(*hash)) {
            Some(hash) => {
                Err(format!("token {:02x?} was acknowledged, and server {server} has it not", &hash[..4]))
            }
            None => Ok(()),
        },
        Role::Reader => Ok(()),
    }
}

impl Property for AcknowledgedNeverLost {
    fn name(&self) -> &'static str {
        "acknowledged-never-lost"
    }

    fn see(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Acknowledged { op, index } => {
                self.acknowledged.insert(*index, *op);
                self.at(*index)
            }
            Seen::Applied { noted, .. } => {
                self.applied.insert(noted.index, noted.op);
                self.at(noted.index)
            }
            Seen::End { finals, clients, .. } => {
                if let Some(index) = self.acknowledged.keys().find(|index| !self.applied.contains_key(index))
                {
                    return Err(format!("entry {index} was acknowledged, and no server ever applied it"));
                }
                let mut all = finals.iter().flat_map(|f| clients.iter().map(move |c| (f, c)));
                all.try_for_each(|(f, client)| holds(f.server, f.state.1.state(), client))
            }
            _ => Ok(()),
        }
    }
}

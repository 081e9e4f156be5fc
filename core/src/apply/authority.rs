//! Who may do what. The principal is the one that the receiving server authenticated.

use crate::command::{Refusal, RefusalCode};
use crate::identity::{Principal, ServerId};
use crate::name::ServiceAccount;
use crate::state::Cluster;

/// A decision of the servers themselves (also: on behalf of somebody who has no certificate yet).
pub(super) fn server(by: Option<&Principal>) -> Result<(), Refusal> {
    match by {
        None | Some(Principal::Server(_)) => Ok(()),
        Some(other) => Err(forbidden(other, "only a federation server may do this")),
    }
}

pub(super) fn this_server(by: Option<&Principal>, id: ServerId) -> Result<(), Refusal> {
    match by {
        Some(other @ Principal::Server(own)) if *own != id => {
            Err(forbidden(other, "a federation server may record its own addresses only"))
        }
        by => server(by),
    }
}

pub(super) fn server_or_admin(by: Option<&Principal>) -> Result<(), Refusal> {
    match by {
        Some(Principal::Admin(_)) => Ok(()),
        by => server(by),
    }
}

pub(super) fn admin(by: Option<&Principal>) -> Result<&ServiceAccount, Refusal> {
    match by {
        Some(Principal::Admin(name)) => Ok(name),
        Some(other) => Err(forbidden(other, "an administrator's certificate is needed")),
        None => Err(Refusal::new(RefusalCode::Forbidden, "an administrator's certificate is needed")),
    }
}

pub(super) fn agent(by: Option<&Principal>) -> Result<(), Refusal> {
    match by {
        Some(Principal::Agent(_)) => Ok(()),
        Some(other) => Err(forbidden(other, "only the agent of the cluster may do this")),
        None => Err(Refusal::new(RefusalCode::Forbidden, "only the agent of the cluster may do this")),
    }
}

/// The agent of this very cluster. The name is enough beside the id: a name is bound to one id at a time, and the
/// server took both from one certificate.
pub(super) fn agent_of(by: Option<&Principal>, cluster: &Cluster) -> Result<(), Refusal> {
    match by {
        Some(Principal::Agent(name)) if *name == cluster.name => Ok(()),
        Some(other) => {
            Err(forbidden(other, &format!("only the agent of cluster {} may do this", cluster.name)))
        }
        None => agent(None),
    }
}

fn forbidden(who: &Principal, rule: &str) -> Refusal {
    let who = match who {
        Principal::Server(id) => format!("server {id}"),
        Principal::Agent(name) => format!("the agent of cluster {name}"),
        Principal::Admin(name) => format!("administrator {name}"),
        Principal::Reader(name) => format!("reader {name}"),
    };
    Refusal::new(RefusalCode::Forbidden, format!("refused to {who}: {rule}"))
}

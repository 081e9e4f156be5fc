//! Federation servers: where they are.

use super::admin;
use super::draft::Draft;
use crate::command::{Refusal, RefusalCode, Reply};
use crate::identity::ServerId;
use crate::state::{RecordKey, Server, TokenScope};
use std::sync::Arc;

/// The longest `host:port`.
const MAX_ADDRESS: usize = 300;

pub(super) fn put(draft: &mut Draft, id: ServerId, address: &str, status: &str) -> Result<Reply, Refusal> {
    if id.0 == 0 {
        return Err(Refusal::new(RefusalCode::Invalid, "a server's id is never 0"));
    }
    for text in [address, status] {
        if text.is_empty() || text.len() > MAX_ADDRESS {
            let rule = format!("the address of server {id} must be 1 to {MAX_ADDRESS} bytes of HOST:PORT");
            return Err(Refusal::new(RefusalCode::Invalid, rule));
        }
    }
    let server = Server { id, address: address.to_owned(), status_address: status.to_owned() };
    if draft.state.servers.get(&id).is_some_and(|known| **known == server) {
        return Ok(Reply::Done);
    }
    draft.state.servers.insert(id, Arc::new(server));
    draft.state.meta.next_server = draft.state.meta.next_server.max(id.0.saturating_add(1));
    draft.dirty.insert(RecordKey::Server(id));
    Ok(Reply::Done)
}

pub(super) fn remove(draft: &mut Draft, id: ServerId) -> Result<Reply, Refusal> {
    // What admitted it would admit it again, and its certificate is good for years, even if it never ran.
    let dropped = admin::drop_tokens(draft, |token| token.scope == TokenScope::Server { id });
    if draft.state.servers.remove(&id).is_none() && dropped == 0 {
        return Err(Refusal::new(RefusalCode::NotFound, format!("there is no server {id}")));
    }
    draft.dirty.insert(RecordKey::Server(id));
    Ok(Reply::Done)
}

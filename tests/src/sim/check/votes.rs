//! A server votes once a term and never goes back to an earlier one, whatever happens to its process.

use super::{Property, Seen};
use sealane_proto::peer::v1::MessageType;
use std::collections::BTreeMap;

/// See the file.
#[derive(Debug, Default)]
pub(super) struct OneVoteATerm {
    /// Server and term to whom it voted for.
    votes: BTreeMap<(u64, u64), u64>,
    /// The highest term that each server promised to anyone.
    terms: BTreeMap<u64, u64>,
}

impl Property for OneVoteATerm {
    fn name(&self) -> &'static str {
        "one-vote-a-term"
    }

    fn see(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let Seen::Sent { from, message } = seen else { return Ok(()) };
        let kind = message.r#type();
        // What is only asked about promises nothing, and a forwarded read has no term.
        if matches!(
            kind,
            MessageType::RequestPreVote | MessageType::RequestPreVoteResponse | MessageType::ReadIndex
        ) {
            return Ok(());
        }
        let term = self.terms.entry(*from).or_insert(0);
        if message.term < *term {
            return Err(format!(
                "server {from} speaks in term {} and was in term {term} before",
                message.term
            ));
        }
        *term = message.term;
        let vote = match kind {
            MessageType::RequestVote => *from,
            MessageType::RequestVoteResponse if !message.reject => message.to,
            _ => return Ok(()),
        };
        let first = *self.votes.entry((*from, message.term)).or_insert(vote);
        if first == vote {
            return Ok(());
        }
        Err(format!("server {from} voted for server {first} and for server {vote} in term {}", message.term))
    }
}

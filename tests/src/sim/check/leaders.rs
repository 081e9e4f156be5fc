//! A term has one leader at most.

use super::{Property, Seen};
use sealane_proto::peer::v1::MessageType;
use std::collections::BTreeMap;

/// See the file.
#[derive(Debug, Default)]
pub(super) struct OneLeaderATerm {
    leaders: BTreeMap<u64, u64>,
}

impl Property for OneLeaderATerm {
    fn name(&self) -> &'static str {
        "one-leader-a-term"
    }

    fn see(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let Seen::Sent { from, message } = seen else { return Ok(()) };
        if !matches!(message.r#type(), MessageType::Append | MessageType::Heartbeat | MessageType::Snapshot) {
            return Ok(());
        }
        let leader = *self.leaders.entry(message.term).or_insert(*from);
        if leader == *from {
            return Ok(());
        }
        Err(format!("server {leader} and server {from} both lead in term {}", message.term))
    }
}

//! However often a command is sent and however late a copy comes, it has one effect.

use super::{Property, Seen};
use crate::sim::machine::Op;
use std::collections::BTreeMap;

/// See the file.
#[derive(Debug, Default)]
pub(super) struct OneEffect {
    effects: BTreeMap<Op, u64>,
}

impl Property for OneEffect {
    fn name(&self) -> &'static str {
        "one-effect"
    }

    fn see(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let Seen::Applied { noted, .. } = seen else { return Ok(()) };
        if noted.op == Op::Other || !noted.effect {
            return Ok(());
        }
        let first = *self.effects.entry(noted.op).or_insert(noted.index);
        if first == noted.index {
            return Ok(());
        }
        Err(format!("{:?} had an effect at entry {first} and again at entry {}", noted.op, noted.index))
    }
}

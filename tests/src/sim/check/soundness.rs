//! The state keeps the domain's own invariants, and so does every view of it.

use super::{Property, Seen};
use sealane_core::check::{check, check_view};
use sealane_core::compute::compute;
use sealane_core::state::State;

/// See the file.
#[derive(Debug)]
pub(super) struct StateIsSound;

fn flaw(state: &State) -> Option<String> {
    let views = state.clusters.keys().flat_map(|cluster| {
        let (view, report) = compute(state, *cluster);
        check_view(state, *cluster, &view, &report)
    });
    check(state).into_iter().chain(views).next().map(|note| note.to_string())
}

impl Property for StateIsSound {
    fn name(&self) -> &'static str {
        "state-is-sound"
    }

    fn see(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let flaw = match seen {
            Seen::Applied { noted, .. } => noted.notes.first().cloned(),
            Seen::End { finals, .. } => finals.iter().find_map(|f| flaw(f.state.1.state())),
            _ => None,
        };
        flaw.map_or(Ok(()), Err)
    }
}

//! What a process calls itself in the Lease, and which processes it knows to be dead.
//!
//! A process that was killed can not give the Lease back, and whoever comes after it would wait for its whole duration. But
//! who has the lock of a state directory knows that each process which had it before is gone, with its connections: the
//! kernel that gives out the lock took it from them. That is true of one kernel, since it was started; what another machine
//! wrote into the directory says nothing.

use crate::state::{StateDir, StateError};
use serde::{Deserialize, Serialize};

/// The kernel's name for the time since it was started.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// How many of those before are kept: one of the last holds the Lease, unless all of them died before they took it.
const KEPT: usize = 16;

/// The processes that had a state directory since the kernel was started, as they are kept in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processes {
    boot: String,
    names: Vec<String>,
}

/// A process, and those before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// What it calls itself: no other may have this name, not even one before it in the same pod.
    pub own: String,
    /// Processes that are gone.
    pub former: Vec<String>,
}

impl Name {
    /// One of its own for this process, which has the directory's lock.
    ///
    /// # Errors
    /// When the directory can not be written.
    pub fn take(state: &StateDir, replica: &str) -> Result<Self, StateError> {
        let boot = std::fs::read_to_string(BOOT).map(|boot| boot.trim().to_owned()).unwrap_or_default();
        // What can not be read is written anew, and nobody is known to be gone.
        let kept = state.processes().ok().flatten();
        let name =
            Name { own: format!("{replica}_{:08x}", rand::random::<u32>()), former: gone(kept, &boot) };
        let mut names = name.former.clone();
        names.push(name.own.clone());
        state.set_processes(&Processes { boot, names: last(names) })?;
        Ok(name)
    }
}

/// Who of those kept is gone for certain.
fn gone(kept: Option<Processes>, boot: &str) -> Vec<String> {
    match kept {
        Some(kept) if !boot.is_empty() && kept.boot == boot => last(kept.names),
        _ => Vec::new(),
    }
}

fn last(mut names: Vec<String>) -> Vec<String> {
    names.drain(..names.len().saturating_sub(KEPT));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_before_are_known_since_the_kernel_was_started_and_no_longer() {
        let kept = |boot: &str| Some(Processes { boot: boot.to_owned(), names: vec!["a_1".to_owned()] });
        assert_eq!(gone(kept("x"), "x"), ["a_1"]);
        assert_eq!(
            [gone(kept("x"), "y"), gone(kept(""), ""), gone(None, "x")],
            [const { Vec::<String>::new() }; 3]
        );
        let many = (0..20).map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(last(many.clone()), many[4..]);
    }

    #[test]
    fn each_process_of_a_directory_has_a_name_of_its_own_and_knows_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::create(directory.path()).unwrap();
        let first = Name::take(&state, "agent-0").unwrap();
        let second = Name::take(&state, "agent-0").unwrap();
        let third = Name::take(&state, "agent-0").unwrap();
        assert!(first.own.starts_with("agent-0_") && first.own != second.own);
        assert!(first.former.is_empty());
        assert_eq!(third.former, [first.own, second.own]);
    }
}

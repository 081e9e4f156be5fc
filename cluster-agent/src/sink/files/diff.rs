//! The difference between what is written and what should be. Pure.

use super::Output;
use std::collections::{BTreeMap, BTreeSet};

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action<'a> {
    /// Write this text.
    Write(&'a str, &'a str),
    /// Remove this file.
    Remove(&'a str),
}

/// The steps from one to the other, of these paths. Stale files go last: nothing is away for a moment that only moved.
#[must_use]
pub fn diff<'a>(
    paths: &'a BTreeSet<String>,
    written: &BTreeMap<String, String>,
    desired: &'a Output,
) -> Vec<Action<'a>> {
    let writes = paths.iter().filter_map(|path| {
        let text = desired.get(path).filter(|text| written.get(path) != Some(*text))?;
        Some(Action::Write(path, text))
    });
    let stale = |path: &&String| written.contains_key(*path) && !desired.contains_key(*path);
    let removals = paths.iter().filter(stale).map(|path| Action::Remove(path));
    writes.chain(removals).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_differences_are_steps() {
        let map = |files: &[(&str, &str)]| -> BTreeMap<String, String> {
            files.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let written = map(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let desired = map(&[("a", "1"), ("b", "2"), ("d", "1")]);
        let paths = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
        let all = paths(&["a", "b", "c", "d", "e"]);
        let steps = diff(&all, &written, &desired);
        assert_eq!(steps, [Action::Write("b", "2"), Action::Write("d", "1"), Action::Remove("c")]);
        assert_eq!(diff(&paths(&["d"]), &written, &desired), [Action::Write("d", "1")]);
        assert_eq!(diff(&all, &desired, &desired), []);
    }
}

//! What is known of the cluster, and what follows from what the streams say. No I/O.

use super::follow::{Seen, Told};
use super::kind::{Kind, ObjectName};
use crate::index::{Change, Part};
use crate::source::{Failures, Problem, SourceEvent};
use std::collections::BTreeMap;

/// The most problems that are told at once; there may be as many as there are objects.
const PROBLEMS: usize = 1_000;

/// What is known.
#[derive(Debug)]
pub(super) struct Core {
    kinds: BTreeMap<Kind, Followed>,
    ready: bool,
    out: Out,
}

/// What is known of one kind.
#[derive(Debug, Default)]
struct Followed {
    objects: BTreeMap<ObjectName, Known>,
    /// The list that is under way, or else the last one.
    list: u32,
    listed: bool,
    failure: Option<String>,
    problems: BTreeMap<ObjectName, Problem>,
}

/// What is known of one object.
#[derive(Debug)]
struct Known {
    version: Box<str>,
    /// The list that had it last.
    list: u32,
    /// Whether it has a part that was sent.
    sent: bool,
}

#[derive(Debug, Default)]
struct Out {
    changes: Vec<Change>,
    problems: bool,
    failures: bool,
}

impl Default for Core {
    fn default() -> Self {
        let kinds = Kind::ALL.into_iter().map(|kind| (kind, Followed::default())).collect();
        Core { kinds, ready: false, out: Out::default() }
    }
}

impl Core {
    /// Takes in what a stream said.
    pub(super) fn on(&mut self, kind: Kind, told: Told) {
        // Every kind is there.
        let followed = self.kinds.entry(kind).or_default();
        followed.on(kind, told, &mut self.out);
    }

    /// What follows from it all.
    pub(super) fn take(&mut self) -> Vec<SourceEvent> {
        let out = std::mem::take(&mut self.out);
        let mut events = Vec::new();
        if !out.changes.is_empty() {
            events.push(SourceEvent::Changed(out.changes));
        }
        if out.problems {
            let all = self.kinds.values().flat_map(|k| k.problems.values().cloned());
            events.push(SourceEvent::Problems(all.take(PROBLEMS).collect()));
        }
        if out.failures {
            events.push(SourceEvent::Unavailable(self.failures()));
        }
        if !self.ready && self.kinds.values().all(|k| k.listed) {
            self.ready = true;
            events.push(SourceEvent::Ready);
        }
        events
    }

    fn failures(&self) -> Failures {
        let failed = self.kinds.iter().filter_map(|(kind, k)| Some((kind.resource(), k.failure.clone()?)));
        failed.collect()
    }
}

impl Followed {
    fn on(&mut self, kind: Kind, told: Told, out: &mut Out) {
        match told {
            Told::Begun => {
                // Not healed yet: a list may begin again and again and never get anywhere.
                self.list = self.list.wrapping_add(1);
            }
            Told::Object(seen) => {
                self.heal(out);
                self.put(kind, *seen, out);
            }
            Told::Gone(name) => {
                self.heal(out);
                self.remove(kind, &name, out);
            }
            Told::Listed => {
                self.sweep(kind, out);
                self.listed = true;
                self.heal(out);
            }
            Told::Alive => self.heal(out),
            Told::Failed(reason) => {
                if self.failure.as_ref() != Some(&reason) {
                    tracing::warn!(
                        resource = kind.resource(),
                        reason,
                        "can not be read, the last state is kept"
                    );
                    self.failure = Some(reason);
                    out.failures = true;
                }
            }
        }
    }

    fn heal(&mut self, out: &mut Out) {
        out.failures |= self.failure.take().is_some();
    }

    fn put(&mut self, kind: Kind, seen: Seen, out: &mut Out) {
        let Seen { name, version, part } = seen;
        let known = self.objects.get_mut(&name);
        if let Some(known) = known {
            known.list = self.list;
            if known.version == version {
                return;
            }
        }
        // One that is refused stays as it was last said well.
        let sent_before = self.objects.get(&name).is_some_and(|known| known.sent);
        let sent = match part {
            Ok(part) => {
                out.problems |= self.problems.remove(&name).is_some();
                let sent = part.is_some();
                match part {
                    Some(part) => out.changes.push(Change::Put(part)),
                    None if sent_before => out.changes.extend(kind.key(&name).map(Change::Remove)),
                    None => {}
                }
                sent
            }
            Err(problem) => {
                out.problems = true;
                self.problems.insert(name.clone(), problem);
                sent_before
            }
        };
        self.objects.insert(name, Known { version, list: self.list, sent });
    }

    fn remove(&mut self, kind: Kind, name: &ObjectName, out: &mut Out) {
        let Some(known) = self.objects.remove(name) else { return };
        out.problems |= self.problems.remove(name).is_some();
        if known.sent {
            out.changes.extend(kind.key(name).map(Change::Remove));
        }
    }

    /// A list is complete: what it lacked is gone.
    fn sweep(&mut self, kind: Kind, out: &mut Out) {
        let list = self.list;
        let gone: Vec<ObjectName> = self
            .objects
            .iter()
            .filter(|(_, known)| known.list != list)
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.remove(kind, &name, out);
        }
    }
}

impl Seen {
    /// An object with its part, or with what is wrong with it.
    pub(super) fn new(
        kind: Kind,
        name: ObjectName,
        version: &str,
        part: Result<Option<Part>, crate::index::FieldError>,
    ) -> Self {
        let problem = |e: crate::index::FieldError| Problem {
            file: kind.resource().to_owned(),
            document: 0,
            object: Some(name.to_string()),
            field: e.field,
            reason: e.reason,
        };
        let part = part.map_err(problem);
        Seen { version: version.into(), part, name }
    }
}

#[cfg(test)]
mod tests;

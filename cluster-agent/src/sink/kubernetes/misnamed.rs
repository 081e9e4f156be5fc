//! ServiceExports whose name no Service can have: they are about no service that anything else knows, and are told so.

use super::effect::{Apply, Effect, Note};
use super::plan::Setting;
use super::seen::{Digest, Kind, ObjectKey, Part, Seen};
use crate::desired::{Condition, Draft};
use sealane_core::name::ServiceName;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// When one that was not written, or not seen to be, is tried again.
const RETRY: Duration = Duration::from_secs(30);
/// Of how many it is kept what they say: more of them are not told.
const MOST: usize = 4_096;

/// One of them.
pub(super) type Misnamed = (ObjectKey, Seen);

/// Those that there are, and which of them are looked at next.
#[derive(Debug, Default)]
pub(super) struct MisnamedExports(BTreeMap<ObjectKey, (Seen, Next)>);

/// When one is looked at next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// It is new.
    Now,
    /// It was to be written.
    At(Instant),
    /// It says what it should.
    Never,
}

impl MisnamedExports {
    /// These are all.
    pub(super) fn list(&mut self, all: Vec<Misnamed>) {
        self.0.clear();
        all.into_iter().for_each(|one| self.put(one));
    }

    /// One is so now.
    pub(super) fn put(&mut self, (key, seen): Misnamed) {
        if self.0.len() < MOST || self.0.contains_key(&key) {
            self.0.insert(key, (seen, Next::Now));
        }
    }

    /// One may be gone.
    pub(super) fn remove(&mut self, key: &ObjectKey) {
        self.0.remove(key);
    }

    /// The steps for those that do not say yet what they should: for as many as there is room for.
    pub(super) fn due(
        &mut self,
        setting: &Setting,
        now: Instant,
        room: usize,
    ) -> Vec<(ObjectKey, Vec<Effect>)> {
        let is_due = |next: Next| match next {
            Next::Now => true,
            Next::At(at) => at <= now,
            Next::Never => false,
        };
        let mut due = Vec::new();
        for (key, (seen, next)) in self.0.iter_mut().filter(|(_, (_, next))| is_due(*next)) {
            if due.len() >= room {
                break;
            }
            let effects = steps(key, seen, setting);
            *next = if effects.is_empty() { Next::Never } else { Next::At(now + RETRY) };
            if !effects.is_empty() {
                due.push((key.clone(), effects));
            }
        }
        due
    }
}

/// What one of them should say. There can be no Service of its name, so the reason is the standard one for that.
fn drafts(key: &ObjectKey) -> [Draft; 2] {
    let rule = ServiceName::parse(&key.name).err().map(|error| error.rule).unwrap_or_default();
    let message = format!(
        "no Service can have this name, which {rule}: give the ServiceExport the name of the Service that it is to export"
    );
    [
        Draft::new("Valid", "False", "NoService", message),
        Draft::new("Ready", "False", "Pending", "the export is not valid".to_owned()),
    ]
}

/// The status, and an Event where it is news; nothing where it says so already.
fn steps(key: &ObjectKey, seen: &Seen, setting: &Setting) -> Vec<Effect> {
    let stamp = |draft: Draft| draft.stamp(&seen.conditions, seen.generation, setting.now);
    let conditions = drafts(key).map(stamp);
    let mut body = json!({ "status": { "conditions": conditions } });
    let digest = Digest::of(Kind::Export, Part::Status, &body);
    if seen.is(Part::Status, digest) {
        return Vec::new();
    }
    body["apiVersion"] = json!(setting.api);
    body["kind"] = json!(Kind::Export.as_str());
    body["metadata"] = json!({ "name": key.name, "namespace": key.namespace.as_str() });
    let over = Some(seen.resource_version.clone());
    let mut effects = vec![Effect::Apply(Apply {
        key: key.clone(),
        part: Part::Status,
        body,
        digest,
        content: digest,
        over,
    })];
    let [valid, _] = conditions;
    let same =
        |c: &Condition| (&c.kind, &c.status, &c.message) == (&valid.kind, &valid.status, &valid.message);
    if !seen.conditions.iter().any(same) {
        let (about, uid) = (key.clone(), seen.uid.clone());
        effects.push(Effect::Tell(Note {
            about,
            uid,
            warning: true,
            reason: valid.reason,
            message: valid.message,
        }));
    }
    effects
}

#[cfg(test)]
mod tests;

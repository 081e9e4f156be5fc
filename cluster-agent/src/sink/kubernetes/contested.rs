//! What is told where somebody else keeps changing an object of ours.

use super::effect::{Note, Target};
use super::observed::Scene;
use super::seen::{Kind, Part, Seen};

/// The reason of the Event.
const REASON: &str = "Contended";

/// An Event on the import, or the export, whose object it is; `None` while there is neither.
pub(super) fn note(scene: &Scene, target: &Target) -> Option<Note> {
    let (key, part) = target;
    let kind = if key.kind == Kind::Export { Kind::Export } else { Kind::Import };
    let (about, seen) = scene.of(kind).next().or_else(|| scene.of(Kind::Export).next())?;
    let what = if *part == Part::Status { "the status of " } else { "" };
    let who = scene.objects.get(key).map_or_else(Vec::new, |seen| writers(seen, *part));
    if *part == Part::Status && who.is_empty() {
        // It only follows the generations that changes of the rest make.
        return None;
    }
    let who = if who.is_empty() { "somebody".to_owned() } else { who.join(", ") };
    let message = format!(
        "{who} keeps changing or removing {what}{key}: it is put right ever more seldom, at least every minute"
    );
    Some(Note {
        about: about.clone(),
        uid: seen.uid.clone(),
        warning: true,
        reason: REASON.to_owned(),
        message,
    })
}

fn writers(seen: &Seen, part: Part) -> Vec<String> {
    match part {
        Part::Main => seen.writers.clone(),
        Part::Status => seen.status_writers.clone(),
    }
}

//! Events (`events.k8s.io/v1`), as many as people can read.

use super::api::{Resources, ask};
use super::effect::Note;
use super::seen::ObjectKey;
use crate::desired::MANAGER;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The same is said again after so long at the earliest.
const AGAIN: Duration = Duration::from_secs(300);
/// How many may be told at once.
const BURST: f64 = 30.0;
/// How many more each second.
const RATE: f64 = 1.0;
/// Of how many notes it is known when they were told.
const KNOWN: usize = 4_096;
/// The longest message, by the API.
const LONGEST: usize = 1_000;

/// The limiter, shared by who plans notes and who tells them.
pub(super) type SharedLimiter = Arc<Mutex<Limiter>>;

/// Lets notes pass at a bounded rate, each only once in a while.
#[derive(Debug)]
pub(super) struct Limiter {
    told: BTreeMap<(ObjectKey, String), (String, Instant)>,
    tokens: f64,
    at: Instant,
}

impl Limiter {
    pub(super) fn new(now: Instant) -> Self {
        Limiter { told: BTreeMap::new(), tokens: BURST, at: now }
    }

    /// Whether a note is news, and not what was told a while ago.
    pub(super) fn is_news(&self, note: &Note, now: Instant) -> bool {
        let key = (note.about.clone(), note.reason.clone());
        self.told.get(&key).is_none_or(|(said, at)| *said != note.message || now - *at >= AGAIN)
    }

    /// Whether a note may be told now, which is when it counts: what is only planned may never be told.
    pub(super) fn passes(&mut self, note: &Note, now: Instant) -> bool {
        if !self.is_news(note, now) {
            return false;
        }
        let key = (note.about.clone(), note.reason.clone());
        self.tokens = (self.tokens + (now - self.at).as_secs_f64() * RATE).min(BURST);
        self.at = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        if self.told.len() >= KNOWN {
            self.told.retain(|_, (_, at)| now - *at < AGAIN);
        }
        if self.told.len() < KNOWN {
            self.told.insert(key, (note.message.clone(), now));
        }
        true
    }

    /// A note could not be told after all: it is still news.
    fn untold(&mut self, note: &Note) {
        self.told.remove(&(note.about.clone(), note.reason.clone()));
    }
}

/// Writes Events.
#[derive(Clone)]
pub(super) struct Teller {
    recorder: Recorder,
    resources: Resources,
    limiter: SharedLimiter,
}

impl Teller {
    pub(super) fn new(resources: Resources, replica: &str, limiter: SharedLimiter) -> Self {
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(replica.to_owned()) };
        Teller { recorder: Recorder::new(resources.client(), reporter), resources, limiter }
    }

    /// Tells a note, where there are not too many. One that can not be told is lost: the conditions say the same.
    pub(super) async fn tell(&self, note: &Note) {
        let passes = self.limiter.lock().unwrap_or_else(PoisonError::into_inner).passes(note, Instant::now());
        if !passes {
            return;
        }
        let mut message = note.message.clone();
        let end = (0..=LONGEST.min(message.len())).rev().find(|at| message.is_char_boundary(*at));
        message.truncate(end.unwrap_or(0));
        let event = Event {
            type_: if note.warning { EventType::Warning } else { EventType::Normal },
            reason: note.reason.chars().take(128).collect(),
            note: Some(message),
            action: "Federate".to_owned(),
            secondary: None,
        };
        let about = ObjectReference {
            api_version: Some(self.resources.of(note.about.kind).api_version.clone()),
            kind: Some(note.about.kind.as_str().to_owned()),
            namespace: Some(note.about.namespace.to_string()),
            name: Some(note.about.name.clone()),
            uid: Some(note.uid.clone()),
            ..ObjectReference::default()
        };
        if let Err(error) = ask(self.recorder.publish(&event, &about)).await {
            tracing::warn!(object = %note.about, error = %error, "can not write an event");
            self.limiter.lock().unwrap_or_else(PoisonError::into_inner).untold(note);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::seen::Kind;
    use super::*;

    #[test]
    fn the_same_is_told_once_in_a_while_and_many_at_a_bounded_rate() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        let note = |n: u32| Note {
            about: ObjectKey {
                kind: Kind::Import,
                namespace: "shop".parse().unwrap(),
                name: format!("web-{n}"),
            },
            uid: String::new(),
            warning: true,
            reason: "Pending".to_owned(),
            message: "no".to_owned(),
        };
        assert!(limiter.passes(&note(0), start));
        assert!(!limiter.passes(&note(0), start));
        assert!(limiter.passes(&Note { message: "other".to_owned(), ..note(0) }, start));
        assert_eq!((1..100).filter(|n| limiter.passes(&note(*n), start)).count(), 28);
        let later = start + Duration::from_secs(3);
        assert_eq!((100..200).filter(|n| limiter.passes(&note(*n), later)).count(), 3);
        assert!(limiter.passes(&note(1), start + AGAIN + Duration::from_secs(1)));
    }
}

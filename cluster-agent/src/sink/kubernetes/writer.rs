//! Takes the steps of one service, one after the other, and says what came of them.

use super::api::{RequestError, Resources, ask};
use super::effect::{Apply, Effect, Target};
use super::events::Teller;
use super::seen::{Digest, Kind, ObjectKey, Owner, Part};
use super::watch::{Found, reduce};
use crate::desired::MANAGER;
use crate::lease::Leadership;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::Status;
use sealane_core::name::ServiceKey;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// What came of a step.
#[derive(Debug)]
pub(super) enum Outcome {
    /// An object is so now.
    Seen(Box<Found>),
    /// An object is gone.
    Gone(ObjectKey),
    /// An object of others is where ours should be.
    Foreign(ObjectKey, Vec<String>),
    /// The API server does not give these addresses again.
    Taken(Vec<IpAddr>),
    /// The object changed meanwhile; it is as was seen before this.
    Conflict,
    /// Somebody else may write now.
    Lost,
    /// This was done: it was written so, or the object removed.
    Took(Target, Option<Digest>),
    /// The API server refuses this step, and will until something changes; the others were taken.
    Refused {
        /// What was to be written.
        target: Target,
        /// Why.
        error: String,
        /// The same in one word of a fixed list.
        reason: &'static str,
        /// How long the API server asks to wait.
        wait: Duration,
    },
    /// It failed; the rest of the steps may not have been taken.
    Failed {
        /// At what.
        key: ObjectKey,
        /// Why.
        error: String,
        /// The same in one word of a fixed list.
        reason: &'static str,
        /// How long the API server asks to wait.
        wait: Duration,
    },
}

/// What came of the steps for a service.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) service: ServiceKey,
    pub(super) outcomes: Vec<Outcome>,
}

/// How the steps go on after one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Went {
    /// It was taken.
    Well,
    /// It was not, which is no reason for others to wait.
    Badly,
    /// Nobody can write now.
    Nowhere,
}

/// Takes steps.
#[derive(Clone)]
pub(super) struct Writer {
    pub(super) resources: Resources,
    pub(super) teller: Teller,
    pub(super) leadership: Leadership,
}

impl Writer {
    /// Takes the steps in their order, as far as they can be taken. One that is refused keeps only those back that depend
    /// on it; where the API server does not answer, or asks for patience, no more of them are tried.
    pub(super) async fn work(self, service: ServiceKey, effects: Vec<Effect>) -> Done {
        let mut outcomes = Vec::new();
        let mut unwritten = BTreeSet::new();
        for effect in effects {
            if effect.waits_for(&unwritten) {
                continue;
            }
            if !self.leadership.may_write() {
                outcomes.push(Outcome::Lost);
                break;
            }
            let (target, content) = (effect.target(), effect.content());
            let went = match effect {
                Effect::Apply(apply) => self.apply(apply, &mut outcomes).await,
                Effect::Delete { key, uid, version, .. } => {
                    let this = Preconditions { uid: Some(uid), resource_version: Some(version) };
                    self.delete(key, this, &mut outcomes).await
                }
                Effect::Tell(note) => {
                    self.teller.tell(&note).await;
                    Went::Well
                }
            };
            match went {
                Went::Well => outcomes.extend(target.map(|target| Outcome::Took(target, content))),
                Went::Badly => unwritten.extend(target),
                Went::Nowhere => break,
            }
        }
        Done { service, outcomes }
    }

    async fn apply(&self, apply: Apply, outcomes: &mut Vec<Outcome>) -> Went {
        let target = (apply.key.clone(), apply.part);
        let api = self.resources.beside(&apply.key);
        if apply.over.is_none() {
            // Whatever is there already is either ours, and changed as such, or stays as it is.
            match ask(api.get_opt(&apply.key.name)).await {
                // The look took its time, and a write must end with the right to write.
                Ok(None) if self.leadership.may_write() => {}
                Ok(None) => {
                    outcomes.push(Outcome::Lost);
                    return Went::Nowhere;
                }
                Ok(Some(object)) => {
                    outcomes.push(found(&apply.key, object));
                    return Went::Badly;
                }
                Err(error) => return fail(&target, &error, outcomes),
            }
        }
        let params = PatchParams { force: apply.force(), ..PatchParams::apply(MANAGER) };
        let mut body = apply.body.clone();
        if let Some(version) = &apply.over {
            body["metadata"]["resourceVersion"] = serde_json::json!(version);
        }
        let patch = Patch::Apply(&body);
        let answer = match apply.part {
            Part::Main => ask(api.patch(&apply.key.name, &params, &patch)).await,
            Part::Status => ask(api.patch_status(&apply.key.name, &params, &patch)).await,
        };
        match answer {
            Ok(object) => {
                if let Some((key, service, mut seen)) = reduce(apply.key.kind, object) {
                    seen.answered(apply.part, apply.digest);
                    outcomes.push(Outcome::Seen(Box::new((key, service, seen))));
                }
                Went::Well
            }
            Err(error) => self.refused(&apply, &error, outcomes).await,
        }
    }

    async fn refused(&self, apply: &Apply, error: &RequestError, outcomes: &mut Vec<Outcome>) -> Went {
        let target = (apply.key.clone(), apply.part);
        let Some(status) = error.status() else { return fail(&target, error, outcomes) };
        let others = managers(status);
        if !others.is_empty() && apply.over.is_none() {
            outcomes.push(Outcome::Foreign(apply.key.clone(), others));
            return Went::Badly;
        }
        if others.is_empty() && (status.is_conflict() || status.is_not_found()) && apply.over.is_some() {
            // The watch is behind: what is there now is looked at instead.
            return self.look(&target, outcomes).await;
        }
        let pinned = apply.body["spec"]["clusterIPs"].as_array();
        let pinned = pinned.filter(|_| apply.over.is_none() && status.code == 422 && about_addresses(status));
        match pinned {
            Some(ips) => {
                let ips = ips.iter().filter_map(|ip| ip.as_str()?.parse().ok());
                outcomes.push(Outcome::Taken(ips.collect()));
                Went::Badly
            }
            None => fail(&target, error, outcomes),
        }
    }

    /// Looks at an object that is not as it was thought to be.
    async fn look(&self, target: &Target, outcomes: &mut Vec<Outcome>) -> Went {
        let key = &target.0;
        match ask(self.resources.beside(key).get_opt(&key.name)).await {
            Ok(None) => outcomes.push(Outcome::Gone(key.clone())),
            Ok(Some(object)) => {
                outcomes.extend(reduce(key.kind, object).map(|found| Outcome::Seen(Box::new(found))))
            }
            Err(error) => return fail(target, &error, outcomes),
        }
        outcomes.push(Outcome::Conflict);
        Went::Badly
    }

    async fn delete(&self, key: ObjectKey, this: Preconditions, outcomes: &mut Vec<Outcome>) -> Went {
        let params = DeleteParams { preconditions: Some(this), ..DeleteParams::background() };
        match ask(self.resources.beside(&key).delete(&key.name, &params)).await {
            Ok(_) => {
                outcomes.push(Outcome::Gone(key));
                Went::Well
            }
            Err(error) if error.status().is_some_and(Status::is_not_found) => {
                outcomes.push(Outcome::Gone(key));
                Went::Well
            }
            Err(error) if error.status().is_some_and(Status::is_conflict) => {
                self.look(&(key, Part::Main), outcomes).await
            }
            Err(error) => fail(&(key, Part::Main), &error, outcomes),
        }
    }
}

/// An object where one was to be made: it is ours, or others' (then who wrote it).
fn found(key: &ObjectKey, object: DynamicObject) -> Outcome {
    let entries = object.metadata.managed_fields.iter().flatten();
    let writers: Vec<String> = entries.filter_map(|e| e.manager.clone()).collect();
    match reduce(key.kind, object) {
        // The plan knows what to do about a ServiceImport of others.
        Some(found) if key.kind == Kind::Import || !matches!(found.2.owner, Owner::Foreign(_)) => {
            Outcome::Seen(Box::new(found))
        }
        _ => Outcome::Foreign(key.clone(), writers),
    }
}

/// The managers of the fields that an apply would have to take.
fn managers(status: &Status) -> Vec<String> {
    let causes = status.details.iter().flat_map(|d| &d.causes);
    let conflicts = causes.filter(|c| c.reason == "FieldManagerConflict");
    // The message reads: conflict with "NAME" using v1
    let mut named: Vec<String> =
        conflicts.filter_map(|c| c.message.split('"').nth(1).map(str::to_owned)).collect();
    named.sort();
    named.dedup();
    named
}

/// Whether an invalid Service is invalid for its addresses.
fn about_addresses(status: &Status) -> bool {
    status.details.iter().flat_map(|d| &d.causes).any(|c| c.field.starts_with("spec.clusterIP"))
}

/// Takes in why a step was not taken.
fn fail(target: &Target, error: &RequestError, outcomes: &mut Vec<Outcome>) -> Went {
    let wait = error.status().and_then(|s| s.details.as_ref()).map_or(0, |d| d.retry_after_seconds);
    let (wait, said) = (Duration::from_secs(wait.into()), error.to_string());
    let went = went(error.status());
    let reason = error.reason();
    outcomes.push(match error.status().is_some_and(is_refusal) {
        true => Outcome::Refused { target: target.clone(), error: said, reason, wait },
        false => Outcome::Failed { key: target.0.clone(), error: said, reason, wait },
    });
    went
}

/// What an answer means for the other steps.
fn went(answer: Option<&Status>) -> Went {
    match answer {
        Some(status) if is_refusal(status) || status.code == 409 => Went::Badly,
        _ => Went::Nowhere,
    }
}

/// Whether this very step is refused, by a rule, a quota or a webhook, and not all of them for now.
fn is_refusal(status: &Status) -> bool {
    match status.code {
        408 | 409 | 429 => false,
        400..500 => true,
        500 => status.message.contains("webhook"),
        _ => false,
    }
}

#[cfg(test)]
mod tests;

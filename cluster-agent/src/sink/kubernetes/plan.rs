//! What to do about one service: what should be, held against what was seen. Pure.
//!
//! Steps come in the order in which they may be taken, and only those that can be taken now: a derived Service waits for
//! the UID of its ServiceImport, its slices for its own. What follows from a step is planned when its answer was seen.
//! Nothing that others made is touched, and nothing that was written at a higher revision.

use super::derived;
use super::effect::{Apply, Effect, Note};
use super::observed::Scene;
use super::places::places;
use super::schema::Missing;
use super::seen::{Digest, FEDERATION, Kind, ObjectKey, Owner, Part, REVISION, Seen};
use super::slices::slices;
use crate::config::Outbound;
use crate::desired::{
    Condition, Draft, ImportSpec, ImportStatus, MANAGED_BY, MANAGER, Sources, conditions, family_of, shorten,
};
use sealane_core::identity::FederationId;
use sealane_core::name::{ClusterName, ServiceKey};
use sealane_core::reach::{OutOfReach, out_of_reach};
use sealane_core::service::{InternalTrafficPolicy, IpFamily, ServiceType};
use sealane_core::time::{Millis, Revision};
use sealane_core::view::Import;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What a new import says until the API server gave it an address.
const WAITING: &str = "waiting for an address of this cluster";

/// The reason of an import that has no family of this cluster.
pub const UNSUPPORTED: &str = "IPFamilyNotSupported";

/// What is the same for all services.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// This cluster.
    pub cluster: ClusterName,
    /// The families of the cluster's Services, its first one first.
    pub families: Vec<IpFamily>,
    /// The served version of the API of imports and exports, as group and version.
    pub api: String,
    /// What the installed CRD of imports does not declare.
    pub missing: Missing,
    /// The federation.
    pub federation: FederationId,
    /// The revision of the view.
    pub revision: Revision,
    /// The time of conditions that change now.
    pub now: Millis,
}

/// What requests taught about one service that its objects do not show.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Learnt {
    /// Addresses that the API server did not give again: somebody else has them.
    pub taken: Option<Vec<IpAddr>>,
    /// Objects of others where ours should be, by who wrote them.
    pub foreign: BTreeMap<ObjectKey, Vec<String>>,
    /// Objects that the API server refuses to have as they should be, by why.
    pub refused: BTreeMap<ObjectKey, String>,
    /// Objects that somebody else keeps changing, and that are not put right yet.
    pub contested: BTreeSet<ObjectKey>,
}

/// One service to plan for.
struct Planner<'a> {
    sources: &'a Sources,
    setting: &'a Setting,
    service: &'a ServiceKey,
    scene: &'a Scene,
    learnt: &'a Learnt,
    effects: Vec<Effect>,
    /// The objects that should be there.
    kept: BTreeSet<ObjectKey>,
    /// The endpoints that slices should hold.
    wanted: BTreeSet<IpAddr>,
    /// What the import should be.
    import: Option<Digest>,
    /// What stands in the way of the import, where something does.
    in_the_way: Option<String>,
}

/// The steps for one service.
#[must_use]
pub fn plan(
    sources: &Sources,
    setting: &Setting,
    service: &ServiceKey,
    scene: &Scene,
    learnt: &Learnt,
) -> Vec<Effect> {
    let (effects, kept, wanted) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let (import, in_the_way) = (None, None);
    let mut planner =
        Planner { sources, setting, service, scene, learnt, effects, kept, wanted, import, in_the_way };
    let stranger = match sources.import(service) {
        Some(outbound) => planner.import(outbound),
        None => None,
    };
    planner.export(stranger);
    planner.removals();
    planner.effects
}

/// Why an import is not ready, or that it is.
struct Standing {
    draft: Draft,
    addresses: Vec<IpAddr>,
    families: Vec<IpFamily>,
}

impl Planner<'_> {
    fn key(&self, kind: Kind, name: &str) -> ObjectKey {
        ObjectKey { kind, namespace: self.service.namespace.clone(), name: name.to_owned() }
    }

    /// Keeps the import and what belongs to it. Gives what to say of a ServiceImport that is somebody else's.
    fn import(&mut self, outbound: &Outbound) -> Option<String> {
        let key = self.key(Kind::Import, self.service.name.as_str());
        let scene = self.scene;
        let seen = scene.import();
        if let Some(message) = self.stranger(&key) {
            if let Some(seen) = seen {
                self.tell(&key, seen, true, "ForeignObject", message.clone());
            }
            return Some(message);
        }
        let derived = self.key(Kind::Service, &derived::name(self.service));
        let standing = self.standing(outbound, &derived);
        let body = self.import_body(outbound, &standing, &derived.name);
        self.main(&key, seen, body);
        let Some(seen) = seen else {
            // Whoever removed it may have left what belongs to it, and its address is to stay.
            self.kept.extend(scene.objects.keys().cloned());
            return None;
        };
        let service = self.derived_service(outbound, seen, &derived, &standing);
        self.slices(outbound, seen, service, &standing);
        let ready = match self.in_the_way.take() {
            Some(message) => Draft::new("Ready", "False", "Pending", message),
            None => self.unrefused(standing.draft),
        };
        self.import_status(outbound, &key, seen, ready);
        None
    }

    /// What to say of an object that is in the place of ours, if it is somebody else's: whatever it bears.
    fn stranger(&self, key: &ObjectKey) -> Option<String> {
        let writers = match self.scene.objects.get(key).map(|seen| &seen.owner) {
            Some(Owner::Foreign(writers)) => Some(writers),
            _ => self.learnt.foreign.get(key),
        };
        writers.map(|writers| foreign(key, writers))
    }

    /// The derived Service, if it is ours.
    fn derived(&self, key: &ObjectKey) -> Option<&'_ Seen> {
        self.scene.objects.get(key).filter(|seen| !matches!(seen.owner, Owner::Foreign(_)))
    }

    /// What the API server refuses is why an import is not ready, where nothing else is.
    fn unrefused(&self, ready: Draft) -> Draft {
        let export = |key: &ObjectKey| key.kind == Kind::Export;
        match self.learnt.refused.iter().find(|(key, _)| !export(key)) {
            Some((key, why)) if ready.status == "True" || ready.message == WAITING => {
                Draft::new("Ready", "False", "Failed", shorten(refused(key, why)))
            }
            _ => ready,
        }
    }

    fn import_body(&self, outbound: &Outbound, standing: &Standing, derived: &str) -> Value {
        let import = &outbound.import;
        let mut labels = import.labels.clone();
        labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
        let mut annotations = import.annotations.clone();
        if import.service_type == ServiceType::ClusterSetIp {
            annotations.insert(derived::ANNOTATION.to_owned(), derived.to_owned());
        }
        json!({
            "apiVersion": self.setting.api,
            "kind": Kind::Import.as_str(),
            "metadata": { "labels": labels, "annotations": annotations },
            "spec": ImportSpec::of(import, &standing.addresses, &standing.families),
        })
    }

    /// The addresses of the import and whether it is ready.
    fn standing(&self, outbound: &Outbound, derived: &ObjectKey) -> Standing {
        let import = &outbound.import;
        let ready = self.ready(outbound);
        if import.service_type == ServiceType::Headless {
            let families = import.ip_families.clone();
            return Standing { draft: ready, addresses: Vec::new(), families };
        }
        let families = self.families(&import.ip_families, derived);
        let unsupported = self.unsupported(&import.ip_families);
        if families.is_empty() {
            let draft =
                unsupported.unwrap_or_else(|| Draft::new("Ready", "False", "Pending", WAITING.to_owned()));
            return Standing { draft, addresses: Vec::new(), families };
        }
        let pending = |message: String| Draft::new("Ready", "False", "Pending", message);
        let seen = self.derived(derived);
        let addresses = match seen {
            Some(service) => derived::fitting(&service.addresses, &families),
            None => derived::fitting(&self.former(), &families),
        };
        let draft = match (seen, &self.learnt.taken) {
            (Some(_), _) if addresses.len() == families.len() => unsupported.unwrap_or(ready),
            (None, Some(taken)) if *taken == addresses => pending(taken_message(taken)),
            _ => pending(WAITING.to_owned()),
        };
        Standing { draft, addresses, families }
    }

    /// Why no address of this cluster can lead to a service of these families, where that is so.
    fn unsupported(&self, of_import: &[IpFamily]) -> Option<Draft> {
        let own = &self.setting.families;
        if of_import.is_empty() || of_import.iter().any(|family| own.contains(family)) {
            return None;
        }
        let (theirs, ours) = (show(of_import), show(own));
        let message = format!("the service has {theirs} addresses, and this cluster's Services have {ours}");
        Some(Draft::new("Ready", "False", UNSUPPORTED, message))
    }

    /// Whether an import that has its addresses is ready: it is while no endpoint is, too, but not where none of those
    /// that are can be reached.
    fn ready(&self, outbound: &Outbound) -> Draft {
        match out_of_reach(&outbound.import) {
            Some(OutOfReach { reason, message }) => Draft::new("Ready", "False", &reason, shorten(message)),
            None => Draft::new("Ready", "True", "Ready", self.ready_message(outbound)),
        }
    }

    fn ready_message(&self, outbound: &Outbound) -> String {
        let import = &outbound.import;
        let clusters: Vec<&str> = import.clusters.iter().map(ClusterName::as_str).collect();
        let mut message = format!("exported by {}", clusters.join(", "));
        if import.internal_traffic_policy == InternalTrafficPolicy::Local {
            message.push_str(
                "; internalTrafficPolicy Local: a client without a proxy reaches endpoints on its own node only",
            );
        }
        let (_, behind) = places(self.sources, outbound, &self.setting.cluster);
        if !behind.is_empty() {
            let behind: Vec<&str> = behind.iter().map(ClusterName::as_str).collect();
            let behind = behind.join(", ");
            message.push_str(&format!("; in another network, reached through proxies only: {behind}"));
        }
        message
    }

    /// The families of the derived Service: those that it has, then those of the import, as far as this cluster has them.
    /// What the import has no more stays: whoever exports it now does not take its address away.
    fn families(&self, of_import: &[IpFamily], derived: &ObjectKey) -> Vec<IpFamily> {
        let own = &self.setting.families;
        let wanted = match of_import {
            [] => own.get(..1).unwrap_or_default(),
            some => some,
        };
        let former = self.derived(derived).map(|s| s.addresses.clone());
        let former = former.unwrap_or_else(|| self.former());
        let mut families: Vec<IpFamily> = Vec::new();
        for family in former.into_iter().map(family_of).chain(wanted.iter().copied()) {
            if own.contains(&family) && !families.contains(&family) {
                families.push(family);
            }
        }
        families
    }

    /// The addresses that the import had.
    fn former(&self) -> Vec<IpAddr> {
        self.scene.import().map(|seen| seen.addresses.clone()).unwrap_or_default()
    }

    /// Keeps the derived Service. Gives its UID once it is there.
    fn derived_service(
        &mut self,
        outbound: &Outbound,
        import: &Seen,
        key: &ObjectKey,
        standing: &Standing,
    ) -> Option<String> {
        let headless = outbound.import.service_type == ServiceType::Headless;
        if headless || standing.families.is_empty() {
            return None;
        }
        self.in_the_way = self.stranger(key);
        if self.in_the_way.is_some() {
            return None;
        }
        let scene = self.scene;
        let seen = scene.objects.get(key);
        if let Some(seen) = seen
            && !seen.addresses.is_empty()
            && derived::fitting(&seen.addresses, &standing.families).is_empty()
        {
            // The first family of a Service can not change: it is made anew.
            let (uid, version) = (seen.uid.clone(), seen.resource_version.clone());
            self.effects.push(Effect::Delete { key: key.clone(), uid, version, moves: false });
            self.kept.insert(key.clone());
            return None;
        }
        let mut pinned = standing.addresses.clone();
        if seen.is_none() && self.learnt.taken.as_ref() == Some(&pinned) {
            // It was said before a new one comes.
            if !import.conditions.iter().any(|c| c.message == taken_message(&pinned)) {
                return None;
            }
            pinned.clear();
        }
        let owner = self.reference(Kind::Import, self.service.name.as_str(), &import.uid);
        let body = derived::body(&outbound.import, &standing.families, &pinned, owner);
        self.main(key, seen, body);
        seen.map(|seen| seen.uid.clone())
    }

    fn reference(&self, kind: Kind, name: &str, uid: &str) -> Value {
        let api = if kind == Kind::Import { self.setting.api.as_str() } else { "v1" };
        json!({ "apiVersion": api, "kind": kind.as_str(), "name": name, "uid": uid })
    }

    /// Keeps the slices, once what owns them is there.
    fn slices(&mut self, outbound: &Outbound, import: &Seen, service: Option<String>, standing: &Standing) {
        let derived = derived::name(self.service);
        let headless = outbound.import.service_type == ServiceType::Headless;
        let owner = match (headless, service) {
            (true, _) => self.reference(Kind::Import, self.service.name.as_str(), &import.uid),
            (false, Some(uid)) => self.reference(Kind::Service, &derived, &uid),
            (false, None) => {
                // Nothing is withdrawn while the Service is made anew.
                let slices = self.scene.of(Kind::Slice).map(|(key, _)| key.clone());
                self.kept.extend(slices);
                return;
            }
        };
        let (mut places, _) = places(self.sources, outbound, &self.setting.cluster);
        places.retain(|place| serves(&outbound.import, &standing.families, place.address));
        self.wanted.extend(places.iter().map(|place| place.address));
        let scene = self.scene;
        // Who has a newer view decides which slices there are, too.
        let newer = scene.of(Kind::Slice).any(|(_, seen)| self.ahead(seen));
        for slice in slices(outbound, &places, &derived, scene) {
            let key = self.key(Kind::Slice, &slice.name);
            if let Some(message) = self.stranger(&key) {
                self.in_the_way.get_or_insert(message);
                continue;
            }
            if newer && !scene.objects.contains_key(&key) {
                continue;
            }
            let body = json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": Kind::Slice.as_str(),
                "metadata": { "labels": slice.labels, "ownerReferences": [owner] },
                "addressType": slice.family.as_str(),
                "endpoints": slice.endpoints,
                "ports": slice.ports,
            });
            self.main(&key, scene.objects.get(&key), body);
        }
    }

    fn import_status(&mut self, outbound: &Outbound, key: &ObjectKey, seen: &Seen, ready: Draft) {
        let condition = ready.stamp(&seen.conditions, seen.generation, self.setting.now);
        let bad = condition.status != "True" && condition.message != WAITING;
        let same = |c: &Condition| (&c.status, &c.message) == (&condition.status, &condition.message);
        let news = bad && !seen.conditions.iter().any(same);
        let (reason, message) = (condition.reason.clone(), condition.message.clone());
        let status = json!(ImportStatus::of(&outbound.import.clusters, vec![condition]));
        let mut body = json!({ "status": status });
        body["status"]["endpointSliceObjects"] = json!("Present");
        if self.status(key, seen, body) && news {
            self.tell(key, seen, true, &reason, message);
        }
    }

    /// Keeps the conditions of this cluster's own export.
    fn export(&mut self, stranger: Option<String>) {
        let (scene, sources) = (self.scene, self.sources);
        let key = self.key(Kind::Export, self.service.name.as_str());
        let (Some(seen), Some(shard)) = (scene.export(), sources.common.catalog.shards.get(self.service))
        else {
            return;
        };
        let mut drafts = conditions(sources, self.service, shard, &seen.conditions);
        if let Some(message) = stranger
            && let Some((ready, _)) = drafts.iter_mut().find(|(d, _)| d.kind == "Ready" && d.status == "True")
        {
            *ready = Draft::new("Ready", "False", "Failed", message);
        }
        let now = self.setting.now;
        let stamped = drafts.into_iter().map(|(d, generation)| d.stamp(&seen.conditions, generation, now));
        let conditions: Vec<Condition> = stamped.collect();
        let news: Vec<Condition> = conditions.iter().filter(|c| differs(seen, c)).cloned().collect();
        if !self.status(&key, seen, json!({ "status": { "conditions": conditions } })) {
            return;
        }
        for condition in news {
            let warning = match condition.kind.as_str() {
                "Conflict" => condition.status == "True",
                _ => condition.status == "False",
            };
            let good = condition.kind == "Ready" && condition.status == "True";
            let over = condition.kind == "Conflict"
                && seen.conditions.iter().any(|c| c.kind == "Conflict" && c.status == "True");
            if warning || good || over {
                self.tell(&key, seen, warning, &condition.reason, condition.message);
            }
        }
    }

    /// Removes what should not be there. What we did not make, or is not labelled as ours, stays.
    fn removals(&mut self) {
        let scene = self.scene;
        let moves = |key: &ObjectKey, seen: &Seen| {
            key.kind == Kind::Slice && seen.addresses.iter().any(|address| self.wanted.contains(address))
        };
        let ours = |seen: &Seen| seen.owner == Owner::Ours && !self.ahead(seen);
        let unwanted = |key: &ObjectKey| key.kind != Kind::Export && !self.kept.contains(key);
        let gone = scene.objects.iter().filter(|(key, seen)| unwanted(key) && ours(seen));
        let steps = gone.map(|(key, seen)| {
            let (uid, version) = (seen.uid.clone(), seen.resource_version.clone());
            Effect::Delete { key: key.clone(), uid, version, moves: moves(key, seen) }
        });
        let steps: Vec<Effect> = steps.collect();
        self.effects.extend(steps);
    }

    /// Whether who wrote an object has a newer view.
    fn ahead(&self, seen: &Seen) -> bool {
        seen.is_ahead_of(self.setting.federation, self.setting.revision)
    }

    /// Makes the main part of an object what it should be.
    fn main(&mut self, key: &ObjectKey, seen: Option<&Seen>, mut body: Value) {
        self.kept.insert(key.clone());
        if key.kind == Kind::Import {
            self.setting.missing.prune(&mut body);
        }
        // Unlike the revision it counts: what a former agent wrote without it is written anew once.
        body["metadata"]["annotations"][FEDERATION] = json!(self.setting.federation.to_string());
        let digest = Digest::of(key.kind, Part::Main, &body);
        if key.kind == Kind::Import {
            self.import = Some(digest);
        }
        if seen.is_some_and(|s| s.is(Part::Main, digest) || self.ahead(s)) {
            return;
        }
        body["metadata"]["annotations"][REVISION] = json!(self.setting.revision.to_string());
        self.apply(key, seen, (Part::Main, digest), body, digest);
    }

    /// Makes the status of an object what it should be, once the rest of it is. Says whether that is a step.
    fn status(&mut self, key: &ObjectKey, seen: &Seen, mut body: Value) -> bool {
        if key.kind == Kind::Import {
            self.setting.missing.prune(&mut body);
        }
        let digest = Digest::of(key.kind, Part::Status, &body);
        let first = |effect: &Effect| matches!(effect, Effect::Apply(apply) if apply.key == *key);
        let unwritable = self.learnt.refused.contains_key(key) || self.learnt.contested.contains(key);
        let later = (self.effects.iter().any(first) && !unwritable) || self.ahead(seen);
        if later || seen.is(Part::Status, digest) {
            return false;
        }
        let content = self.said(key, body.clone());
        body["apiVersion"] = json!(self.setting.api);
        body["kind"] = json!(key.kind.as_str());
        self.apply(key, Some(seen), (Part::Status, digest), body, content);
        true
    }

    /// What a status says, whenever that became so. Whoever changes an import raises its generation, which is no news of
    /// ours: what the import should be stands for it.
    fn said(&self, key: &ObjectKey, mut body: Value) -> Digest {
        for condition in body["status"]["conditions"].as_array_mut().into_iter().flatten() {
            condition["lastTransitionTime"] = Value::Null;
            if key.kind == Kind::Import {
                condition["observedGeneration"] = Value::Null;
            }
        }
        body["import"] =
            json!(self.import.map(|digest| format!("{digest:x}")).filter(|_| key.kind == Kind::Import));
        Digest::of(key.kind, Part::Status, &body)
    }

    fn apply(
        &mut self,
        key: &ObjectKey,
        seen: Option<&Seen>,
        (part, digest): (Part, Digest),
        mut body: Value,
        content: Digest,
    ) {
        body["metadata"]["name"] = json!(key.name);
        body["metadata"]["namespace"] = json!(key.namespace.as_str());
        let over = seen.map(|s| s.resource_version.clone());
        self.effects.push(Effect::Apply(Apply { key: key.clone(), part, body, digest, content, over }));
    }

    fn tell(&mut self, about: &ObjectKey, seen: &Seen, warning: bool, reason: &str, message: String) {
        let (about, uid, reason) = (about.clone(), seen.uid.clone(), reason.to_owned());
        self.effects.push(Effect::Tell(Note { about, uid, warning, reason, message }));
    }
}

/// Whether a condition says something that the object's does not.
fn differs(seen: &Seen, condition: &Condition) -> bool {
    let same = |c: &Condition| {
        (&c.kind, &c.status, &c.reason) == (&condition.kind, &condition.status, &condition.reason)
    };
    !seen.conditions.iter().any(same)
}

pub(super) fn foreign(key: &ObjectKey, writers: &[String]) -> String {
    let writers = if writers.is_empty() { "others".to_owned() } else { writers.join(", ") };
    format!("{key} was made by {writers}; it is not taken over: remove or rename it")
}

fn refused(key: &ObjectKey, why: &str) -> String {
    format!("the API server refuses {key}: {why}")
}

fn taken_message(taken: &[IpAddr]) -> String {
    let taken: Vec<String> = taken.iter().map(ToString::to_string).collect();
    format!("the address {} is another Service's now; clients get a new one", taken.join(", "))
}

/// Whether an endpoint is behind an import. An address leads to endpoints of its own family alone, and where the import has
/// no address of a family nobody is promised its endpoints; a headless import has no address.
fn serves(import: &Import, families: &[IpFamily], address: IpAddr) -> bool {
    let family = family_of(address);
    let headless = import.service_type == ServiceType::Headless;
    headless || import.ip_families.contains(&family) || families.contains(&family)
}

fn show(families: &[IpFamily]) -> String {
    families.iter().map(|f| f.as_str()).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests;

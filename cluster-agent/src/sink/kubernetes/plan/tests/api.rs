//! An API server in memory, as far as plans can tell: versions, UIDs, ownership of fields, addresses of Services.

use super::super::*;
use crate::sink::kubernetes::observed::Observed;
use crate::sink::kubernetes::seen::service_of;
use crate::sink::kubernetes::slices::KUBE_PROXY;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

#[derive(Default)]
pub(super) struct Api {
    pub(super) objects: BTreeMap<ObjectKey, Value>,
    /// The fields that our applies own, by part.
    owned: BTreeMap<(ObjectKey, Part), Value>,
    pub(super) told: Vec<(String, String)>,
    /// Addresses that are taken by somebody.
    pub(super) taken: BTreeSet<IpAddr>,
    version: u64,
    addresses: u8,
}

impl Api {
    pub(super) fn observed(&self) -> Observed {
        let mut observed = Observed::default();
        for (key, object) in &self.objects {
            let meta: ObjectMeta = serde_json::from_value(object["metadata"].clone()).unwrap();
            if let Some(service) = service_of(key.kind, &meta) {
                observed.put(key.clone(), service, Seen::of(key.kind, &meta, object));
            }
        }
        observed
    }

    pub(super) fn scene(&self, service: &str) -> Scene {
        self.observed().scene(&ServiceKey::parse(service).unwrap())
    }

    /// Somebody makes an object.
    pub(super) fn others(&mut self, key: &ObjectKey, mut object: Value) {
        object["metadata"]["namespace"] = json!(key.namespace.as_str());
        object["metadata"]["name"] = json!(key.name);
        object["metadata"]["managedFields"] = json!([{ "manager": "kubectl", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {} }]);
        self.store(key, object);
    }

    /// Somebody changes an object, and what it is about.
    pub(super) fn change(&mut self, key: &ObjectKey, by: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.objects[key].clone();
        change(&mut object);
        object["metadata"]["generation"] = json!(object["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
        let entry = json!({ "manager": by, "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {} });
        object["metadata"]["managedFields"].as_array_mut().unwrap().push(entry);
        self.store(key, object);
    }

    /// Takes a step; the addresses that were refused where that is why it fails.
    pub(super) fn take(&mut self, effect: Effect) -> Result<(), Vec<IpAddr>> {
        match effect {
            Effect::Tell(note) => {
                self.told.push((note.about.to_string(), format!("{}: {}", note.reason, note.message)))
            }
            Effect::Delete { key, uid, version, .. } => {
                let metadata = &self.objects[&key]["metadata"];
                assert_eq!((&metadata["uid"], &metadata["resourceVersion"]), (&json!(uid), &json!(version)));
                self.objects.remove(&key);
                self.owned.retain(|(owned, _), _| *owned != key);
            }
            Effect::Apply(apply) => return self.apply(apply),
        }
        Ok(())
    }

    fn apply(&mut self, apply: Apply) -> Result<(), Vec<IpAddr>> {
        let Apply { key, part, body, over, .. } = apply;
        let before = self.objects.get(&key);
        let version = before.map(|b| b["metadata"]["resourceVersion"].as_str().unwrap().to_owned());
        assert_eq!(version, over, "{key} is made once, and changed as it was seen");
        if let Some(before) = before.filter(|_| key.kind == Kind::Slice) {
            let label = |object: &Value| object["metadata"]["labels"][KUBE_PROXY].clone();
            assert_eq!(label(before), label(&body), "kube-proxy would not notice");
        }
        let mut object = before.cloned().unwrap_or_else(|| json!({}));
        if let Some(former) = self.owned.get(&(key.clone(), part)) {
            disown(&mut object, former);
        }
        lay(&mut object, body.clone());
        let mut fields = fields(&body);
        let metadata = fields["f:metadata"].as_object_mut().unwrap();
        metadata.remove("f:name");
        metadata.remove("f:namespace");
        if metadata.is_empty() {
            fields.as_object_mut().unwrap().remove("f:metadata");
        }
        self.owned.insert((key.clone(), part), fields);
        if key.kind == Kind::Service {
            self.address(&mut object)?;
        }
        if part == Part::Main {
            let generation = object["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            object["metadata"]["generation"] = json!(generation);
        }
        let entry = |part: Part, name: Option<&str>| {
            let fields = self.owned.get(&(key.clone(), part))?;
            let mut entry = json!({ "manager": MANAGER, "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": fields });
            if let Some(name) = name {
                entry["subresource"] = json!(name);
            }
            Some(entry)
        };
        let entries: Vec<Value> =
            [entry(Part::Main, None), entry(Part::Status, Some("status"))].into_iter().flatten().collect();
        object["metadata"]["managedFields"] = json!(entries);
        self.store(&key, object);
        Ok(())
    }

    fn store(&mut self, key: &ObjectKey, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{}", self.version));
        }
        self.objects.insert(key.clone(), object);
    }

    fn address(&mut self, service: &mut Value) -> Result<(), Vec<IpAddr>> {
        let count = service["spec"]["ipFamilies"].as_array().unwrap().len();
        let asked: Vec<IpAddr> =
            serde_json::from_value(service["spec"]["clusterIPs"].clone()).unwrap_or_default();
        if service["metadata"]["uid"].is_null() && asked.iter().any(|a| self.taken.contains(a)) {
            return Err(asked);
        }
        let mut given: Vec<String> = asked.iter().take(count).map(ToString::to_string).collect();
        while given.len() < count {
            self.addresses += 1;
            let v4 = service["spec"]["ipFamilies"][given.len()] == json!("IPv4");
            let n = self.addresses;
            given.push(if v4 { format!("10.96.0.{n}") } else { format!("fd00::{n}") });
        }
        service["spec"]["clusterIP"] = json!(given[0]);
        service["spec"]["clusterIPs"] = json!(given);
        Ok(())
    }
}

fn fields(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            Value::Object(object.iter().map(|(k, v)| (format!("f:{k}"), fields(v))).collect())
        }
        _ => json!({}),
    }
}

fn lay(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.into_iter().for_each(|(key, value)| lay(into.entry(key).or_insert(json!({})), value));
        }
        (into, from) => *into = from,
    }
}

fn disown(object: &mut Value, owned: &Value) {
    let (Value::Object(object), Value::Object(owned)) = (object, owned) else { return };
    for (key, below) in owned {
        let name = key.strip_prefix("f:").unwrap();
        if below.as_object().is_some_and(|b| !b.is_empty()) {
            object.get_mut(name).into_iter().for_each(|value| disown(value, below));
        } else {
            object.remove(name);
        }
    }
}

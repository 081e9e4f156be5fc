//! Which fields of a ServiceImport the installed CRD declares. An older one, of somebody else, has fewer, and the API
//! server refuses an apply that names another: what it does not declare is left out.

use serde_json::Value;
use std::collections::BTreeSet;

/// The fields that versions of the CRD do not all have.
const SPEC: [&str; 5] = [
    "ipFamilies",
    "internalTrafficPolicy",
    "trafficDistribution",
    "sessionAffinity",
    "sessionAffinityConfig",
];
const STATUS: [&str; 2] = ["conditions", "endpointSliceObjects"];

/// The fields that are missing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Missing {
    spec: BTreeSet<&'static str>,
    status: BTreeSet<&'static str>,
}

impl Missing {
    /// Reads the OpenAPI v3 document of the group's version; `None` when it does not describe ServiceImports.
    #[must_use]
    pub fn of(document: &Value) -> Option<Self> {
        let schemas = document.pointer("/components/schemas")?.as_object()?;
        let import = schemas.values().find(|schema| {
            let kinds = schema["x-kubernetes-group-version-kind"].as_array();
            kinds.is_some_and(|kinds| kinds.iter().any(|k| k["kind"] == "ServiceImport"))
        })?;
        let lacks = |part: &str, fields: &[&'static str]| {
            let part = &import["properties"][part];
            // A part without a schema of its own takes every field.
            let Some(declared) = part["properties"].as_object() else { return BTreeSet::new() };
            let open = part["x-kubernetes-preserve-unknown-fields"] == true;
            fields.iter().copied().filter(|f| !open && !declared.contains_key(*f)).collect()
        };
        Some(Missing { spec: lacks("spec", &SPEC), status: lacks("status", &STATUS) })
    }

    /// Takes the missing fields out of an object.
    pub fn prune(&self, object: &mut Value) {
        for (part, missing) in [("spec", &self.spec), ("status", &self.status)] {
            if let Some(Value::Object(part)) = object.get_mut(part) {
                part.retain(|field, _| !missing.contains(field.as_str()));
            }
        }
    }

    /// The missing fields, as a person would name them.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let spec = self.spec.iter().map(|field| format!("spec.{field}"));
        spec.chain(self.status.iter().map(|field| format!("status.{field}"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document(status: Value) -> Value {
        let spec = json!({ "properties": { "type": {}, "ports": {}, "ips": {}, "sessionAffinity": {},
            "sessionAffinityConfig": {} } });
        json!({ "components": { "schemas": {
            "x.ServiceExport": { "x-kubernetes-group-version-kind": [{ "kind": "ServiceExport" }] },
            "x.ServiceImport": {
                "properties": { "spec": spec, "status": status },
                "x-kubernetes-group-version-kind": [{ "kind": "ServiceImport" }],
            },
        } } })
    }

    #[test]
    fn what_an_older_crd_does_not_declare_is_left_out() {
        let missing = Missing::of(&document(json!({ "properties": { "clusters": {} } }))).unwrap();
        assert_eq!(
            missing.names(),
            [
                "spec.internalTrafficPolicy",
                "spec.ipFamilies",
                "spec.trafficDistribution",
                "status.conditions",
                "status.endpointSliceObjects",
            ]
        );
        let mut object = json!({
            "metadata": { "name": "web" },
            "spec": { "type": "Headless", "ipFamilies": ["IPv4"] },
            "status": { "clusters": [], "conditions": [], "endpointSliceObjects": "Present" },
        });
        missing.prune(&mut object);
        let left = json!({ "metadata": { "name": "web" }, "spec": { "type": "Headless" }, "status": { "clusters": [] } });
        assert_eq!(object, left);
    }

    #[test]
    fn a_part_that_takes_every_field_lacks_none() {
        for open in [json!({}), json!({ "properties": {}, "x-kubernetes-preserve-unknown-fields": true })] {
            assert!(Missing::of(&document(open)).unwrap().status.is_empty());
        }
        assert_eq!(Missing::of(&json!({ "components": { "schemas": {} } })), None);
    }
}

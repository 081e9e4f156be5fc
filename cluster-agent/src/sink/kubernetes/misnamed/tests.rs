use super::*;
use crate::config::tests::name;
use crate::sink::kubernetes::schema::Missing;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sealane_core::identity::FederationId;
use sealane_core::time::{Millis, Revision};
use serde_json::Value;

fn setting() -> Setting {
    Setting {
        cluster: name("east"),
        families: vec![],
        api: "multicluster.x-k8s.io/v1beta1".to_owned(),
        missing: Missing::default(),
        federation: FederationId([7; 16]),
        revision: Revision::default(),
        now: Millis(1_767_323_045_000),
    }
}

fn one() -> ObjectKey {
    ObjectKey { kind: Kind::Export, namespace: name("shop"), name: "my.service".to_owned() }
}

/// How the API server gives it back with this status, which our apply owns.
fn seen(status: &Value) -> Seen {
    let fields = serde_json::json!({ "f:status": { "f:conditions": {} } });
    let meta = serde_json::json!({
        "name": "my.service", "namespace": "shop", "uid": "u", "resourceVersion": "7", "generation": 2,
        "managedFields": [{ "manager": "sealane-agent", "operation": "Apply", "subresource": "status",
                            "fieldsType": "FieldsV1", "fieldsV1": fields }],
    });
    let meta: ObjectMeta = serde_json::from_value(meta).unwrap();
    Seen::of(Kind::Export, &meta, &serde_json::json!({ "status": status }))
}

#[test]
fn an_export_that_no_service_can_be_named_like_is_not_valid_and_says_why_once() {
    let mut exports = MisnamedExports::default();
    let now = Instant::now();
    exports.put((one(), seen(&Value::Null)));
    assert_eq!(exports.due(&setting(), now, 0), [], "there is no room");
    let due = exports.due(&setting(), now, 1);
    let [(key, effects)] = &due[..] else { panic!("{due:?}") };
    let [Effect::Apply(apply), Effect::Tell(note)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((key, apply.part, apply.over.as_deref()), (&one(), Part::Status, Some("7")));
    let conditions: Vec<Condition> =
        serde_json::from_value(apply.body["status"]["conditions"].clone()).unwrap();
    let told: Vec<String> = conditions
        .iter()
        .map(|c| format!("{}={}/{} {:?}", c.kind, c.status, c.reason, c.observed_generation))
        .collect();
    assert_eq!(told, ["Valid=False/NoService Some(2)", "Ready=False/Pending Some(2)"]);
    let message = "no Service can have this name, which must be 1 to 63 of a-z, 0-9 and '-', and begin and end with a \
                   letter or digit: give the ServiceExport the name of the Service that it is to export";
    assert_eq!((conditions[0].message.as_str(), note.message.as_str()), (message, message));

    assert_eq!(exports.due(&setting(), now, 1), [], "it is under way");
    assert_eq!(exports.due(&setting(), now + RETRY, 1), due, "it was not seen to be written");
    exports.put((one(), seen(&apply.body["status"])));
    assert_eq!(exports.due(&setting(), now, 1), [], "it says so");
    exports.put((one(), seen(&Value::Null)));
    exports.list(vec![]);
    assert_eq!(exports.due(&setting(), now, 1), [], "it is gone");
}

use super::*;

fn entry(manager: &str, operation: &str, subresource: Option<&str>, fields: Value) -> ManagedFieldsEntry {
    ManagedFieldsEntry {
        manager: Some(manager.to_owned()),
        operation: Some(operation.to_owned()),
        subresource: subresource.map(str::to_owned),
        fields_v1: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1(fields)),
        ..ManagedFieldsEntry::default()
    }
}

fn service() -> Value {
    serde_json::json!({
        "metadata": { "name": "s", "labels": { MANAGED_BY: MANAGER, "mine": "1", "theirs": "2" } },
        "spec": {
            "clusterIP": "10.0.0.7",
            "clusterIPs": ["10.0.0.7", "fd00::7"],
            "ports": [
                { "name": "b", "port": 81, "protocol": "TCP", "targetPort": 81 },
                { "name": "a", "port": 80, "protocol": "TCP", "targetPort": 80 },
            ],
            "type": "ClusterIP",
        },
    })
}

fn meta(entries: Vec<ManagedFieldsEntry>) -> ObjectMeta {
    let labels = BTreeMap::from([(MANAGED_BY.to_owned(), MANAGER.to_owned())]);
    ObjectMeta { managed_fields: Some(entries), labels: Some(labels), ..ObjectMeta::default() }
}

use std::collections::BTreeMap;

fn ours() -> ManagedFieldsEntry {
    let port = |number: u16| format!("k:{{\"port\":{number},\"protocol\":\"TCP\"}}");
    let below = serde_json::json!({ ".": {}, "f:name": {}, "f:port": {}, "f:protocol": {} });
    entry(
        MANAGER,
        "Apply",
        None,
        serde_json::json!({
            "f:metadata": { "f:labels": { format!("f:{MANAGED_BY}"): {}, "f:mine": {} } },
            "f:spec": { "f:ports": { port(80): below, port(81): below }, "f:clusterIPs": {} },
        }),
    )
}

#[test]
fn what_we_own_is_what_we_applied() {
    let applied = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "s",
            "namespace": "n",
            "labels": { MANAGED_BY: MANAGER, "mine": "1" },
            "annotations": { REVISION: "1.7" },
        },
        "spec": {
            "ports": [
                { "name": "a", "port": 80, "protocol": "TCP" },
                { "name": "b", "port": 81, "protocol": "TCP" },
            ],
        },
    });
    let wanted = Digest::of(Kind::Service, Part::Main, &applied);
    let kubectl = entry(
        "kubectl",
        "Update",
        None,
        serde_json::json!({ "f:metadata": { "f:labels": { "f:theirs": {} } } }),
    );
    let seen = Seen::of(Kind::Service, &meta(vec![kubectl.clone(), ours()]), &service());
    assert!(seen.is(Part::Main, wanted), "defaults, addresses, and what others own do not count");
    assert_eq!(seen.owner, Owner::Ours);
    assert_eq!(seen.addresses, ["10.0.0.7".parse::<IpAddr>().unwrap(), "fd00::7".parse().unwrap()]);

    let mut changed = service();
    changed["metadata"]["labels"]["mine"] = serde_json::json!("other");
    let seen = Seen::of(Kind::Service, &meta(vec![ours()]), &changed);
    assert!(!seen.is(Part::Main, wanted));

    let seen = Seen::of(Kind::Service, &meta(vec![kubectl]), &service());
    assert_eq!(seen.owner, Owner::Foreign(vec!["kubectl".to_owned()]), "a label alone makes nothing ours");
    let bare = ObjectMeta { labels: None, ..meta(vec![ours()]) };
    assert_eq!(Seen::of(Kind::Service, &bare, &service()).owner, Owner::Unlabelled);
}

#[test]
fn a_status_is_compared_by_its_own_entry_and_its_other_writers_are_known() {
    let condition = serde_json::json!({
        "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z", "reason": "Ready", "message": "",
    });
    let object = serde_json::json!({ "spec": { "a": 1 }, "status": { "conditions": [condition] } });
    let fields = serde_json::json!({ "f:status": { "f:conditions": { "k:{\"type\":\"Ready\"}": {
        ".": {}, "f:type": {}, "f:status": {}, "f:lastTransitionTime": {}, "f:reason": {}, "f:message": {},
    } } } });
    let other = entry("another-controller", "Update", Some("status"), serde_json::json!({ "f:status": {} }));
    let entries = vec![entry(MANAGER, "Apply", Some("status"), fields), other];
    let seen = Seen::of(Kind::Export, &meta(entries), &object);
    let wanted = serde_json::json!({ "status": { "conditions": [condition] }, "metadata": { "name": "x" } });
    assert!(seen.is(Part::Status, Digest::of(Kind::Export, Part::Status, &wanted)));
    assert_eq!(seen.status_writers, ["another-controller"]);
    assert_eq!(seen.conditions.len(), 1);
}

#[test]
fn what_the_api_server_made_of_it_is_remembered_while_it_lasts() {
    let object = service();
    let mut seen = Seen::of(Kind::Service, &meta(vec![ours()]), &object);
    let asked = Digest::of(Kind::Service, Part::Main, &serde_json::json!({ "spec": { "unknown": true } }));
    assert!(!seen.is(Part::Main, asked));
    seen.answered(Part::Main, asked);
    let mut again = Seen::of(Kind::Service, &meta(vec![ours()]), &object);
    again.remember(&seen);
    assert!(again.is(Part::Main, asked));
    let mut changed = object;
    changed["metadata"]["labels"]["mine"] = serde_json::json!("other");
    let mut other = Seen::of(Kind::Service, &meta(vec![ours()]), &changed);
    other.remember(&again);
    assert!(!other.is(Part::Main, asked));
}

#[test]
fn who_writes_a_status_is_told_even_where_the_api_server_does_not_record_it() {
    let status = serde_json::json!({ "status": { "conditions": [{ "type": "Valid" }] } });
    let writers = |entries: Vec<ManagedFieldsEntry>, object: &Value| {
        Seen::of(Kind::Export, &meta(entries), object).status_writers
    };
    assert_eq!(writers(Vec::new(), &status), ["somebody unnamed"]);
    assert_eq!(writers(Vec::new(), &serde_json::json!({ "status": {} })), Vec::<String>::new());
    let of_status = serde_json::json!({ "f:status": { "f:conditions": {} } });
    let before = entry("before-first-apply", "Update", None, of_status);
    assert_eq!(writers(vec![before], &status), ["before-first-apply"]);
    assert_eq!(
        writers(vec![entry(MANAGER, "Apply", Some("status"), Value::Null)], &status),
        Vec::<String>::new()
    );
}

#[test]
fn an_object_is_about_its_service_whatever_became_of_its_label() {
    let meta = |name: &str, label: Option<&str>, owner: Option<(&str, &str)>| -> ObjectMeta {
        let labels = label.map(|label| serde_json::json!({ SLICE_SERVICE: label }));
        let owner = owner.map(
            |(kind, name)| serde_json::json!([{ "apiVersion": "v", "kind": kind, "name": name, "uid": "u" }]),
        );
        let meta = serde_json::json!({ "name": name, "namespace": "shop", "labels": labels, "ownerReferences": owner });
        serde_json::from_value(meta).unwrap()
    };
    let of = |kind, meta: ObjectMeta| service_of(kind, &meta).map(|service| service.to_string());
    let derived = derived::name(&ServiceKey::parse("shop/web-shop").unwrap());
    let slice = |label| of(Kind::Slice, meta("web-shop-west-abcdefghij", label, Some(("Service", &derived))));
    let web = Some("shop/web-shop".to_owned());
    assert_eq!(
        [slice(Some("web-shop")), slice(None), slice(Some("web"))],
        [web.clone(), web.clone(), web.clone()]
    );
    let owned = |kind, label| of(kind, meta("x", label, Some(("ServiceImport", "web-shop"))));
    assert_eq!([owned(Kind::Slice, None), owned(Kind::Service, Some("other"))], [web.clone(), web.clone()]);
    assert_eq!(of(Kind::Slice, meta("x", Some("web-shop"), None)), web);
    assert_eq!(of(Kind::Slice, meta("web-shop-west-abcdefghij", None, Some(("Service", "theirs")))), None);
}

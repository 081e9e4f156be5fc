//! Labels and annotations that may not cross clusters.

use std::collections::BTreeMap;

/// What is left of exported labels without reserved keys; what was dropped is noted.
pub(super) fn keep(
    field: &str,
    given: &BTreeMap<String, String>,
    notes: &mut Vec<String>,
) -> BTreeMap<String, String> {
    let (dropped, kept): (BTreeMap<_, _>, BTreeMap<_, _>) =
        given.iter().map(|(k, v)| (k.clone(), v.clone())).partition(|(key, _)| reserved(key));
    for key in dropped.keys() {
        notes.push(format!("spec.{field}: {key} is reserved and was left out"));
    }
    kept
}

/// Keys that controllers act on: an exporter must not steer an importer's controllers.
fn reserved(key: &str) -> bool {
    let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
    let within =
        |domain: &str| prefix == domain || prefix.strip_suffix(domain).is_some_and(|p| p.ends_with('.'));
    let managed_by = key == "app.kubernetes.io/managed-by";
    // The recommended labels of applications describe, nobody acts on them; all but the manager's name may cross.
    let descriptive = prefix == "app.kubernetes.io" && !managed_by;
    !descriptive && (managed_by || within("sealane.dev") || within("kubernetes.io") || within("k8s.io"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_keys_are_dropped_and_named() {
        let keys = [
            ("team", true),
            ("example.com/team", true),
            ("app.kubernetes.io/name", true),
            ("app.kubernetes.io/managed-by", false),
            ("kubernetes.io/service-name", false),
            ("multicluster.kubernetes.io/service-name", false),
            ("multicluster.x-k8s.io/x", true),
            ("gateway.networking.k8s.io/x", false),
            ("sealane.dev/importers", false),
        ];
        for (key, expected) in keys {
            let mut notes = Vec::new();
            let kept =
                keep("exportedLabels", &BTreeMap::from([(key.to_owned(), "v".to_owned())]), &mut notes);
            assert_eq!((kept.len() == 1, notes.is_empty()), (expected, expected), "{key}");
        }
    }
}

//! Whether an object of the API server is ours. Law: two things must say so, our label and our entry in its `managedFields`;
//! others may write the one or the other.

use crate::desired::MANAGER;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};

/// Whether an entry is of our server-side applies.
#[must_use]
pub fn is_applied(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(MANAGER) && entry.operation.as_deref() == Some("Apply")
}

/// Whether an entry is about a status alone.
#[must_use]
pub fn is_of_status(entry: &ManagedFieldsEntry) -> bool {
    entry.subresource.as_deref() == Some("status")
}

/// Whether we applied anything of an object, be it its status alone.
#[must_use]
pub fn has_our_entry(meta: &ObjectMeta) -> bool {
    meta.managed_fields.iter().flatten().any(is_applied)
}

/// Whether we applied an object itself.
#[must_use]
pub fn is_made(meta: &ObjectMeta) -> bool {
    meta.managed_fields.iter().flatten().any(|entry| is_applied(entry) && !is_of_status(entry))
}

/// Whether an object bears a label of this value.
#[must_use]
pub fn bears(meta: &ObjectMeta, label: &str, value: &str) -> bool {
    meta.labels.as_ref().and_then(|labels| labels.get(label)).is_some_and(|found| found == value)
}

/// Whether an object is ours: we applied it, and it has our label.
#[must_use]
pub fn is_ours(meta: &ObjectMeta, label: &str) -> bool {
    bears(meta, label, MANAGER) && is_made(meta)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::MANAGED_BY;

    #[test]
    fn a_label_alone_or_an_entry_alone_makes_nothing_ours() {
        let entry = |manager: &str, operation: &str, status: bool| ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            operation: Some(operation.to_owned()),
            subresource: status.then(|| "status".to_owned()),
            ..ManagedFieldsEntry::default()
        };
        let judged = |label: &str, entry: ManagedFieldsEntry| {
            let meta = ObjectMeta {
                labels: Some([(MANAGED_BY.to_owned(), label.to_owned())].into()),
                managed_fields: Some(vec![entry]),
                ..ObjectMeta::default()
            };
            [has_our_entry(&meta), is_made(&meta), is_ours(&meta, MANAGED_BY)]
        };
        assert_eq!(judged(MANAGER, entry(MANAGER, "Apply", false)), [true, true, true]);
        assert_eq!(judged("another", entry(MANAGER, "Apply", false)), [true, true, false]);
        assert_eq!(judged(MANAGER, entry(MANAGER, "Apply", true)), [true, false, false]);
        assert_eq!(judged(MANAGER, entry(MANAGER, "Update", false)), [false, false, false]);
        assert_eq!(judged(MANAGER, entry("another", "Apply", false)), [false, false, false]);
        let bare = ObjectMeta::default();
        assert_eq!([has_our_entry(&bare), is_ours(&bare, MANAGED_BY)], [false, false]);
    }
}

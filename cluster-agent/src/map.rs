//! Maps that share structure: a clone costs nothing, and what two of them differ in is found in the time that the
//! differences take, not the maps.

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use std::sync::Arc;

/// A map of shared values. Two values that are one in memory are known to be equal without a look at them.
pub type Shared<K, V> = OrdMap<K, Arc<V>>;

/// Gives the key its value, or none; one that does not differ stays the value that it was. Says whether it differs.
pub fn set<K: Ord + Clone, V: PartialEq>(map: &mut Shared<K, V>, key: &K, value: Option<V>) -> bool {
    match (map.get(key), value) {
        (None, None) => false,
        (Some(old), Some(new)) if **old == new => false,
        (_, Some(new)) => {
            map.insert(key.clone(), Arc::new(new));
            true
        }
        (Some(_), None) => map.remove(key).is_some(),
    }
}

/// The keys whose values differ between two maps, in order.
pub fn changed<'a, K: Ord, V: PartialEq>(
    before: &'a OrdMap<K, V>,
    after: &'a OrdMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    before.diff(after).map(|difference| match difference {
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) => key,
        DiffItem::Update { new: (key, _), .. } => key,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    type Plain = BTreeMap<u16, u8>;

    fn shared(plain: &Plain) -> Shared<u16, u8> {
        plain.iter().map(|(k, v)| (*k, Arc::new(*v))).collect()
    }

    proptest! {
        #[test]
        fn what_changed_is_what_differs(
            first in proptest::collection::btree_map(0u16..400, 0u8..4, 0..300),
            steps in proptest::collection::vec((0u16..400, proptest::option::of(0u8..4)), 0..60),
        ) {
            let before = shared(&first);
            let (mut after, mut plain) = (before.clone(), first.clone());
            for (key, value) in steps {
                let differs = plain.get(&key).copied() != value;
                prop_assert_eq!(set(&mut after, &key, value), differs);
                match value {
                    Some(value) => plain.insert(key, value),
                    None => plain.remove(&key),
                };
            }
            prop_assert_eq!(&after, &shared(&plain));
            let keys: BTreeSet<u16> = first.keys().chain(plain.keys()).copied().collect();
            let expected: Vec<u16> = keys.into_iter().filter(|k| first.get(k) != plain.get(k)).collect();
            let found: Vec<u16> = changed(&before, &after).copied().collect();
            prop_assert_eq!(found, expected);
        }
    }
}

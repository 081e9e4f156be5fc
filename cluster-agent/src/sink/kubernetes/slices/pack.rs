//! Which endpoints of a group are in which of its slices: those that are somewhere stay there, so that what comes or goes
//! rewrites as few objects as it can. As Kubernetes' own EndpointSlice controller does it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The most endpoints in a slice: as many as Kubernetes itself puts there.
pub(super) const MOST: usize = 100;
/// A slice that lost something joins another one where both together have no more than this: far below, so that what comes
/// next does not part them again.
const FEW: usize = 50;

/// The endpoints of the slices of a group, by the slices' numbers.
pub(super) type Packs = BTreeMap<usize, BTreeSet<IpAddr>>;

/// The slices that hold what is wanted, each endpoint once, changed as little as can be from those that are there.
pub(super) fn pack(there: &Packs, wanted: &BTreeSet<IpAddr>) -> Packs {
    let mut homeless = wanted.clone();
    let (mut packs, mut lost) = (Packs::new(), BTreeSet::new());
    for (number, held) in there {
        let stay = held.iter().filter(|address| wanted.contains(address));
        let kept: BTreeSet<IpAddr> =
            stay.copied().filter(|address| homeless.contains(address)).take(MOST).collect();
        for address in &kept {
            homeless.remove(address);
        }
        if kept.len() < held.len() {
            lost.insert(*number);
        }
        packs.insert(*number, kept);
    }
    // Where something goes the slice is written anyway.
    for number in &lost {
        if let Some(pack) = packs.get_mut(number) {
            fill(pack, &mut homeless);
        }
    }
    while !homeless.is_empty() {
        fill(packs.entry(place(&packs, homeless.len())).or_default(), &mut homeless);
    }
    packs.retain(|_, pack| !pack.is_empty());
    lost.iter().for_each(|number| join(&mut packs, *number));
    packs
}

/// Puts into a slice what it has room for.
fn fill(pack: &mut BTreeSet<IpAddr>, homeless: &mut BTreeSet<IpAddr>) {
    while pack.len() < MOST
        && let Some(address) = homeless.pop_first()
    {
        pack.insert(address);
    }
}

/// Where so many go: the fullest slice that has room for all of them, else a new one.
fn place(packs: &Packs, count: usize) -> usize {
    let fits = packs.iter().filter(|(_, pack)| pack.len() + count <= MOST);
    let fullest = fits.max_by_key(|(number, pack)| (pack.len(), usize::MAX - **number));
    let free = || (0..).find(|number| !packs.contains_key(number)).unwrap_or(packs.len());
    fullest.map_or_else(free, |(number, _)| *number)
}

/// A slice that has few left goes into another that has few.
fn join(packs: &mut Packs, number: usize) {
    let Some(few) = packs.get(&number).map(BTreeSet::len) else { return };
    let others = packs.iter().filter(|(other, pack)| **other != number && pack.len() + few <= FEW);
    let Some(fullest) = others.max_by_key(|(_, pack)| pack.len()).map(|(other, _)| *other) else { return };
    let larger = packs.get(&fullest).is_some_and(|pack| pack.len() >= few);
    let (from, to) = if larger { (number, fullest) } else { (fullest, number) };
    let moved = packs.remove(&from).unwrap_or_default();
    packs.entry(to).or_default().extend(moved);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn address(n: u32) -> IpAddr {
        Ipv4Addr::from(0x0a02_0000 + n).into()
    }

    fn set(numbers: impl IntoIterator<Item = u32>) -> BTreeSet<IpAddr> {
        numbers.into_iter().map(address).collect()
    }

    fn sizes(packs: &Packs) -> Vec<(usize, usize)> {
        packs.iter().map(|(number, pack)| (*number, pack.len())).collect()
    }

    /// How many slices are made, changed or removed.
    fn touched(before: &Packs, after: &Packs) -> usize {
        let numbers: BTreeSet<&usize> = before.keys().chain(after.keys()).collect();
        numbers.into_iter().filter(|number| before.get(number) != after.get(number)).count()
    }

    #[test]
    fn slices_are_filled_one_after_the_other_and_joined_when_far_below() {
        let hundred = pack(&Packs::new(), &set(0..100));
        assert_eq!(sizes(&hundred), [(0, 100)]);
        let more = pack(&hundred, &set(0..101));
        assert_eq!(sizes(&more), [(0, 100), (1, 1)]);
        assert_eq!(touched(&hundred, &more), 1, "one more at the limit moves no other");
        let many = pack(&Packs::new(), &set(0..250));
        assert_eq!(sizes(&many), [(0, 100), (1, 100), (2, 50)]);
        // One goes and another one comes: the slice that lost one takes it.
        let other = pack(&many, &set((0..250).map(|n| if n == 7 { 999 } else { n })));
        assert_eq!((sizes(&other), touched(&many, &other)), (sizes(&many), 1));
        // It stays apart until both are far below.
        let fewer = pack(&more, &set((50..101).chain([200])));
        assert_eq!(sizes(&fewer), [(0, 51), (1, 1)]);
        let few = pack(&fewer, &set((52..101).chain([200])));
        assert_eq!(sizes(&few), [(0, 50)]);
        assert_eq!(pack(&few, &BTreeSet::new()), Packs::new());
    }

    #[test]
    fn an_endpoint_that_is_in_two_slices_leaves_one_and_a_stranger_goes() {
        let there = Packs::from([(3, set([1, 2, 77])), (5, set([2]))]);
        assert_eq!(pack(&there, &set([1, 2])), Packs::from([(3, set([1, 2]))]));
    }

    proptest! {
        #[test]
        fn every_endpoint_is_in_one_slice_and_a_change_touches_two_at_most(
            first in proptest::collection::btree_set(0u32..600, 0..500),
            steps in proptest::collection::vec(proptest::collection::vec((0u32..600, any::<bool>()), 1..80), 0..12),
            last in (0u32..600, any::<bool>()),
        ) {
            let mut wanted = set(first);
            let mut packs = pack(&Packs::new(), &wanted);
            let changes = steps.into_iter().chain([vec![last]]);
            for step in changes {
                let one = step.len() == 1;
                for (n, comes) in step {
                    if comes { wanted.insert(address(n)) } else { wanted.remove(&address(n)) };
                }
                let next = pack(&packs, &wanted);
                let held: Vec<IpAddr> = next.values().flatten().copied().collect();
                prop_assert_eq!(held.len(), wanted.len());
                prop_assert_eq!(held.into_iter().collect::<BTreeSet<_>>(), wanted.clone());
                prop_assert!(next.values().all(|pack| (1..=MOST).contains(&pack.len())));
                prop_assert!(!one || touched(&packs, &next) <= 2);
                prop_assert_eq!(&pack(&next, &wanted), &next, "what is right stays");
                packs = next;
            }
        }
    }
}

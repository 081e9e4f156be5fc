//! The choice among candidates: a pure function of what is seen of them and one random number.

use crate::balance::Standing;
use sealane_core::view::Tier;

/// A candidate as the choice sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Its tier.
    pub(crate) tier: Tier,
    /// Its share within the tier; 0 takes nothing.
    pub(crate) weight: u32,
    /// How it stands.
    pub(crate) standing: Standing,
    /// Whether this connection tried it already.
    pub(crate) tried: bool,
}

/// The candidate for the next attempt: of the best tier that has one that is not ejected, by weight. When all are
/// ejected the best of those is tried rather than none.
pub(crate) fn pick(candidates: &[Seen], roll: u64) -> Option<usize> {
    let open = |c: &Seen| !c.tried && c.weight > 0;
    weighted(candidates, roll, |c| open(c) && c.standing != Standing::Ejected)
        .or_else(|| weighted(candidates, roll, open))
}

fn weighted(candidates: &[Seen], roll: u64, eligible: impl Fn(&Seen) -> bool) -> Option<usize> {
    let tier = candidates.iter().filter(|c| eligible(c)).map(|c| c.tier).min()?;
    let of_tier = || candidates.iter().enumerate().filter(|(_, c)| eligible(c) && c.tier == tier);
    let total: u64 = of_tier().map(|(_, c)| u64::from(c.weight)).sum();
    let mut left = roll % total;
    of_tier().find_map(|(at, c)| {
        let weight = u64::from(c.weight);
        if left < weight {
            return Some(at);
        }
        left -= weight;
        None
    })
}

/// An endpoint as its own gateway sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// How it stands.
    pub(crate) standing: Standing,
    /// Connections that it has from us now.
    pub(crate) load: u32,
    /// Whether this connection tried it already.
    pub(crate) tried: bool,
}

/// The endpoint for the next attempt: the less loaded of two random ones that are not ejected; when all are, of all.
pub(crate) fn pick_place(places: &[Place], roll: u64) -> Option<usize> {
    let candidates = |ejected: bool| -> Vec<usize> {
        let open = |p: &Place| !p.tried && (ejected || p.standing != Standing::Ejected);
        places.iter().enumerate().filter(|(_, p)| open(p)).map(|(at, _)| at).collect()
    };
    let mut open = candidates(false);
    if open.is_empty() {
        open = candidates(true);
    }
    let n = open.len() as u64;
    let (first, second) = match n {
        0 => return None,
        1 => return open.first().copied(),
        _ => {
            let first = roll % n;
            // A second one that is never the first.
            (first, (first + 1 + (roll >> 32) % (n - 1)) % n)
        }
    };
    let at = |i: u64| usize::try_from(i).ok().and_then(|i| open.get(i).copied());
    let (first, second) = (at(first)?, at(second)?);
    Some(if places[second].load < places[first].load { second } else { first })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Standing::{Ejected, HalfOpen, Healthy};
    use Tier::{Avoided, Local, Remote};

    fn seen(tier: Tier, weight: u32, standing: Standing, tried: bool) -> Seen {
        Seen { tier, weight, standing, tried }
    }

    #[test]
    fn the_best_tier_with_a_working_candidate_is_taken() {
        let local = seen(Local, 1, Healthy, false);
        let remote = seen(Remote, 3, Healthy, false);
        let avoided = seen(Avoided, 1, Healthy, false);
        let ejected = |c: Seen| Seen { standing: Ejected, ..c };
        let tried = |c: Seen| Seen { tried: true, ..c };
        for (name, candidates, expected) in [
            ("local first", vec![remote, local], Some(1)),
            ("remote when local is ejected", vec![ejected(local), remote], Some(1)),
            ("remote when local was tried", vec![tried(local), remote], Some(1)),
            ("half-open counts as working", vec![Seen { standing: HalfOpen, ..local }, remote], Some(0)),
            ("avoided rather than ejected", vec![ejected(remote), avoided], Some(1)),
            ("ejected rather than nothing", vec![tried(avoided), ejected(remote)], Some(1)),
            ("the best of the ejected", vec![ejected(remote), ejected(local)], Some(1)),
            ("no weight takes nothing", vec![Seen { weight: 0, ..local }], None),
            ("all tried", vec![tried(local), tried(remote)], None),
            ("none", vec![], None),
        ] {
            assert_eq!(pick(&candidates, 0), expected, "{name}");
        }
    }

    #[test]
    fn shares_follow_weights() {
        let candidates = [seen(Remote, 3, Healthy, false), seen(Remote, 1, Healthy, false)];
        let chosen: Vec<_> = (0..8).map(|roll| pick(&candidates, roll)).collect();
        assert_eq!(chosen, [0, 0, 0, 1, 0, 0, 0, 1].map(Some));
    }

    #[test]
    fn the_less_loaded_of_two_is_taken() {
        let place = |load, standing, tried| Place { standing, load, tried };
        let places = [place(5, Healthy, false), place(1, Healthy, false)];
        assert!((0..20).all(|roll| pick_place(&places, roll) == Some(1)));
        let places = [place(0, Ejected, false), place(9, Healthy, false), place(0, Healthy, true)];
        assert_eq!(pick_place(&places, 7), Some(1));
        let places = [place(0, Ejected, false), place(0, Healthy, true)];
        assert_eq!(pick_place(&places, 7), Some(0), "ejected rather than none");
        assert_eq!(pick_place(&[], 7), None);
        let three = [place(0, Healthy, false); 3];
        let mut taken: Vec<_> = (0..9u64).filter_map(|r| pick_place(&three, r)).collect();
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken, [0, 1, 2], "each of three is taken at times");
    }
}

//! What goes wrong, and when: one named fault after another.

use super::profile::Profile;
use super::random::Random;

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Every process ends, and every disk forgets.
    PowerCut,
    /// A process ends.
    Crash(u64),
    /// A process ends after so many effects, in the middle of a round.
    Fuse(u64, u32),
    /// A server hears nobody and nobody hears it.
    Isolate(u64),
    /// Nothing passes from one to the other; all else does.
    OneWay(u64, u64),
    /// A server hears nobody, and all hear it.
    Deaf(u64),
    /// A process stands still for so many microseconds.
    Pause(u64, u64),
    /// A sync takes so many microseconds from now on.
    SlowDisk(u64, u64),
    /// The leader is asked to hand over.
    Transfer(u64),
}

impl Trouble {
    pub(super) fn draw(profile: &Profile, random: &mut Random) -> Self {
        let mut at = random.below(profile.weights.iter().sum());
        let kind = profile.weights.iter().take_while(|weight| {
            let here = at < **weight;
            at = at.saturating_sub(**weight);
            !here
        });
        let kind = kind.count();
        let (one, other) = (random.between(1, 4), random.between(1, 3));
        match kind {
            0 => Trouble::PowerCut,
            1 => Trouble::Crash(one),
            2 => Trouble::Fuse(one, u32::try_from(random.below(60)).unwrap_or(0)),
            3 => Trouble::Isolate(one),
            4 => Trouble::OneWay(one, (one + other - 1) % 3 + 1),
            5 => Trouble::Deaf(one),
            6 => Trouble::Pause(one, random.around(600_000)),
            7 => Trouble::SlowDisk(one, random.pick(&[100, 3_000, 40_000, 200_000])),
            _ => Trouble::Transfer(one),
        }
    }
}

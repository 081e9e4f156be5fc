//! What a seed makes of the world: its weather, and how often and how badly things go wrong.

use super::random::Random;
use sealane_federation::consensus::sim::NodeConfig;

/// How the network is; parts of a thousand, and microseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    /// Messages lost.
    pub(super) lose: u64,
    /// Messages repeated.
    pub(super) repeat: u64,
    /// Messages that come much later, after many others.
    pub(super) late: u64,
    /// The usual delay.
    pub(super) delay: u64,
}

impl Weather {
    /// A network as it should be.
    pub(super) const FAIR: Weather = Weather { lose: 0, repeat: 0, late: 0, delay: 500 };
}

/// What a seed draws once.
#[derive(Debug, Clone)]
pub(super) struct Profile {
    pub(super) weather: Weather,
    /// Microseconds between faults.
    pub(super) faults_every: u64,
    /// The most microseconds that a crashed server stays away.
    pub(super) away: u64,
    /// How often each kind of fault is chosen, in the order of the nemesis' list.
    pub(super) weights: [u64; 9],
    pub(super) node: NodeConfig,
}

impl Profile {
    pub(super) fn draw(random: &mut Random) -> Self {
        let weather = Weather {
            lose: random.pick(&[0, 5, 30, 150]),
            repeat: random.pick(&[0, 10, 100]),
            late: random.pick(&[0, 5, 40]),
            delay: random.pick(&[300, 2_000, 15_000]),
        };
        let mut weights = [0; 9];
        for weight in &mut weights {
            *weight = random.pick(&[0, 1, 4]);
        }
        // Crashes are always among them.
        weights[1] += 2;
        let node = NodeConfig {
            snapshot_entries: random.pick(&[8, 25, 120]),
            tail_entries: random.pick(&[0, 4, 30]),
            ..NodeConfig::default()
        };
        Profile {
            weather,
            faults_every: random.pick(&[100_000, 300_000, 1_000_000]),
            away: random.pick(&[30_000, 400_000, 3_000_000]),
            weights,
            node,
        }
    }
}

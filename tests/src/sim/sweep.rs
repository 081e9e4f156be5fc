//! Many histories, on several threads, told in the order of their seeds.

use super::{Fault, Outcome, run};
use std::ops::{ControlFlow, Range};
use std::sync::mpsc::{Receiver, sync_channel};

/// Runs the histories of these seeds, and tells what came of each in their order until it is told to stop.
///
/// Every thread has each so-manieth seed and is at most one history ahead of what was told.
pub fn sweep(
    seeds: Range<u64>,
    fault: Option<Fault>,
    threads: usize,
    mut tell: impl FnMut(Outcome) -> ControlFlow<()>,
) {
    std::thread::scope(|scope| {
        let lane = |lane: usize| -> Receiver<Outcome> {
            let (done, outcomes) = sync_channel(1);
            let own = seeds.clone().skip(lane).step_by(threads.max(1));
            // Nobody listens any more once it was told to stop.
            scope.spawn(move || own.map(|seed| run(seed, fault)).all(|outcome| done.send(outcome).is_ok()));
            outcomes
        };
        let lanes: Vec<Receiver<Outcome>> = (0..threads.max(1)).map(lane).collect();
        for (_, lane) in seeds.clone().zip(lanes.iter().cycle()) {
            // A thread that ended early panicked, and the scope says so.
            let Ok(outcome) = lane.recv() else { return };
            if tell(outcome).is_break() {
                return;
            }
        }
    });
}

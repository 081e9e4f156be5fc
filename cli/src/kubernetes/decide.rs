//! What is to be done, from what the disk holds and what the Secret records.

use sealane_core::identity::FederationId;

/// What is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disk {
    /// Nothing, or what an interrupted founding or joining left: a server's name is written last.
    NoServer,
    /// A server of this federation.
    Server(FederationId),
}

/// Which of the servers this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The one that founds.
    First,
    /// Another one.
    Further,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Make a federation, then look again.
    Found,
    /// Write the disk's federation into the Secret, then look again.
    Record,
    /// Wait until a federation is recorded.
    Wait,
    /// Join this federation, then look again.
    Join(FederationId),
    /// Nothing: the disk is a server's of the recorded federation.
    GoOn,
}

/// The disk is of another federation than the recorded one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this disk is of the federation {disk}, but {recorded} is recorded: if the record is right, delete this server's volume \
     and it joins anew; if the disk is right, the Secret was replaced, and has to be restored from its copy"
)]
pub(super) struct OtherFederation {
    pub(super) disk: FederationId,
    pub(super) recorded: FederationId,
}

/// What is to be done.
pub(super) fn decide(
    disk: Disk,
    recorded: Option<FederationId>,
    place: Place,
) -> Result<Step, OtherFederation> {
    match (disk, recorded) {
        (Disk::Server(disk), Some(recorded)) if disk == recorded => Ok(Step::GoOn),
        (Disk::Server(disk), Some(recorded)) => Err(OtherFederation { disk, recorded }),
        // The founding was interrupted before it was recorded, or the Secret was lost. A server that has a disk says what
        // it is of, before another one with an empty disk could found a second federation.
        (Disk::Server(_), None) => Ok(Step::Record),
        (Disk::NoServer, Some(recorded)) => Ok(Step::Join(recorded)),
        (Disk::NoServer, None) => match place {
            Place::First => Ok(Step::Found),
            Place::Further => Ok(Step::Wait),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_founds_and_only_where_nothing_is_recorded() {
        let (one, other) = (FederationId([1; 16]), FederationId([2; 16]));
        let places = [Place::First, Place::Further];
        assert_eq!(places.map(|p| decide(Disk::NoServer, None, p)), [Ok(Step::Found), Ok(Step::Wait)]);
        for place in places {
            assert_eq!(decide(Disk::NoServer, Some(one), place), Ok(Step::Join(one)));
            assert_eq!(decide(Disk::Server(one), Some(one), place), Ok(Step::GoOn));
            assert_eq!(decide(Disk::Server(one), None, place), Ok(Step::Record));
            let refusal = OtherFederation { disk: one, recorded: other };
            assert_eq!(decide(Disk::Server(one), Some(other), place), Err(refusal));
        }
    }
}

//! What is to be done, from what the disk holds and what the Secret records.

use super::record::UNUSED;
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

/// What the Secret says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recorded {
    /// This federation.
    Federation(FederationId),
    /// This federation, whose record was in it and is there no more.
    Lost(FederationId),
    /// That no federation was ever recorded in it.
    Unused,
    /// Nothing: not even that it is new.
    Nothing,
}

/// What the disk and the Secret say forbids to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// The disk is of another federation than the recorded one.
    #[error(
        "this disk is of the federation {disk}, but {recorded} is recorded: if the record is right, delete this server's volume \
         and it joins anew; if the disk is right, the Secret was replaced, and has to be restored from its copy"
    )]
    OtherFederation {
        /// The disk's.
        disk: FederationId,
        /// The Secret's.
        recorded: FederationId,
    },
    /// What was recorded is gone.
    #[error(
        "the Secret recorded the federation {0} and has lost its content, and this disk is empty: no second federation is founded. \
         Delete the pod of a server that has its volume, whose next start records it again; or restore the Secret from its copy. \
         Only where that federation is gone for good, delete the Secret, and install the chart anew"
    )]
    Lost(FederationId),
    /// Nobody knows whether there is a federation.
    #[error(
        "the Secret is empty and does not say that it is new, and this disk is empty: no federation is founded, because there may \
         be one. If there is, delete the pod of a server that has its volume, whose next start records it, or restore the Secret \
         from its copy. If there was none ever: kubectl annotate secret NAME {UNUSED}=true"
    )]
    Unknown,
}

/// What is to be done.
pub(super) fn decide(disk: Disk, recorded: Recorded, place: Place) -> Result<Step, Refusal> {
    match (disk, recorded) {
        (Disk::Server(disk), Recorded::Federation(recorded)) if disk == recorded => Ok(Step::GoOn),
        (Disk::Server(disk), Recorded::Lost(recorded)) if disk == recorded => Ok(Step::Record),
        (Disk::Server(disk), Recorded::Federation(recorded) | Recorded::Lost(recorded)) => {
            Err(Refusal::OtherFederation { disk, recorded })
        }
        // The founding was interrupted before it was recorded, or the Secret was lost. A server that has a disk says what
        // it is of, before another one with an empty disk could found a second federation.
        (Disk::Server(_), Recorded::Unused | Recorded::Nothing) => Ok(Step::Record),
        (Disk::NoServer, Recorded::Federation(recorded)) => Ok(Step::Join(recorded)),
        (Disk::NoServer, Recorded::Lost(recorded)) => Err(Refusal::Lost(recorded)),
        (Disk::NoServer, Recorded::Unused) if place == Place::First => Ok(Step::Found),
        (Disk::NoServer, Recorded::Nothing) if place == Place::First => Err(Refusal::Unknown),
        (Disk::NoServer, Recorded::Unused | Recorded::Nothing) => Ok(Step::Wait),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_founds_and_only_where_nothing_was_ever_recorded() {
        let (one, other) = (FederationId([1; 16]), FederationId([2; 16]));
        let places = [Place::First, Place::Further];
        let empty = |recorded| places.map(|place| decide(Disk::NoServer, recorded, place));
        assert_eq!(empty(Recorded::Unused), [Ok(Step::Found), Ok(Step::Wait)]);
        assert_eq!(empty(Recorded::Nothing), [Err(Refusal::Unknown), Ok(Step::Wait)]);
        assert_eq!(empty(Recorded::Lost(one)), [Err(Refusal::Lost(one)); 2]);
        assert_eq!(empty(Recorded::Federation(one)), [Ok(Step::Join(one)); 2]);
        for place in places {
            let of_one = |recorded| decide(Disk::Server(one), recorded, place);
            assert_eq!(of_one(Recorded::Federation(one)), Ok(Step::GoOn));
            for recorded in [Recorded::Lost(one), Recorded::Unused, Recorded::Nothing] {
                assert_eq!(of_one(recorded), Ok(Step::Record));
            }
            for recorded in [Recorded::Lost(other), Recorded::Federation(other)] {
                let refusal = Refusal::OtherFederation { disk: one, recorded: other };
                assert_eq!(of_one(recorded), Err(refusal));
            }
        }
    }
}

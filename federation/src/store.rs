//! What rests on a server's disk: the marker, the log, snapshot files, and the restart image.
//!
//! The contract, from the anchor outwards:
//!
//! - [`log`] is the anchor of durability. What its `write` returned from is on the disk; everything acknowledged to
//!   anyone was returned from there on a majority. Damage is refused, never repaired by forgetting.
//! - [`snapshot`] files cover the log below its first entry: checksummed, synced, verified before use, two kept.
//! - [`state`] is sled, a restart image: it saves a restart from reading a snapshot and may be deleted at any time.
//!   It is never synced for its own sake, and never believed beyond the log's end.
//! - [`marker`] says whose disk this is.
//!
//! ```text
//! <dir>/marker  lock  log/<first frame>.wal  snapshots/<index>-<term>.snap  state/
//! ```

pub(crate) mod durable;
pub(crate) mod log;
pub mod marker;
pub(crate) mod snapshot;
pub(crate) mod state;

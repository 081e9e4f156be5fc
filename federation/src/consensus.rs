//! Consensus: one replicated state machine on several servers.
//!
//! - [`replica`] is the face: propose, read, watch, membership. Everything else in the crate talks to it alone.
//! - [`node`] is the step machine over raft, without I/O, clock or randomness: inputs in, one ordered list of effects
//!   out. The driver and the simulator carry the same effects out through the same [`node::run`].
//! - [`driver`] is the only loop, on a thread of its own; its header states the order law.
//! - [`transport`] carries messages to peers and may lose them.
//! - [`wire`] turns raft's messages into ours and back; raft's types go no further than here and `store::log`.

pub mod machine;
pub mod open;
pub mod recover;
pub mod replica;
#[doc(hidden)]
pub mod sim;
pub mod status;
pub mod transport;

pub(crate) mod driver;
pub(crate) mod fault;
pub(crate) mod inbox;
pub(crate) mod logger;
pub(crate) mod node;
pub(crate) mod wire;

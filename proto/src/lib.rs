//! The wire format of Sealane: generated messages and services, and their conversions to and from the domain.
//!
//! Law: nothing of the domain decides here. A message becomes a domain value by [`convert`], whole or with a refusal
//! that names the field; generated types go no further than the edge of each component.

macro_rules! generated {
    ($(#[$doc:meta])* $module:ident, $package:literal) => {
        $(#[$doc])*
        pub mod $module {
            /// Version 1.
            #[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)] // generated from the .proto files
            pub mod v1 {
                tonic::include_proto!($package);
            }
        }
    };
}

generated!(
    /// The domain's data as it travels and rests.
    types, "sealane.types.v1");
generated!(
    /// What the log, the state store and snapshots hold.
    store, "sealane.store.v1");
generated!(
    /// What the federation servers serve to agents and administrators.
    federation, "sealane.federation.v1");
generated!(
    /// What federation servers say to each other, and what their logs hold.
    peer, "sealane.peer.v1");
generated!(
    /// What federation servers ask of each other besides raft.
    servers, "sealane.servers.v1");
generated!(
    /// What a cluster's agent serves to its own proxies.
    agent, "sealane.agent.v1");

pub mod convert;
pub mod digest;
pub mod hello;
pub mod key;
#[cfg(any(test, feature = "strategies"))]
pub mod strategies;
pub mod trouble;

pub use convert::{Invalid, Wire, WireEnum};

/// What the signature of a goodbye is for.
pub const GOODBYE: &str = "sealane goodbye 1";

//! Whole servers in this process, on loopback, with real TLS: what agents, administrators and programs meet.

mod api;
mod bench;
mod issuer;
mod members;
mod recovery;
mod servers;
mod streams;

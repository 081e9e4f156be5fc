//! Where the agent writes what follows from its view: a directory of files, or the cluster's API server.
//!
//! Both sinks take what [`crate::desired`] says and differ in how it is shaped and written.

pub mod files;
pub mod kubernetes;

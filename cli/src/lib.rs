//! The command of operators, and the composition root of the demo.
//!
//! Law: what it shows is what the servers answer, and what it changes it changes by their administration calls; it
//! decides nothing about the federation itself. Not here: any component, only their entry points.

pub mod app;
pub mod args;
pub mod client;
pub mod commands;
pub mod context;
pub mod demo;
pub mod dispatch;
pub mod exit;
pub mod kubernetes;
pub mod local;
pub mod output;
pub mod uninstall;

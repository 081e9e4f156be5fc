//! `sealane`: operator commands, every component, and the demo.

use clap::Parser;
use sealane::args::Args;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Err(error) = sealane::local::process::die_with_parent() {
        eprintln!("sealane: {error:#}");
        return ExitCode::FAILURE;
    }
    match sealane::dispatch::run(Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sealane: {error:#}");
            sealane::exit::code(&error)
        }
    }
}

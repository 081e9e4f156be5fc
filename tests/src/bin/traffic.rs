//! The applications of tests that need traffic in real pods: one that answers, clients that count what fails.

use anyhow::Result;
use clap::{Parser, Subcommand};
use sealane_tests::traffic::{Request, repeat, serve};
use std::net::SocketAddr;
use std::time::Duration;

/// Answers, or asks again and again and prints how many requests were answered and how many failed.
#[derive(Debug, Parser)]
#[command(name = "traffic")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answers every connection with a line.
    Serve {
        /// Where.
        #[arg(long)]
        listen: SocketAddr,
        /// The line.
        #[arg(long)]
        text: String,
    },
    /// Opens a new connection each time.
    Call {
        /// HOST:PORT.
        #[arg(long)]
        target: String,
        /// How the answer has to begin.
        #[arg(long)]
        expected: String,
        /// Milliseconds from one to the next.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        every_ms: u64,
    },
    /// Asks a DNS server for the address of a name.
    Resolve {
        /// The server.
        #[arg(long)]
        server: SocketAddr,
        /// The name.
        #[arg(long)]
        name: String,
        /// Milliseconds from one to the next.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        every_ms: u64,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Serve { listen, text } => serve(listen, text).await,
        Command::Call { target, expected, every_ms } => {
            repeat(Request::Call { target, expected }, Duration::from_millis(every_ms)).await
        }
        Command::Resolve { server, name, every_ms } => {
            repeat(Request::resolve(server, &name)?, Duration::from_millis(every_ms)).await
        }
    }
}

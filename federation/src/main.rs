//! The program `sealane-federation`.

use clap::Parser;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    sealane_federation::run(sealane_federation::Args::parse()).await
}

//! `sealane-agent`: see the crate `sealane_agent`.

use clap::Parser;

fn main() -> anyhow::Result<()> {
    let args = sealane_agent::Args::parse();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(sealane_agent::run(args))
}

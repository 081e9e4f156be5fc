//! Entry point.

use clap::Parser;

fn main() -> anyhow::Result<()> {
    let args = sealane_proxy::Args::parse();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(args.workers()).enable_all().build()?.block_on(sealane_proxy::run(args))
}

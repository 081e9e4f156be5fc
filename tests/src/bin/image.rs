//! Builds the container image of Sealane, without a container engine.

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use sealane_tests::oci::product;
use std::io::Write;
use std::path::PathBuf;

/// The container image of Sealane, as an OCI archive.
#[derive(Debug, Parser)]
#[command(
    name = "image",
    after_help = "Examples:\n  \
        cargo build --release -p sealane\n  \
        cargo run --release -p sealane-tests --bin image -- build --binary target/release/sealane --out sealane.oci.tar\n  \
        ctr -n k8s.io images import sealane.oci.tar\n  \
        kind load image-archive sealane.oci.tar --name east\n  \
        skopeo copy oci-archive:sealane.oci.tar docker://registry.example.org/sealane:0.1.0"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build it from a binary; the same binary on the same machine gives the same digest.
    Build(Build),
}

#[derive(Debug, Args)]
struct Build {
    /// The `sealane` binary; a static one comes alone, another one with the shared objects that it needs.
    #[arg(long, value_name = "FILE")]
    binary: PathBuf,
    /// The archive to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The whole name under which it is imported; repeat for several [default: docker.io/library/sealane:VERSION].
    #[arg(long = "tag", value_name = "REGISTRY/PATH:TAG")]
    tags: Vec<String>,
}

fn main() -> Result<()> {
    let Command::Build(build) = Cli::parse().command;
    let names = if build.tags.is_empty() { vec![product::default_name()] } else { build.tags };
    let digest = product::image(&build.binary, names.clone())?.write(&build.out)?;
    let mut out = std::io::stdout().lock();
    for name in names {
        writeln!(out, "{name}@{digest}")?;
    }
    Ok(())
}

//! Log lines on standard error.

use crate::args::LogFormat;
use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// Starts logging; where it was started already (one process of several components), nothing changes.
pub(super) fn start(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("--log {filter:?} is no filter"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // The second start of a process changes nothing, and that is meant.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

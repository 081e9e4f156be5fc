//! Raft's slog records into tracing.

use slog::{Drain, KV, Level, OwnedKVList, Record};
use std::fmt;

/// The logger that raft is given.
pub(crate) fn logger() -> slog::Logger {
    slog::Logger::root(Tracing.ignore_res(), slog::o!())
}

struct Tracing;

/// Raft's key-value pairs in one field.
#[derive(Default)]
struct Fields(String);

impl slog::Serializer for Fields {
    fn emit_arguments(&mut self, key: slog::Key, value: &fmt::Arguments<'_>) -> slog::Result {
        use fmt::Write as _;
        let gap = if self.0.is_empty() { "" } else { " " };
        write!(self.0, "{gap}{key}={value}").map_err(slog::Error::Fmt)
    }
}

impl Drain for Tracing {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), slog::Never> {
        // Raft calls INFO what happens at every election; the driver says itself what matters to an operator.
        let wanted = match record.level() {
            Level::Critical | Level::Error => tracing::enabled!(tracing::Level::ERROR),
            Level::Warning => tracing::enabled!(tracing::Level::WARN),
            Level::Info => tracing::enabled!(tracing::Level::DEBUG),
            Level::Debug | Level::Trace => tracing::enabled!(tracing::Level::TRACE),
        };
        if !wanted {
            return Ok(());
        }
        let mut fields = Fields::default();
        // A field that can not be written is left out; there is nowhere to say so.
        let _ = record.kv().serialize(record, &mut fields);
        let _ = values.serialize(record, &mut fields);
        let (says, fields) = (record.msg().to_string(), fields.0);
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(says, fields, "raft"),
            Level::Warning => tracing::warn!(says, fields, "raft"),
            Level::Info => tracing::debug!(says, fields, "raft"),
            Level::Debug | Level::Trace => tracing::trace!(says, fields, "raft"),
        }
        Ok(())
    }
}

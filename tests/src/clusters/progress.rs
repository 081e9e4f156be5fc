//! What a long command says while it works: on standard error, each line with the seconds since it began.

use std::time::Instant;

/// Of one command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    begun: Instant,
}

impl Progress {
    pub(super) fn begin() -> Self {
        Progress { begun: Instant::now() }
    }

    pub(super) fn say(&self, what: &str) {
        eprintln!("[{:6.1} s] {what}", self.begun.elapsed().as_secs_f64());
    }
}

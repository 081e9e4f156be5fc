//! What choosing among places remembers between connections.

mod outlier;

pub(crate) use outlier::{Health, Standing, now_ms};

//! The end-to-end tests, and the harness that starts the real binaries.

//! How the command ends, so that scripts can tell.

use std::process::ExitCode;

/// Exit codes, as the help states them.
pub const HELP: &str = "Exit codes: 0 done; 1 an error; 2 wrong usage; 3 not found; 4 refused by the federation; 5 no \
                        server could be reached.";

/// An end that is not success, with its own exit code.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What was asked about does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The federation understood and said no.
    #[error("refused: {0}")]
    Refused(String),
    /// Nobody answered.
    #[error("no federation server could be reached; tried {0}")]
    Unreachable(String),
}

/// The exit code of an error.
#[must_use]
pub fn code(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<Failure>() {
        Some(Failure::NotFound(_)) => ExitCode::from(3),
        Some(Failure::Refused(_)) => ExitCode::from(4),
        Some(Failure::Unreachable(_)) => ExitCode::from(5),
        None => ExitCode::from(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_failure_keeps_its_code_under_context() {
        let error = Err::<(), _>(Failure::NotFound("no cluster".into())).context("asking").unwrap_err();
        assert_eq!(format!("{:?}", code(&error)), format!("{:?}", ExitCode::from(3)));
        assert_eq!(format!("{:?}", code(&anyhow::anyhow!("x"))), format!("{:?}", ExitCode::from(1)));
    }
}

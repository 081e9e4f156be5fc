//! The global options in commands that ask no server: they would be ignored there, so they are not shown, and refused.

use clap::{Arg, ArgAction};

/// Said to who gives one of them.
const REFUSAL: &str = "this command asks no server (--kube-context names the context of a kubeconfig)";

/// Options that stand in the places of the global ones: clap leaves out a global option where there is one of its name.
pub(super) fn none() -> [Arg; 3] {
    [
        Arg::new("context")
            .long("context")
            .hide(true)
            .value_parser(|_: &str| Err::<std::path::PathBuf, _>(REFUSAL)),
        Arg::new("output")
            .long("output")
            .short('o')
            .hide(true)
            .value_parser(|_: &str| Err::<crate::output::Format, _>(REFUSAL)),
        Arg::new("consistent")
            .long("consistent")
            .hide(true)
            .action(ArgAction::Set)
            .num_args(0)
            .default_missing_value("true")
            .value_parser(|_: &str| Err::<bool, _>(REFUSAL)),
    ]
}

//! What `--help` of the operator's commands ends with. A test holds every example against the command line.

/// `sealane status`.
pub(super) const STATUS: &str = "\
Examples:
  sealane status
  sealane status --consistent           with everything that was acknowledged before
  sealane status -o json | jq .servers";

/// `sealane clusters`.
pub(super) const CLUSTERS: &str = "\
Examples:
  sealane clusters
  sealane clusters east                 with its gateways, its ways to others, and who bears witness about it
  sealane clusters -o json | jq '.clusters[] | select(.standing != \"live\") | .name'";

/// `sealane services`.
pub(super) const SERVICES: &str = "\
Examples:
  sealane services
  sealane services shop/cart            who exports it, and what they disagree on";

/// `sealane endpoints`.
pub(super) const ENDPOINTS: &str = "\
Examples:
  sealane endpoints shop/cart --from east
  sealane endpoints shop/cart --from east -o json | jq .candidates";

/// `sealane explain`.
pub(super) const EXPLAIN: &str = "\
Example:
  sealane explain shop/cart --from east";

/// `sealane cluster confirm-lapses`.
pub(super) const CONFIRM_LAPSES: &str = "\
Example:
  sealane cluster confirm-lapses

When more than half of all leases would lapse within one time to live, the servers suspect themselves and hold every lapse
back; `sealane status` says so. A lapse alone withdraws nothing: those who probe a cluster must find it down too.";

/// `sealane cluster remove`.
pub(super) const REMOVE_CLUSTER: &str = "\
Example:
  sealane cluster remove east

A name may join again with a new token, or when it is added again; the old certificates stay refused.";

/// `sealane server raise-version`.
pub(super) const RAISE_VERSION: &str = "\
Example:
  sealane server raise-version

Every server is asked first. Until then a server may go back to the older version; afterwards none can.";

/// `sealane server remove`.
pub(super) const REMOVE_SERVER: &str = "\
Examples:
  sealane status                        the servers, with their ids
  sealane server remove 3

One that runs ends by itself, and at each further start; others must never be started again.
Once its directory is emptied, a new server may join in it. The chart's pods do so by themselves, when the
PersistentVolumeClaim of a pod (state-POD) and then the pod are deleted.";

#[cfg(test)]
mod tests {
    use super::super::Args;
    use clap::{Command, CommandFactory, Parser};

    /// The commands that do something, each with its path.
    fn leaves<'a>(command: &'a Command, path: &str, found: &mut Vec<(String, &'a Command)>) {
        let path = format!("{path}{} ", command.get_name());
        let mut below =
            command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help").peekable();
        if below.peek().is_none() {
            found.push((path.trim_end().to_owned(), command));
        }
        below.for_each(|c| leaves(c, &path, found));
    }

    /// The words of an example, up to where its explanation or another command begins.
    fn words(example: &str) -> Vec<String> {
        let end = ["   ", " | ", " > "].iter().filter_map(|mark| example.find(mark)).min();
        let own = example[..end.unwrap_or(example.len())].split_whitespace();
        own.map(|word| word.trim_matches('\'').to_owned()).collect()
    }

    /// The lines that begin with the program's name, or with the name under which a component is a program as well.
    fn examples(help: &str) -> Vec<Vec<String>> {
        let whole = help.split("\\\n").map(str::trim_start).collect::<Vec<_>>().join(" ");
        let lines = whole.lines().filter_map(|line| {
            let line = line.trim_start();
            // What comes before is another program, whose output is read.
            let own = line.find("sealane ").filter(|at| *at == 0 || line[..*at].ends_with("| "));
            match own {
                Some(at) => Some(words(&line[at..])),
                None => line.strip_prefix("sealane-").map(|rest| words(&format!("sealane {rest}"))),
            }
        });
        lines.collect()
    }

    #[test]
    fn every_command_has_an_example_that_it_understands() {
        let command = Args::command();
        let mut found = Vec::new();
        leaves(&command, "", &mut found);
        assert!(found.len() > 15, "{found:?}");
        for (path, leaf) in found {
            let help = leaf.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples = examples(&help);
            let own = examples.iter().any(|words| words.join(" ").starts_with(&path));
            assert!(own, "{path}: no example in {help:?}");
            for words in examples {
                let parsed = Args::try_parse_from(&words);
                assert!(parsed.is_ok(), "{path}: {words:?}: {}", parsed.unwrap_err());
            }
        }
    }
}

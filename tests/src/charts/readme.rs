//! The tables in the charts' READMEs, made from the `# --` comments of values.yaml.

use super::path;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::PathBuf;

const BEGIN: &str =
    "<!-- values: made from values.yaml by `cargo run -p sealane-tests --bin charts -- update` -->";
const END: &str = "<!-- end of values -->";

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its path: `agent.replicas`.
    pub key: String,
    /// Its default, as JSON.
    pub default: String,
    /// What its comment says.
    pub says: String,
}

/// Where a chart's README is.
#[must_use]
pub fn readme(chart: &str) -> PathBuf {
    path(chart).join("README.md")
}

/// A chart's README with its table as values.yaml has it now.
///
/// # Errors
/// When a file can not be read, a value has no comment, or the README has no place for the table.
pub fn updated(chart: &str) -> Result<String> {
    let read = |file: PathBuf| {
        std::fs::read_to_string(&file).with_context(|| format!("can not read {}", file.display()))
    };
    let text = read(readme(chart))?;
    let rows =
        rows(&read(path(chart).join("values.yaml"))?).with_context(|| format!("{chart}/values.yaml"))?;
    let (before, rest) =
        text.split_once(BEGIN).with_context(|| format!("{chart}/README.md has no {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{chart}/README.md has no {END}"))?;
    let table =
        rows.iter().map(|r| format!("| `{}` | `{}` | {} |\n", r.key, r.default, r.says)).collect::<String>();
    Ok(format!("{before}{BEGIN}\n\n| value | default | what it is |\n|---|---|---|\n{table}\n{END}{after}"))
}

/// The rows of a values.yaml, in its order.
///
/// # Errors
/// When it is not YAML, or a value has no comment.
pub fn rows(text: &str) -> Result<Vec<Row>> {
    let values = serde_saphyr::from_str::<Value>(text)?;
    let mut rows = Vec::new();
    let mut above: Vec<&str> = Vec::new();
    let mut comment: Option<String> = None;
    for line in text.lines() {
        let bare = line.trim_start();
        if let Some(first) = bare.strip_prefix("# -- ") {
            comment = Some(first.to_owned());
            continue;
        }
        if let Some(more) = bare.strip_prefix("# ") {
            if let Some(comment) = &mut comment {
                comment.push(' ');
                comment.push_str(more);
            }
            continue;
        }
        let Some((key, rest)) = bare.split_once(':').filter(|(key, _)| !key.is_empty()) else { continue };
        above.truncate((line.len() - bare.len()) / 2);
        above.push(key);
        let path = above.join(".");
        let group = rest.trim().is_empty();
        ensure!(
            group != comment.is_some(),
            "{path}: a value has a comment `# -- …` above it, and a group has none"
        );
        if let Some(says) = comment.take() {
            let default = above.iter().fold(&values, |value, key| &value[*key]).to_string();
            rows.push(Row { key: path, default, says: says.replace('|', "\\|") });
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_a_path_a_default_and_what_the_comment_says() {
        let text = "a:\n  # -- The first,\n  # in two lines\n  b: {c: 1}\n# -- The second\nd: []\n";
        let row = |key: &str, default: &str, says: &str| Row {
            key: key.to_owned(),
            default: default.to_owned(),
            says: says.to_owned(),
        };
        let expected = [row("a.b", r#"{"c":1}"#, "The first, in two lines"), row("d", "[]", "The second")];
        assert_eq!(rows(text).unwrap(), expected);
        assert!(rows("a:\n  b: 1\n").is_err(), "a value without a comment");
    }
}

//! The field at a line of a YAML document, for messages.

/// The path of the field that the given line (from 1) of a block-style document belongs to; empty when it has none.
///
/// This reads indentation only and may name an outer field in flow style: it serves messages, nothing else.
pub(super) fn field_at(text: &str, line: u64) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let at = usize::try_from(line).unwrap_or(usize::MAX).saturating_sub(1).min(lines.len().saturating_sub(1));
    let mut path: Vec<String> = Vec::new();
    // Only what stands further left is further out; `items` are siblings of the item that we came from.
    let (mut limit, mut items) = (usize::MAX, None);
    for at in (0..=at).rev() {
        let Some(entry) = lines.get(at).and_then(|l| Entry::of(l)) else { continue };
        if entry.indent >= limit || (entry.is_item && items == Some(entry.indent)) {
            continue;
        }
        if let Some(key) = entry.key.filter(|_| entry.key_indent < limit) {
            path.push(key.to_owned());
        }
        (limit, items) = (entry.indent, None);
        if entry.is_item {
            path.push(format!("[{}]", place(&lines[..at], entry.indent)));
            // The list's own key may stand at the same indentation as its items.
            (limit, items) = (entry.indent + 1, Some(entry.indent));
        }
    }
    path.reverse();
    path.join(".").replace(".[", "[")
}

struct Entry<'a> {
    indent: usize,
    key_indent: usize,
    key: Option<&'a str>,
    is_item: bool,
}

impl<'a> Entry<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let body = line.trim_start();
        if body.is_empty() || body.starts_with('#') {
            return None;
        }
        let indent = line.len() - body.len();
        let is_item = body == "-" || body.starts_with("- ");
        let rest = if is_item { body[1..].trim_start() } else { body };
        let key_indent = line.len() - rest.len();
        let key = rest.split_once(':').filter(|(_, v)| v.is_empty() || v.starts_with(' ')).map(|(k, _)| k);
        Some(Entry { indent, key_indent, key: key.map(|k| k.trim_matches(['"', '\''])), is_item })
    }
}

/// How many items of the same list stand before.
fn place(before: &[&str], indent: usize) -> usize {
    let mut count = 0;
    for entry in before.iter().rev().filter_map(|l| Entry::of(l)) {
        if entry.indent == indent && entry.is_item {
            count += 1;
        } else if entry.indent <= indent {
            break;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::field_at;

    const TEXT: &str = "\
kind: Service
metadata:
  name: web
spec:
  ports:
  - name: a
    port: 1
  - name: b
    port: x
  nested:
    - deep:
        leaf: 1
";

    #[test]
    fn a_line_has_the_path_of_its_field() {
        assert_eq!(field_at(TEXT, 1), "kind");
        assert_eq!(field_at(TEXT, 3), "metadata.name");
        assert_eq!(field_at(TEXT, 6), "spec.ports[0].name");
        assert_eq!(field_at(TEXT, 9), "spec.ports[1].port");
        assert_eq!(field_at(TEXT, 12), "spec.nested[0].deep.leaf");
        assert_eq!(field_at(TEXT, 99), "spec.nested[0].deep.leaf");
        assert_eq!(field_at("", 1), "");
    }
}

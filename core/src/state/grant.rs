//! Grants: which namespaces a cluster may export from and import into.

use super::Grant;
use crate::name::Namespace;
use std::fmt;

impl Grant {
    /// The default: every namespace.
    #[must_use]
    pub fn all() -> Self {
        Grant { namespaces: vec!["*".to_owned()] }
    }

    /// Whether the grant covers a namespace.
    #[must_use]
    pub fn covers(&self, namespace: &Namespace) -> bool {
        self.namespaces.iter().any(|pattern| matches(pattern.as_bytes(), namespace.as_str().as_bytes()))
    }

    /// Why this grant can not be given; `None` for a well-formed one.
    #[must_use]
    pub fn flaw(&self) -> Option<String> {
        if self.namespaces.len() > 256 {
            return Some("a grant has at most 256 namespace patterns".to_owned());
        }
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'*');
        let bad = self.namespaces.iter().find(|p| p.is_empty() || p.len() > 63 || !p.bytes().all(legal))?;
        let shown: String = bad.chars().take(80).collect();
        Some(format!("namespace pattern {shown:?} must be 1 to 63 of a-z, 0-9, '-' and '*'"))
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.namespaces.join(", "))
    }
}

/// Whether `text` matches `pattern`, where `*` stands for any run of characters. Never more than quadratic.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut retry) = (0, 0, None);
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            retry = Some((p + 1, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((after_star, from)) = retry {
            retry = Some((after_star, from + 1));
            (p, t) = (after_star, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_matches_any_run_and_nothing_else_is_special() {
        let table = [
            ("*", "shop", true),
            ("shop", "shop", true),
            ("shop", "shop2", false),
            ("shop-*", "shop-eu", true),
            ("shop-*", "shop", false),
            ("*-eu", "shop-eu", true),
            ("*-eu", "shop-eu2", false),
            ("a*b*c", "axxbyybc", true),
            ("a*b*c", "axxbyyb", false),
            ("a**", "a", true),
            ("", "a", false),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn an_empty_grant_covers_nothing_and_a_malformed_one_says_so() {
        let namespace = Namespace::parse("shop").unwrap();
        assert!(!Grant { namespaces: Vec::new() }.covers(&namespace));
        assert!(Grant::all().covers(&namespace));
        assert_eq!(Grant::all().flaw(), None);
        assert!(Grant { namespaces: vec!["Shop".to_owned()] }.flaw().is_some());
    }
}

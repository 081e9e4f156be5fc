//! Grants: which namespaces a cluster may export from and import into.

use super::Grant;
use crate::name::Namespace;
use std::fmt;

impl Grant {
    /// Every namespace: what a cluster may import by default.
    #[must_use]
    pub fn all() -> Self {
        Grant { namespaces: vec!["*".to_owned()] }
    }

    /// What a cluster may export by default: every namespace but those of Kubernetes and Sealane themselves.
    #[must_use]
    pub fn exports() -> Self {
        Grant { namespaces: ["*", "!kube-*", "!sealane-system"].map(str::to_owned).to_vec() }
    }

    /// Whether the grant covers a namespace: one of its patterns does, and none of those that begin with `!`.
    #[must_use]
    pub fn covers(&self, namespace: &Namespace) -> bool {
        let matched = |pattern: &str| matches(pattern.as_bytes(), namespace.as_str().as_bytes());
        let excluded = self.namespaces.iter().filter_map(|p| p.strip_prefix('!')).any(matched);
        !excluded && self.namespaces.iter().any(|p| !p.starts_with('!') && matched(p))
    }

    /// Why this grant can not be given; `None` for a well-formed one.
    #[must_use]
    pub fn flaw(&self) -> Option<String> {
        if self.namespaces.len() > 256 {
            return Some("a grant has at most 256 namespace patterns".to_owned());
        }
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'*');
        let good = |p: &str| (1..=63).contains(&p.len()) && p.bytes().all(legal);
        let bad = self.namespaces.iter().find(|p| !good(p.strip_prefix('!').unwrap_or(p)))?;
        let shown: String = bad.chars().take(80).collect();
        Some(format!(
            "namespace pattern {shown:?} must be 1 to 63 of a-z, 0-9, '-' and '*', perhaps after '!'"
        ))
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
    fn what_an_exclamation_mark_excludes_is_not_covered() {
        let covers = |namespace: &str| Grant::exports().covers(&Namespace::parse(namespace).unwrap());
        let found = ["shop", "kube", "kube-system", "sealane-system", "default"].map(covers);
        assert_eq!(found, [true, true, false, false, true]);
        assert_eq!(Grant::exports().flaw(), None);
        let alone = Grant { namespaces: vec!["!kube-*".to_owned()] };
        assert!(!alone.covers(&Namespace::parse("shop").unwrap()), "it only takes away");
        assert!(Grant { namespaces: vec!["!".to_owned()] }.flaw().is_some());
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

//! What an agent says of services that something is wrong with in its cluster: the text of `Applied.error`, a line for each,
//! `namespace/name: sentence`. Servers show it where somebody asks about the service.

use sealane_core::name::ServiceKey;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The longest text: servers keep not much more.
const MOST: usize = 1_000;
/// The longest sentence about one service.
const LONGEST: usize = 400;

/// Says them, as many as there is room for, and how many more there are.
#[must_use]
pub fn say(troubles: &BTreeMap<ServiceKey, String>) -> String {
    let mut said = String::new();
    for (told, (service, sentence)) in troubles.iter().enumerate() {
        let line = format!("{service}: {}\n", shorten(sentence));
        if said.len() + line.len() > MOST {
            // Infallible: a String takes everything.
            let _ = writeln!(said, "and {} more", troubles.len() - told);
            break;
        }
        said.push_str(&line);
    }
    said.truncate(said.trim_end().len());
    said
}

/// What was said about a service.
#[must_use]
pub fn about<'a>(said: &'a str, service: &ServiceKey) -> Option<&'a str> {
    let start = format!("{service}: ");
    said.lines().find_map(|line| line.strip_prefix(start.as_str()))
}

/// In one line, and not too long.
fn shorten(sentence: &str) -> String {
    let mut line = sentence.replace(['\n', '\r'], " ");
    if line.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
        line.truncate(end);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(service: &str) -> ServiceKey {
        ServiceKey::parse(service).unwrap()
    }

    #[test]
    fn what_is_said_of_a_service_is_found_again() {
        let troubles = BTreeMap::from([
            (key("shop/cart"), "somebody's\nobject is in the way".to_owned()),
            (key("shop/web"), "é".repeat(LONGEST)),
        ]);
        let said = say(&troubles);
        assert_eq!(about(&said, &key("shop/cart")), Some("somebody's object is in the way"));
        assert_eq!(about(&said, &key("shop/web")), Some(format!("{}…", "é".repeat(LONGEST / 2)).as_str()));
        assert_eq!(about(&said, &key("shop/car")), None);
        assert_eq!(say(&BTreeMap::new()), "");
    }

    #[test]
    fn of_too_many_it_is_said_how_many_more_there_are() {
        let troubles: BTreeMap<ServiceKey, String> =
            (0..100).map(|n| (key(&format!("shop/web-{n:02}")), "x".repeat(100))).collect();
        let said = say(&troubles);
        let lines: Vec<&str> = said.lines().collect();
        assert!(said.len() <= MOST + 20 && lines.len() > 2, "{said}");
        assert_eq!(lines.last().copied(), Some(format!("and {} more", 101 - lines.len()).as_str()));
    }
}

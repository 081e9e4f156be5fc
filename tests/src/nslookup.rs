//! What BIND's `nslookup` prints, as suites read it.

use std::collections::BTreeSet;

/// One SRV record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// The port.
    pub port: u16,
    /// The name, without its final dot.
    pub target: String,
}

/// The addresses of the answer: the server's own, which comes before the first empty line, is none of them.
#[must_use]
pub fn addresses(text: &str) -> BTreeSet<String> {
    let lines = answer(text).filter_map(|line| line.strip_prefix("Address: "));
    lines.map(|address| address.trim().to_owned()).collect()
}

/// The SRV records of the answer, as often as they are there.
#[must_use]
pub fn services(text: &str) -> Vec<Service> {
    let mut found: Vec<Service> = answer(text).filter_map(service).collect();
    found.sort();
    found
}

/// Whether the server said that there is no such name, or nothing of the kind that was asked for.
#[must_use]
pub fn nothing(text: &str) -> bool {
    text.contains("server can't find") || text.contains("No answer")
}

fn answer(text: &str) -> impl Iterator<Item = &str> {
    text.lines().skip_while(|line| !line.trim().is_empty())
}

/// `NAME service = PRIORITY WEIGHT PORT TARGET.`
fn service(line: &str) -> Option<Service> {
    let (_, record) = line.split_once("service = ")?;
    let words: Vec<&str> = record.split_whitespace().collect();
    let [_, _, port, target] = words[..] else { return None };
    Some(Service { port: port.parse().ok()?, target: target.trim_end_matches('.').to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str = "Server:\t\t10.121.0.10\nAddress:\t10.121.0.10#53\n\n\
        Name:\thello.x.svc.clusterset.local\nAddress: 10.121.4.7\n\
        Name:\thello.x.svc.clusterset.local\nAddress: fd00:121::a0\n\n";

    #[test]
    fn the_servers_own_address_is_no_answer() {
        assert_eq!(addresses(BOTH), BTreeSet::from(["10.121.4.7".to_owned(), "fd00:121::a0".to_owned()]));
        assert!(services(BOTH).is_empty() && !nothing(BOTH));
    }

    #[test]
    fn a_record_has_a_port_and_a_target() {
        let text = "Server:\t\t10.0.0.1\nAddress:\t10.0.0.1#53\n\n\
            a.b.clusterset.local\tservice = 0 100 42 a.b.clusterset.local.\n\n";
        assert_eq!(services(text), [Service { port: 42, target: "a.b.clusterset.local".to_owned() }]);
    }

    #[test]
    fn no_such_name_is_nothing() {
        let text = "Server:\t\t10.0.0.1\nAddress:\t10.0.0.1#53\n\n** server can't find a.b: NXDOMAIN\n\n";
        assert!(nothing(text) && addresses(text).is_empty());
    }
}

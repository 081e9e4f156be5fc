//! What the API server says of pods, in words for people.

use serde_json::Value;

/// How many events of an object are shown.
const EVENTS: usize = 8;

/// One pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) ready: bool,
    /// Of the container that did so most often.
    pub(super) restarts: u64,
    /// Its phase, and what its containers wait for.
    pub(super) state: String,
    /// Containers that have run, and so may have written something.
    pub(super) started: Vec<String>,
}

/// Of a list of pods.
pub(super) fn of(list: &Value) -> Vec<Pod> {
    items(list).iter().map(pod).collect()
}

fn pod(object: &Value) -> Pod {
    let status = &object["status"];
    let condition = |kind: &str| items_of(&status["conditions"]).iter().find(|c| c["type"] == kind);
    let containers: Vec<&Value> = ["initContainerStatuses", "containerStatuses"]
        .iter()
        .flat_map(|key| items_of(&status[*key]))
        .collect();
    let mut words = vec![text(&status["phase"])];
    if let Some(refused) = condition("PodScheduled").filter(|c| c["status"] == "False") {
        words.push(text(&refused["message"]));
    }
    for container in &containers {
        words.extend(waits_for(container));
    }
    Pod {
        name: text(&object["metadata"]["name"]),
        ready: condition("Ready").is_some_and(|c| c["status"] == "True"),
        restarts: containers.iter().filter_map(|c| c["restartCount"].as_u64()).max().unwrap_or(0),
        state: words.join("; "),
        started: containers
            .iter()
            .filter(|c| c["restartCount"].as_u64() > Some(0) || c["state"]["waiting"].is_null())
            .map(|c| text(&c["name"]))
            .collect(),
    }
}

/// Why a container does not serve, if it does not.
fn waits_for(container: &Value) -> Option<String> {
    let name = text(&container["name"]);
    let state = &container["state"];
    if let Some(waiting) = state.get("waiting") {
        return Some(
            format!("{name} {} {}", text(&waiting["reason"]), text(&waiting["message"])).trim().into(),
        );
    }
    match state.get("terminated") {
        Some(ended) if ended["exitCode"] != 0 => Some(format!("{name} ended with {}", ended["exitCode"])),
        Some(_) => None,
        None => (container["ready"] == false).then(|| format!("{name} is not ready")),
    }
}

/// The last events of objects of a kind, of one name or of all.
pub(super) fn events(list: &Value, kind: &str, name: &str) -> Vec<String> {
    let of_it = |event: &&Value| {
        let object = &event["involvedObject"];
        object["kind"] == kind && (name.is_empty() || object["name"] == name)
    };
    let mut events: Vec<&Value> = items(list).iter().filter(of_it).collect();
    events.sort_by_key(|event| text(&event["lastTimestamp"]));
    let last = events.len().saturating_sub(EVENTS);
    events[last..].iter().map(|e| format!("{} {}", text(&e["reason"]), text(&e["message"]).trim())).collect()
}

fn items(list: &Value) -> &[Value] {
    items_of(&list["items"])
}

fn items_of(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_says_what_each_of_its_containers_waits_for() {
        let pods = json!({"items": [{
            "metadata": {"name": "sealane-federation-0"},
            "status": {
                "phase": "Pending",
                "conditions": [{"type": "Ready", "status": "False"}],
                "initContainerStatuses": [
                    {"name": "enter", "restartCount": 2, "ready": false,
                        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}},
                ],
                "containerStatuses": [
                    {"name": "server", "restartCount": 0, "ready": false,
                        "state": {"waiting": {"reason": "PodInitializing"}}},
                ],
            },
        }]});
        let expected = Pod {
            name: "sealane-federation-0".to_owned(),
            ready: false,
            restarts: 2,
            state: "Pending; enter CrashLoopBackOff back-off; server PodInitializing".to_owned(),
            started: vec!["enter".to_owned()],
        };
        assert_eq!(of(&pods), [expected]);
    }

    #[test]
    fn a_pod_that_no_node_takes_says_why() {
        let pods = json!({"items": [{
            "metadata": {"name": "a"},
            "status": {"phase": "Pending", "conditions": [
                {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"},
            ]},
        }]});
        assert_eq!(of(&pods)[0].state, "Pending; 0/1 nodes are available");
    }

    #[test]
    fn the_last_events_of_one_object_are_shown() {
        let event = |name: &str, at: &str| {
            json!({
                "involvedObject": {"kind": "Pod", "name": name}, "lastTimestamp": at,
                "reason": "Failed", "message": at,
            })
        };
        let list = json!({"items": [event("a", "2"), event("b", "1"), event("a", "1")]});
        assert_eq!(events(&list, "Pod", "a"), ["Failed 1", "Failed 2"]);
        assert_eq!(events(&list, "Pod", "").len(), 3);
    }
}

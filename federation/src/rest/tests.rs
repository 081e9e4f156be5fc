//! The times that are answered. What the routes answer is held against the OpenAPI document in `app::tests`.

use super::*;
use sealane_core::liveness::Liveness;
use sealane_core::state::Lease;
use sealane_core::view::Standing;

#[test]
fn times_are_rfc_3339_in_utc() {
    assert_eq!(rfc3339(Millis(0)), "1970-01-01T00:00:00Z");
    assert_eq!(rfc3339(Millis(1_795_261_234_567)), "2026-11-21T11:40:34.567Z");
    assert!(rfc3339(Millis(u64::MAX)).starts_with("9999-"));
}

#[test]
fn the_document_names_every_route_and_type() {
    let document = document();
    let paths: Vec<_> = document.paths.paths.keys().cloned().collect();
    assert_eq!(
        paths,
        [
            "/api/v1/clusters",
            "/api/v1/clusters/{name}",
            "/api/v1/explain/{namespace}/{name}",
            "/api/v1/servers",
            "/api/v1/services",
            "/api/v1/services/{namespace}/{name}",
            "/api/v1/services/{namespace}/{name}/endpoints",
            "/api/v1/status",
        ]
    );
}

#[test]
fn who_never_opened_a_session_is_joining_and_not_suspect() {
    let said = |lease, standing| {
        cluster::standing(&Liveness { standing, lease, witnesses: Vec::new(), up: 0, down: 0 })
    };
    assert_eq!(said(Lease::Never, Standing::Suspect), types::Standing::Joining);
    let lapsed = Lease::Lapsed { since: Millis(5) };
    assert_eq!(said(lapsed, Standing::Suspect), types::Standing::Suspect);
    assert_eq!(said(lapsed, Standing::Withdrawn), types::Standing::Withdrawn);
    assert_eq!(said(Lease::Live { since: Millis(5) }, Standing::Live), types::Standing::Live);
}

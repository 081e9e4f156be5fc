//! Transparent capture against the kernel's own redirect, in a network namespace of the test's own.

use super::*;
use crate::listen::orig_dst;
use std::io::Write as _;
use std::process::{Command, Stdio};

const CAPTURE: &str = "127.0.0.1:15001";
const IMPORT: [u8; 4] = [10, 77, 0, 1];
const ELSEWHERE: [u8; 4] = [10, 77, 0, 2];

/// As a user would write it: everything but what carries the proxy's mark.
const RULES: &str = "table ip capture {
  chain output {
    type nat hook output priority -100;
    meta mark 0x5ea1 return
    ip daddr 10.77.0.0/16 tcp dport 1-65535 redirect to :15001
  }
}";

/// Runs the test below in a namespace of its own, as root of it.
#[test]
fn the_kernels_redirect_is_followed() {
    let script = "ip link set lo up && ip route add local 10.77.0.0/16 dev lo && printf '%s' \"$RULES\" | nft -f - || exit 77
        exec \"$EXE\" --exact role::tests::capture::inside_the_namespace --ignored --nocapture --test-threads 1";
    let output = Command::new("unshare")
        .args(["-rn", "sh", "-c", script])
        .env("RULES", RULES)
        .env("EXE", std::env::current_exe().unwrap())
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("1 passed"), "{text}");
        }
        Ok(output) if output.status.code() != Some(77) && output.status.code() != Some(1) => {
            panic!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        }
        other => {
            assert!(std::env::var_os("CI").is_none(), "needs unshare, ip and nft: {other:?}");
            let line = "capture: needs unshare, ip and nft, and the right to use them";
            eprintln!("!!!! SKIPPED {line}: {other:?}");
            if let Some(list) = std::env::var_os("SEALANE_SKIPPED") {
                let mut list = std::fs::OpenOptions::new().append(true).open(list).unwrap();
                writeln!(list, "{line}").unwrap();
            }
        }
    }
}

#[tokio::test]
#[ignore = "only inside the namespace that the test above makes"]
async fn inside_the_namespace() {
    assert!(orig_dst::may_mark(), "root of the namespace may mark");
    let mut chain = Chain::to(says("west").await).await;
    let capture: SocketAddr = CAPTURE.parse().unwrap();
    let client = &mut chain.client;
    // The chain's own context sets no mark; captured connections need one that does.
    let mut marking = Proxy::with(client.context.identity.clone(), &chain.east, vec![capture]);
    let accepted = [chain.west.id("ns/shop/sa/cart")];
    let via = by_gateway("west", Tier::Remote, chain.gateway_address, &accepted);
    let Item::Outbound(mut import) = outbound(vec![via]) else { unreachable!() };
    import.addresses = vec![IpAddr::from(IMPORT)];
    marking.tell(vec![
        Item::Peer(chain.east.peer(true)),
        Item::Peer(chain.west.peer(false)),
        Item::Outbound(import),
    ]);
    let context = Arc::get_mut(&mut marking.context).unwrap();
    context.mark = Some(orig_dst::MARK);
    tokio::spawn(orig_dst::serve(Arc::clone(&marking.context), TcpListener::bind(capture).await.unwrap()));

    assert_eq!(
        hear((IpAddr::from(IMPORT), 80).into()).await.as_deref(),
        Ok("west"),
        "an import, by its address"
    );
    assert_eq!(marking.connections("outbound", 1).await[0]["peer_cluster"], "west");

    let plain = TcpListener::bind((IpAddr::from(ELSEWHERE), 0)).await.unwrap();
    let elsewhere = plain.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = plain.accept().await.unwrap();
        stream.write_all(b"untouched").await.unwrap();
    });
    assert_eq!(hear(elsewhere).await.as_deref(), Ok("untouched"), "no import");
    let passed = &marking.connections("passthrough", 1).await[0];
    assert_eq!(passed["upstream"], elsewhere.to_string());

    assert!(hear(capture).await.is_err(), "made to the listener itself");
    let metrics = marking.context.metrics.text();
    assert!(metrics.contains("turned_away_total{reason=\"made_to_the_capture_listener\"} 1"), "{metrics}");
}

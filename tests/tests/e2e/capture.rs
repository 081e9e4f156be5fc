//! Transparent capture by the real proxy, under the kernel's own redirect, in a user and network namespace.

use anyhow::{Context, Result, ensure};
use sealane::local::{Federation, Lab, PodSpec, Site, SiteSpec, http, inspect, wait};
use sealane_tests::{PATIENCE, binary, in_lab, skip};
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const NAME: &str = "what_is_captured_is_carried_passed_on_or_refused";
/// Where the redirect of connections that this host makes leads.
const LISTENER: &str = "127.0.0.1:15001";
/// What no cluster imports.
const ELSEWHERE: [u8; 4] = [10, 77, 0, 2];
/// The exit code of the script when the namespace can not be had.
const NO_NAMESPACE: i32 = 77;

/// Runs the test below as root of namespaces of its own.
#[test]
fn what_is_captured_is_carried_passed_on_or_refused() {
    let script = format!(
        "ip link set lo up && ip route add local 10.77.0.0/16 dev lo && nft list ruleset || exit {NO_NAMESPACE}
         exec \"$EXE\" --exact capture::inside_the_namespace --ignored --nocapture --test-threads 1"
    );
    let output = Command::new("unshare")
        .args(["-rn", "sh", "-c", &script])
        .env("EXE", std::env::current_exe().unwrap())
        .env("SEALANE_BIN", binary::path().unwrap())
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("1 passed"), "nothing ran in the namespace: {text}");
        }
        // 1 is unshare's own, where the kernel refuses a namespace; the test below fails with 101.
        Ok(output) if !matches!(output.status.code(), Some(1 | NO_NAMESPACE)) => {
            panic!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        }
        other => skip(NAME, &format!("needs unshare, ip and nft, and the right to use them: {other:?}")),
    }
}

/// Has the kernel redirect what goes to these places, unless the proxy itself sent it.
fn redirect(places: &[String]) -> Result<()> {
    let rules = format!(
        "table ip capture {{
           chain output {{
             type nat hook output priority -100;
             meta mark 0x5ea1 return
             ip daddr . tcp dport {{ {} }} redirect to :15001
           }}
         }}",
        places.join(", ")
    );
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().context("nft")?;
    std::io::Write::write_all(&mut nft.stdin.take().context("no stdin")?, rules.as_bytes())?;
    ensure!(nft.wait()?.success(), "nft refuses {rules}");
    Ok(())
}

fn place(address: SocketAddr) -> String {
    format!("{} . {}", address.ip(), address.port())
}

/// `east`, whose client is captured, and `west`, which serves `shop/echo`; each in a network of its own.
async fn sites(lab: &Lab) -> Result<(Federation, Site, Site)> {
    let federation = Federation::found(lab, &[]).await?;
    let (east, mut west) = tokio::try_join!(
        Site::enrol(&federation, lab, SiteSpec::new("east", 1)),
        Site::enrol(&federation, lab, SiteSpec::new("west", 3))
    )?;
    west.serve("shop", "echo", 80)?;
    let echo = PodSpec::server("echo-1", "echo", lab.address(9, 10), 8080, 15_008).of("echo");
    west.start_pod(echo).await?;
    west.export("shop", "echo")?;
    Ok((federation, east, west))
}

/// The address that `shop/echo` has in `east`.
async fn import_of(east: &Site) -> Result<SocketAddr> {
    let file = east.out().join("serviceimports/shop.echo.yaml");
    let (ip, _) = wait::until("east imports shop/echo", PATIENCE, async || {
        let text = std::fs::read_to_string(&file)?;
        let quotes = |c: char| c == '-' || c == '"' || c == '\'' || c.is_whitespace();
        Ok(text.lines().find_map(|l| l.trim_matches(quotes).parse::<IpAddr>().ok()))
    })
    .await?;
    Ok((ip, 80).into())
}

/// The connections that a proxy has recorded in this direction, once there are that many.
async fn recorded(admin: SocketAddr, direction: &str, count: usize) -> Result<Vec<serde_json::Value>> {
    let what = format!("{count} {direction} connections are in the record");
    let (found, _) = wait::until(&what, PATIENCE, async || {
        let all: Vec<serde_json::Value> = http::get(admin, "/connections").await?.json()?;
        let found: Vec<_> = all.into_iter().filter(|c| c["direction"] == direction).collect();
        ensure!(found.len() >= count, "there are {found:?}");
        Ok(Some(found))
    })
    .await?;
    Ok(found)
}

/// A service without any proxy that sends back what it got.
async fn plain() -> Result<SocketAddr> {
    let listener = TcpListener::bind((IpAddr::from(ELSEWHERE), 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut all = Vec::new();
                // Who is gone does not want it back.
                if stream.read_to_end(&mut all).await.is_ok() {
                    let _ = stream.write_all(&all).await;
                }
            });
        }
    });
    Ok(address)
}

#[test]
#[ignore = "only inside the namespace that the test above makes"]
fn inside_the_namespace() {
    in_lab(async |lab| {
        let (_federation, mut east, west) = sites(lab).await?;
        let (import, elsewhere) = (import_of(&east).await?, plain().await?);
        // Also what the proxy itself has to reach: its agent, and the other cluster's gateway.
        let own = [east.agent_listen(), west.gateway_address()];
        // All share one host here: the probes of east's gateway are not what is to be captured.
        if let Some(gateway) = east.gateway.take() {
            gateway.kill();
        }
        redirect(&[import, elsewhere, own[0], own[1]].map(place))?;
        let mut client = PodSpec::client("client", "client", lab.address(8, 10), 15_008);
        client.options = ["--capture", LISTENER].map(str::to_owned).to_vec();
        // It starts with the redirect in force: its way to the agent must not lead to itself.
        east.start_pod(client).await?;
        let admin = east.pod("client")?.admin;
        wait::until_true("an import is carried", PATIENCE, async || {
            let answer = http::ask(import, "captured", PATIENCE).await?.json::<sealane::app::Greeting>()?;
            Ok(answer.name == "west/echo-1")
        })
        .await?;
        let carried = recorded(admin, "outbound", 1).await?;
        let last = carried.last().context("none")?;
        ensure!(last["service"] == "shop/echo" && last["peer_cluster"] == "west", "{last}");
        let before = recorded(admin, "passthrough", 0).await?;
        ensure!(
            before.iter().all(|c| own.iter().all(|a| c["upstream"] != a.to_string())),
            "the proxy's own: {before:?}"
        );
        passed_on(elsewhere).await?;
        let passed = recorded(admin, "passthrough", before.len() + 1).await?;
        ensure!(passed.len() == before.len() + 1, "one was made, and these were captured: {passed:?}");
        ensure!(passed.iter().any(|c| c["upstream"] == elsewhere.to_string()), "{passed:?}");
        refused(admin).await?;
        // The proxy has still what it needs to live.
        let config = inspect::config(admin).await?;
        ensure!(config.agent_connected, "its agent is lost");
        ensure!(recorded(admin, "passthrough", 0).await?.len() == passed.len(), "something went round");
        Ok(())
    });
}

/// What is no import arrives as it was sent, and so does the answer.
async fn passed_on(elsewhere: SocketAddr) -> Result<()> {
    let sent = [&sealane_trust::random::<4096>()?[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
    let mut stream = TcpStream::connect(elsewhere).await?;
    stream.write_all(&sent).await?;
    stream.shutdown().await?;
    let mut back = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut back)).await.context("no end")??;
    ensure!(back == sent, "{} bytes came back of {}", back.len(), sent.len());
    Ok(())
}

/// A connection that was made to the listener itself has nowhere to go.
async fn refused(admin: SocketAddr) -> Result<()> {
    // Where the reset is fast, connecting fails already.
    let read = async { TcpStream::connect(LISTENER).await?.read(&mut [0; 1]).await };
    let read = tokio::time::timeout(PATIENCE, read).await.context("it hangs")?;
    ensure!(read.is_err(), "it was not reset: {read:?}");
    let labels = [("reason", "made_to_the_capture_listener")];
    let counted = inspect::metric(admin, "sealane_proxy_turned_away_total", &labels).await?;
    ensure!(counted == 1, "it was counted {counted} times");
    Ok(())
}

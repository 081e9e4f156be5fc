//! Strangers at every port: they are rejected in bounded memory, and everybody else is served meanwhile.

use anyhow::{Context, Result, ensure};
use sealane::local::{Lab, Process, Traffic, wait};
use sealane_tests::flood::{self, Ending};
use sealane_tests::{PATIENCE, Pair, call, in_lab};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Connections that never say anything, at each port in turn.
const HALF_OPEN: usize = 10_000;
/// What a process may grow by under them: less than ten thousand handshakes that nobody bounds would take.
const GROWTH: u64 = 64 * 1024 * 1024;
/// Silent connections at each port for machines' own scrapers and probes: more than are served and wait at a time.
const SILENT: usize = 2_000;
/// How long a stranger is borne: a little more than any time-out for a handshake.
const BORNE: Duration = Duration::from_secs(12);

/// A port that strangers can reach, and the process behind it.
struct Port<'a> {
    name: &'static str,
    address: SocketAddr,
    process: &'a Process,
}

fn ports(pair: &Pair) -> Result<Vec<Port<'_>>> {
    let server = &pair.federation.servers[0];
    let running = server.process.as_ref().context("no server")?;
    let agent = pair.west.agent.as_ref().context("no agent")?;
    let gateway = pair.west.gateway.as_ref().context("no gateway")?;
    let pod = pair.west.pod("echo-1")?;
    let sidecar = pod.sidecar.as_ref().context("no sidecar")?;
    Ok(vec![
        Port { name: "the servers' gRPC", address: server.grpc, process: running },
        Port { name: "the status API", address: server.status, process: running },
        Port { name: "the agent", address: pair.west.agent_listen(), process: agent },
        Port { name: "the gateway", address: pair.west.gateway_listen(), process: gateway },
        Port { name: "the pod's proxy", address: pod.inbound(), process: sidecar },
    ])
}

/// The plain ports for scrapers and probes, which an operator keeps on loopback. Not here: a sidecar's outbound port,
/// whose every byte is its application's.
fn plain_ports(pair: &Pair) -> Result<Vec<Port<'_>>> {
    let server = &pair.federation.servers[0];
    let running = server.process.as_ref().context("no server")?;
    let agent = pair.west.agent.as_ref().context("no agent")?;
    let gateway = pair.west.gateway.as_ref().context("no gateway")?;
    Ok(vec![
        Port { name: "the server's metrics", address: server.metrics, process: running },
        Port { name: "the agent's admin port", address: pair.west.agent_admin(), process: agent },
        Port { name: "the gateway's admin port", address: pair.west.gateway_admin(), process: gateway },
    ])
}

/// Where strangers come from. Each flood has an address of its own: the ports of those that ended are not free at once.
fn stranger(lab: &Lab, one: u8) -> IpAddr {
    lab.address(12, 66 + one).into()
}

/// Bytes that no protocol here begins with, that begin like TLS, and that lie about their length.
fn garbage() -> Result<Vec<Vec<u8>>> {
    let random = sealane_trust::random::<2048>()?;
    Ok(vec![
        b"GET / HTTP/1.1\r\nHost: sealane\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        random.to_vec(),
        vec![0u8; 4096],
        // A handshake record that promises 16 KiB of ClientHello, and a ClientHello that promises 16 MiB.
        [&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff][..], &random].concat(),
        [22, 3, 1, 0, 0].repeat(400),
        vec![21, 3, 3, 0, 2, 1, 0],
    ])
}

#[test]
fn garbage_and_slow_talk_is_rejected_at_every_port() {
    in_lab(async |lab| {
        let mut pair = Pair::new(lab, 1).await?;
        let traffic = Traffic::start(pair.east.pod("client")?.calls("shop/echo:80")?);
        let source = stranger(lab, 0);
        for port in ports(&pair)? {
            for bytes in garbage()? {
                let ending = flood::say(source, port.address, &bytes, BORNE).await?;
                let shown = &bytes[..bytes.len().min(12)];
                ensure!(matches!(ending, Ending::Ended(..=64)), "{}: {shown:?}: {ending:?}", port.name);
            }
        }
        for port in plain_ports(&pair)? {
            for bytes in garbage()?.split_off(2) {
                let ending = flood::say(source, port.address, &bytes, BORNE).await?;
                ensure!(matches!(ending, Ending::Ended(..=512)), "{}: {ending:?}", port.name);
            }
        }
        for port in ports(&pair)?.into_iter().chain(plain_ports(&pair)?) {
            // The head of a ClientHello, a byte a second.
            let hello = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
            let borne = flood::drip(source, port.address, &hello, BORNE).await;
            borne.with_context(|| format!("{} bears a stranger who speaks slowly", port.name))?;
        }
        let tally = traffic.stop();
        ensure!(tally.failed == 0 && tally.answered() > 50, "{tally:?}");
        ensure!(pair.west.ended().is_empty() && pair.east.ended().is_empty());
        Ok(())
    });
}

#[test]
fn ten_thousand_half_open_connections_are_borne_at_every_port() {
    let files = flood::raise_open_files().unwrap();
    if files < HALF_OPEN as u64 + 2_000 {
        sealane_tests::skip("ten_thousand_half_open_connections", &format!("only {files} files may be open"));
        return;
    }
    in_lab(async |lab| {
        let mut pair = Pair::new(lab, 1).await?;
        let traffic = Traffic::start(pair.east.pod("client")?.calls("shop/echo:80")?);
        for (port, one) in ports(&pair)?.into_iter().zip(0..) {
            let before = port.process.resident()?;
            let flood = flood::half_open(stranger(lab, one), port.address, HALF_OPEN);
            let ((open, refused), most) = peak(port.process, flood).await?;
            ensure!(open.len() == HALF_OPEN, "{}: only {} connected: {refused:?}", port.name, open.len());
            // Served meanwhile: requests, and whoever asks the servers or the agent.
            let answered = traffic.so_far().answered();
            wait::until_true("traffic goes on", PATIENCE, async || {
                Ok(traffic.so_far().answered() > answered + 20)
            })
            .await?;
            pair.federation.client()?.status().await.context("the status API answers nobody else")?;
            pair.west.workload_token("meanwhile", &["--gateway"]).await?;
            let most = most.max(port.process.resident()?);
            println!("{}: {HALF_OPEN} connected; {} -> {} KiB", port.name, before / 1024, most / 1024);
            ensure!(most < before + GROWTH, "{} grew from {before} to {most} bytes", port.name);
        }
        for (port, one) in plain_ports(&pair)?.into_iter().zip(100..) {
            let before = port.process.resident()?;
            let flood = flood::half_open(stranger(lab, one), port.address, SILENT);
            let ((open, _), most) = peak(port.process, flood).await?;
            let took = wait::until_true("a probe is answered", PATIENCE, async || {
                Ok(sealane::local::http::get(port.address, "/livez").await?.status == 200)
            })
            .await?;
            println!("{}: {} silent; a probe is answered after {took:?}", port.name, open.len());
            ensure!(most < before + GROWTH, "{} grew from {before} to {most} bytes", port.name);
        }
        let tally = traffic.stop();
        ensure!(tally.failed == 0, "{tally:?}");
        ensure!(pair.west.ended().is_empty() && pair.east.ended().is_empty());
        changes_still_arrive(&pair).await
    });
}

/// The result of something, and the most memory that a process had meanwhile.
async fn peak<T>(process: &Process, work: impl Future<Output = T>) -> Result<(T, u64)> {
    let mut work = std::pin::pin!(work);
    let mut most = process.resident()?;
    loop {
        let looked = tokio::time::sleep(Duration::from_millis(20));
        tokio::select! {
            result = &mut work => return Ok((result, most.max(process.resident()?))),
            () = looked => most = most.max(process.resident()?),
        }
    }
}

async fn changes_still_arrive(pair: &Pair) -> Result<()> {
    pair.west.unexport("shop", "echo")?;
    wait::until_true("the un-export arrives", PATIENCE, async || Ok(call(&pair.east, "echo").await.is_err()))
        .await?;
    pair.west.export("shop", "echo")?;
    pair.answered("west/echo-1").await?;
    Ok(())
}

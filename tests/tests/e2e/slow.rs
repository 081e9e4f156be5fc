//! A member that opens streams and takes nothing from them: it costs a place, and nobody else anything.

use anyhow::{Context, Result, bail, ensure};
use prost::Message;
use sealane::local::{Site, SiteSpec, Traffic, wait};
use sealane_core::command::CatalogChange;
use sealane_core::name::ServiceKey;
use sealane_proto::federation::v1 as pb;
use sealane_tests::forge;
use sealane_tests::uplink::{Uplink, dial};
use sealane_tests::{PATIENCE, Pair, in_lab};
use sealane_trust::bundle::Bundle;
use sealane_trust::tls::{ALPN_H2, FederationPeers, Identity, client_config};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Its streams: with the one of its own agent as many as a cluster may have.
const STREAMS: usize = 3;
/// What it lets the server send on each.
const WINDOW: u32 = 64;
/// Services that change at once, the bytes that change with each, and how often.
const SERVICES: usize = 40;
const PADDING: usize = 4 * 1024;
const ROUNDS: usize = 150;
/// What the server may grow by: less than half of what its streams were not sent.
const GROWTH: u64 = (STREAMS * SERVICES * PADDING * ROUNDS / 2) as u64;

const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;

/// A connection whose streams are open and whose windows are shut; it answers what keeps a connection alive.
struct Mute {
    taken: Arc<AtomicUsize>,
    task: JoinHandle<Result<()>>,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<Vec<u8>> {
    let length = u32::try_from(payload.len())?.to_be_bytes();
    Ok([&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat())
}

/// A header list of literals.
fn headers(server: SocketAddr) -> Result<Vec<u8>> {
    let server = server.to_string();
    let list = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/sealane.federation.v1.Discovery/Watch"),
        (":authority", server.as_str()),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut block = Vec::new();
    for (name, value) in list {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|n| *n < 127).context("too long")?);
            block.extend_from_slice(text.as_bytes());
        }
    }
    Ok(block)
}

/// A preface, settings, and a subscription on each stream.
fn opening(server: SocketAddr) -> Result<Vec<u8>> {
    let hello = Some(sealane_proto::hello::hello(None));
    let subscribe = pb::Subscribe { hello, ..Default::default() };
    let request =
        pb::WatchRequest { kind: Some(pb::watch_request::Kind::Subscribe(subscribe)) }.encode_to_vec();
    let message = [&[0], &u32::try_from(request.len())?.to_be_bytes()[..], &request].concat();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[&[0, 4], &WINDOW.to_be_bytes()[..]].concat())?);
    for stream in (1..).step_by(2).take(STREAMS) {
        bytes.extend(frame(1, 4, stream, &headers(server)?)?);
        bytes.extend(frame(0, 0, stream, &message)?);
    }
    Ok(bytes)
}

impl Mute {
    async fn open(server: SocketAddr, identity: &Identity, roots: Bundle) -> Result<Self> {
        let policy = Arc::new(FederationPeers::servers(roots));
        let tls = TlsConnector::from(client_config(Some(identity), policy, &[ALPN_H2]));
        let tcp = TcpStream::connect(server).await?;
        let mut stream = tls.connect("localhost".try_into()?, tcp).await?;
        stream.write_all(&opening(server)?).await?;
        let taken = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(keep(stream, Arc::clone(&taken)));
        Ok(Mute { taken, task })
    }

    fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// Keeps the connection alive; ends with the first stream that ends.
async fn keep(mut stream: TlsStream<TcpStream>, taken: Arc<AtomicUsize>) -> Result<()> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await?;
        let answer = match (head[3], head[4] & ACK) {
            (0, _) => {
                taken.fetch_add(payload.len(), Ordering::Relaxed);
                continue;
            }
            (SETTINGS, 0) => frame(SETTINGS, ACK, 0, &[])?,
            (PING, 0) => frame(PING, ACK, 0, &payload)?,
            (3, _) => bail!("a stream was reset: {payload:?}"),
            (7, _) => bail!("the server goes away: {payload:?}"),
            (1, ended) if ended != 0 => bail!("a stream ended"),
            _ => continue,
        };
        stream.write_all(&answer).await?;
    }
}

/// Changes every one of the services, that often.
async fn flap(uplink: &mut Uplink, phase: &str) -> Result<()> {
    for round in 0..ROUNDS {
        let changes = (0..SERVICES).map(|n| {
            let mut export = forge::export()?;
            let spec = export.spec.as_mut().map_err(|_| anyhow::anyhow!("no specification"))?;
            let value = format!("{phase}-{round}-{}", "x".repeat(PADDING));
            spec.annotations.insert("example.com/value".to_owned(), value);
            let service = ServiceKey::parse(&format!("shop/flap-{n}"))?;
            Ok(CatalogChange::PutExport { service, export })
        });
        let refused = uplink.write(&changes.collect::<Result<Vec<_>>>()?).await?.refused;
        ensure!(refused.is_empty(), "{refused:?}");
    }
    Ok(())
}

/// An export that comes after all others reaches a cluster that reads.
async fn reaches(site: &Site, uplink: &mut Uplink, name: &str) -> Result<()> {
    let service = ServiceKey::parse(&format!("shop/{name}"))?;
    uplink.write(&[CatalogChange::PutExport { service, export: forge::export()? }]).await?;
    wait::until_true("a cluster that reads is served", PATIENCE, async || {
        Ok(site.out().join("serviceimports").join(format!("shop.{name}.yaml")).exists())
    })
    .await?;
    Ok(())
}

#[test]
fn a_watcher_that_never_reads_costs_its_place_and_nobody_anything() {
    in_lab(async |lab| {
        let mut pair = Pair::new(lab, 1).await?;
        let mut edge = Site::enrol(&pair.federation, lab, SiteSpec::new("edge", 5)).await?;
        edge.kill_agent();
        let (server, roots) = (pair.federation.servers[0].grpc, forge::roots(&pair.east)?);
        let writer = forge::agent(&edge)?;
        let opened = async || Ok(Some(Uplink::open(dial(server, &writer, &roots)?, [9; 16], [9; 16]).await?));
        let (mut uplink, _) = wait::until("a session opens", PATIENCE, opened).await?;
        let traffic = Traffic::start(pair.east.pod("client")?.calls("shop/echo:80")?);
        // As much without it, so that what the server keeps of changes anyhow is not counted.
        flap(&mut uplink, "first").await?;
        reaches(&pair.east, &mut uplink, "first").await?;

        let process = pair.federation.servers[0].process.as_ref().context("no server")?;
        let mute = Mute::open(server, &forge::agent(&pair.east)?, roots.clone()).await?;
        let begun = async || Ok(mute.taken() >= STREAMS);
        wait::until_true("its streams are open", PATIENCE, begun).await?;
        let before = process.resident()?;
        flap(&mut uplink, "second").await?;
        reaches(&pair.east, &mut uplink, "second").await?;
        let after = process.resident()?;
        println!("the server: {} -> {} KiB; {} bytes were taken", before / 1024, after / 1024, mute.taken());
        ensure!(after < before + GROWTH, "the server grew from {before} to {after} bytes");
        ensure!(!mute.task.is_finished(), "its streams were ended: {:?}", mute.task.await);
        ensure!(mute.taken() <= STREAMS * WINDOW as usize, "{} bytes were taken", mute.taken());
        mute.task.abort();
        let tally = traffic.stop();
        ensure!(tally.failed == 0 && tally.answered() > 50, "{tally:?}");
        ensure!(pair.west.ended().is_empty() && pair.east.ended().is_empty());
        Ok(())
    });
}

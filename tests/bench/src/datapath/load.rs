//! The loads, each the same for every target. What is counted begins when the connections stand and are warm.

use super::backend::{Backend, CHUNK, REQUEST, SINK, SOURCE, response};
use super::hop::Hops;
use crate::quantile::Samples;
use anyhow::{Context, Result, anyhow, ensure};
use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};

/// How long a load runs before it counts.
const WARM: Duration = Duration::from_millis(500);
/// The connections of the paced load.
const PACED: u32 = 32;
/// Those who open connections at a time.
const OPENERS: usize = 16;
/// How long any single answer may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// What one load did to one target.
#[derive(Debug, Default, Clone)]
pub(crate) struct Done {
    /// Requests, connections or bytes.
    pub(crate) count: u64,
    /// In that time.
    pub(crate) span: Duration,
    /// How long each request or connection took, where that is measured.
    pub(crate) latency: Samples,
    /// The processor time of each hop.
    pub(crate) used: Vec<Duration>,
}

impl Done {
    /// How many a second.
    pub(crate) fn rate(&self) -> f64 {
        self.count as f64 / self.span.as_secs_f64()
    }

    /// Microseconds of each hop for one, or for as many as `unit` says.
    pub(crate) fn cost(&self, unit: f64) -> Vec<f64> {
        self.used.iter().map(|used| used.as_secs_f64() * 1e6 * unit / self.count.max(1) as f64).collect()
    }
}

/// Measures between two points in time.
struct Watch<'a> {
    hops: &'a Hops,
    used: Vec<Duration>,
    start: Instant,
}

impl<'a> Watch<'a> {
    fn start(hops: &'a Hops) -> Result<Self> {
        Ok(Watch { hops, used: hops.used()?, start: Instant::now() })
    }

    fn stop(self, count: u64, latency: Samples) -> Result<Done> {
        let span = self.start.elapsed();
        let after = self.hops.used()?;
        let used =
            after.iter().zip(&self.used).map(|(after, before)| after.saturating_sub(*before)).collect();
        ensure!(count > 0, "nothing came through");
        Ok(Done { count, span, latency, used })
    }
}

/// Who is loaded.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Where its client connects.
    pub(crate) entry: SocketAddr,
    /// Its processes.
    pub(crate) hops: Hops,
    /// What stands at its end.
    pub(crate) backend: Arc<Backend>,
}

/// One request on an open connection.
async fn ask(stream: &mut TcpStream, answer: &mut [u8]) -> Result<()> {
    let exchange = async {
        stream.write_all(REQUEST).await?;
        stream.read_exact(answer).await
    };
    tokio::time::timeout(PATIENCE, exchange).await.context("no answer in time")??;
    ensure!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "not the answer of the backend");
    Ok(())
}

async fn open(entry: SocketAddr) -> Result<TcpStream> {
    let stream = tokio::time::timeout(PATIENCE, TcpStream::connect(entry)).await;
    let stream = stream.context("not accepted in time")?.context("can not connect")?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One connection with one request; how it is known that a chain stands.
pub(crate) async fn once(entry: SocketAddr) -> Result<()> {
    ask(&mut open(entry).await?, &mut response()).await
}

/// Runs on this thread alone, so that the load is one thread for every target.
fn alone<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, work)
}

/// Ends tasks that should still run, or tells why one does not.
fn end(tasks: &mut JoinSet<Result<()>>) -> Result<()> {
    match tasks.try_join_next() {
        Some(Ok(Err(error))) => Err(error),
        Some(other) => Err(anyhow!("a client ended early: {other:?}")),
        None => Ok(()),
    }
}

impl Target {
    /// Closed loop: each client asks again when it is answered, on its own connection.
    pub(crate) fn requests(&self, clients: usize, span: Duration) -> Result<Done> {
        alone(async {
            let count = Rc::new(Cell::new(0u64));
            let mut tasks = JoinSet::new();
            for _ in 0..clients {
                let mut stream = open(self.entry).await?;
                let count = Rc::clone(&count);
                tasks.spawn_local(async move {
                    let mut answer = response();
                    loop {
                        ask(&mut stream, &mut answer).await?;
                        count.set(count.get() + 1);
                    }
                });
            }
            tokio::time::sleep(WARM).await;
            let (watch, before) = (Watch::start(&self.hops)?, count.get());
            tokio::time::sleep(span).await;
            let done = watch.stop(count.get() - before, Samples::default())?;
            end(&mut tasks)?;
            Ok(done)
        })
    }

    /// Open loop: requests are due at fixed times, and each is counted from when it was due, sent or not.
    pub(crate) fn paced(&self, rate: u32, span: Duration) -> Result<Done> {
        let mut streams = Vec::new();
        for _ in 0..PACED {
            let stream = std::net::TcpStream::connect(self.entry).context("can not connect")?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            streams.push(stream);
        }
        for stream in &mut streams {
            exchange(stream, &mut response())?;
        }
        let watch = Watch::start(&self.hops)?;
        let start = Instant::now() + Duration::from_millis(20);
        let latency = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..PACED)
                .zip(&mut streams)
                .map(|(first, stream)| scope.spawn(move || keep_pace(stream, first, rate, start, span)))
                .collect();
            let mut all = Samples::default();
            for thread in threads {
                all.extend(thread.join().map_err(|_| anyhow!("a client panicked"))??);
            }
            anyhow::Ok(all)
        })?;
        watch.stop(latency.len() as u64, latency)
    }

    /// One stream from the client to the backend, as fast as it goes; counted where it arrives.
    pub(crate) fn upload(&self, span: Duration) -> Result<Done> {
        let mut stream = std::net::TcpStream::connect(self.entry).context("can not connect")?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(SINK)?;
        let stop = AtomicBool::new(false);
        let arrived = || self.backend.swallowed.load(Ordering::Relaxed);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| -> Result<()> {
                let chunk = vec![b'x'; CHUNK];
                while !stop.load(Ordering::Relaxed) {
                    stream.write_all(&chunk).context("the stream broke")?;
                }
                Ok(())
            });
            let done = self.stretch(span, &arrived);
            stop.store(true, Ordering::Relaxed);
            writer.join().map_err(|_| anyhow!("the writer panicked"))??;
            done
        })
    }

    /// One stream from the backend to the client.
    pub(crate) fn download(&self, span: Duration) -> Result<Done> {
        let mut stream = std::net::TcpStream::connect(self.entry).context("can not connect")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(SOURCE)?;
        let (stop, read) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| -> Result<()> {
                let mut chunk = vec![0u8; CHUNK];
                while !stop.load(Ordering::Relaxed) {
                    let n = stream.read(&mut chunk).context("the stream broke")?;
                    ensure!(n > 0, "the stream ended");
                    read.fetch_add(n as u64, Ordering::Relaxed);
                }
                // The backend never ends by itself.
                stream.shutdown(Shutdown::Both).context("can not close")
            });
            let done = self.stretch(span, &|| read.load(Ordering::Relaxed));
            stop.store(true, Ordering::Relaxed);
            reader.join().map_err(|_| anyhow!("the reader panicked"))??;
            done
        })
    }

    /// Counts what arrives in a stretch of time.
    fn stretch(&self, span: Duration, arrived: &dyn Fn() -> u64) -> Result<Done> {
        std::thread::sleep(WARM);
        let (watch, before) = (Watch::start(&self.hops)?, arrived());
        std::thread::sleep(span);
        watch.stop(arrived() - before, Samples::default())
    }

    /// New connections, each with one request, from a few who each wait for theirs.
    pub(crate) fn connects(&self, span: Duration) -> Result<Done> {
        alone(async {
            let latency = Rc::new(RefCell::new(Samples::default()));
            let mut tasks = JoinSet::new();
            for _ in 0..OPENERS {
                let (entry, latency) = (self.entry, Rc::clone(&latency));
                tasks.spawn_local(async move {
                    let mut answer = response();
                    loop {
                        let start = Instant::now();
                        ask(&mut open(entry).await?, &mut answer).await?;
                        latency.borrow_mut().push(start.elapsed());
                    }
                });
            }
            tokio::time::sleep(WARM).await;
            let watch = Watch::start(&self.hops)?;
            latency.take();
            tokio::time::sleep(span).await;
            let latency = latency.take();
            let done = watch.stop(latency.len() as u64, latency)?;
            end(&mut tasks)?;
            Ok(done)
        })
    }

    /// Opens connections that each asked once, lets them rest, and gives what each hop holds then.
    pub(crate) fn idle(&self, connections: usize, rest: Duration) -> Result<Vec<u64>> {
        alone(async {
            let mut open_now = Vec::with_capacity(connections);
            let mut answer = response();
            for _ in 0..connections {
                let mut stream = open(self.entry).await?;
                ask(&mut stream, &mut answer).await?;
                open_now.push(stream);
            }
            tokio::time::sleep(rest).await;
            self.hops.resident()
        })
    }
}

fn exchange(stream: &mut std::net::TcpStream, answer: &mut [u8]) -> Result<()> {
    stream.write_all(REQUEST).context("the connection broke")?;
    stream.read_exact(answer).context("no answer")
}

/// One connection's share of the schedule: every `PACED`th request.
fn keep_pace(
    stream: &mut std::net::TcpStream,
    first: u32,
    rate: u32,
    start: Instant,
    span: Duration,
) -> Result<Samples> {
    // The kernel may wake a sleeper 50 us late unless it is told not to.
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;
    let mut latency = Samples::default();
    let mut answer = response();
    for number in (first..).step_by(PACED as usize) {
        let due = Duration::from_secs_f64(f64::from(number) / f64::from(rate));
        if due >= span {
            break;
        }
        std::thread::sleep((start + due).saturating_duration_since(Instant::now()));
        exchange(stream, &mut answer)?;
        latency.push((start + due).elapsed());
    }
    Ok(latency)
}

use super::*;
use crate::connections::Connections;
use crate::telemetry::{Direction, Metrics};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpListener;

/// A TLS side that says what it is told to, swallows what it hears, and ends when nothing is left to say.
struct Script(VecDeque<io::Result<Vec<u8>>>);

impl AsyncRead for Script {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        unreachable!("the relay reads by the buffer")
    }
}

impl AsyncBufRead for Script {
    fn poll_fill_buf(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let said = &mut self.get_mut().0;
        if matches!(said.front(), Some(Err(_))) {
            return Poll::Ready(said.pop_front().transpose().map(|_| &[][..]));
        }
        Poll::Ready(Ok(said.front().and_then(|s| s.as_deref().ok()).unwrap_or_default()))
    }

    fn consume(self: Pin<&mut Self>, n: usize) {
        let said = &mut self.get_mut().0;
        if let Some(Ok(chunk)) = said.front_mut() {
            chunk.drain(..n);
            if chunk.is_empty() {
                said.pop_front();
            }
        }
    }
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What the application got, and how the relay ended.
async fn relayed(script: Vec<io::Result<Vec<u8>>>) -> (Vec<u8>, Result<(), (Side, bool)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut application = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut plain, from) = listener.accept().await.unwrap();
    let connections = Connections::new(Arc::new(Metrics::new()));
    let connection = connections.begin(Direction::Inbound, None, from);
    let mut tls = Script(script.into());
    let relaying = async {
        let result = relay(&mut plain, &mut tls, connection.traffic()).await;
        drop(plain);
        result.map_err(|broken| (broken.side, broken.touched))
    };
    let reading = async {
        application.shutdown().await.unwrap();
        let mut got = Vec::new();
        application.read_to_end(&mut got).await.unwrap();
        got
    };
    let (result, got) = tokio::join!(relaying, reading);
    assert_eq!(connection.traffic().so_far(), (0, got.len() as u64));
    (got, result)
}

/// Records whose bytes tell where they stood.
fn records(lengths: &[usize]) -> Vec<io::Result<Vec<u8>>> {
    let record = |(at, length): (usize, &usize)| (0..*length).map(|i| (at * 31 + i) as u8).collect();
    lengths.iter().enumerate().map(record).map(Ok).collect()
}

fn all(records: &[io::Result<Vec<u8>>]) -> Vec<u8> {
    records.iter().flat_map(|r| r.as_deref().unwrap()).copied().collect()
}

#[tokio::test]
async fn messages_and_streams_arrive_as_they_were_sent() {
    const FULL: usize = 16 * 1024;
    for lengths in [
        &[][..],
        &[1],
        &[STREAM - 1, STREAM, STREAM + 1],
        &[FULL, FULL, FULL, FULL, FULL, 7],
        &[3, FULL, 5, FULL, FULL],
        &[FULL; 40],
    ] {
        let sent = records(lengths);
        assert_eq!(relayed(records(lengths)).await, (all(&sent), Ok(())), "{lengths:?}");
    }
}

#[tokio::test]
async fn what_came_before_a_break_is_delivered_and_the_break_is_told() {
    let broken = || Err(io::ErrorKind::UnexpectedEof.into());
    for (lengths, touched) in [(&[][..], false), (&[100], true), (&[16 * 1024; 3], true)] {
        let sent = all(&records(lengths));
        let script = records(lengths).into_iter().chain([broken()]).collect();
        assert_eq!(relayed(script).await, (sent, Err((Side::Tls, touched))), "{lengths:?}");
    }
}

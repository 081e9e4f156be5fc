use super::*;
use crate::connections::Connections;
use crate::telemetry::{Direction, Metrics};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    (near, far)
}

#[tokio::test]
async fn only_what_comes_in_large_pieces_takes_a_pipe() {
    let ((mut client, mut near), (mut far, mut server)) = (pair().await, pair().await);
    let connections = Connections::new(Arc::new(Metrics::new()));
    let connection = connections.begin(Direction::Gateway, None, client.peer_addr().unwrap());
    let pipes = Pipes::new(2);
    let begun = AtomicUsize::new(0);
    let begin = || {
        begun.fetch_add(1, Ordering::Relaxed);
    };
    let passing = pass(&mut near, &mut far, connection.traffic(), &pipes, begin);
    let talking = async {
        let mut message = [7u8; 1024];
        server.write_all(&message).await.unwrap();
        client.read_exact(&mut message).await.unwrap();
        assert_eq!(begun.load(Ordering::Relaxed), 0, "near said nothing");
        for _ in 0..200 {
            client.write_all(&message).await.unwrap();
            server.read_exact(&mut message).await.unwrap();
            server.write_all(&message).await.unwrap();
            client.read_exact(&mut message).await.unwrap();
        }
        assert_eq!(pipes.opened(), 0, "200 KiB of messages each way");
        stream(&mut client, &mut server, 8 << 20).await;
        assert!(pipes.opened() > 0, "8 MiB in a stream");
        // The same direction, in small messages again.
        for _ in 0..20 {
            client.write_all(&message).await.unwrap();
            server.read_exact(&mut message).await.unwrap();
        }
        assert_eq!(begun.load(Ordering::Relaxed), 1);
        client.shutdown().await.unwrap();
        server.shutdown().await.unwrap();
    };
    let (passed, ()) = tokio::join!(passing, talking);
    passed.unwrap();
    assert_eq!(pipes.in_use(), 0);
    let messages = 200 * 1024;
    assert_eq!(connection.traffic().so_far(), (messages + (8 << 20) + 20 * 1024, messages + 1024));
}

/// A stream of so many bytes from `client` to `server`, which must come whole and in time.
async fn stream(client: &mut TcpStream, server: &mut TcpStream, bytes: usize) {
    let sent: Vec<u8> = (0..bytes).map(|i| (i >> 7) as u8).collect();
    let mut got = vec![0; bytes];
    let both = async { tokio::join!(client.write_all(&sent), server.read_exact(&mut got)) };
    let (written, read) = soon(both).await;
    written.unwrap();
    read.unwrap();
    assert!(got == sent, "the stream is whole");
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("in time")
}

#[tokio::test]
async fn what_follows_a_stream_comes_at_once_however_little_it_is() {
    let ((mut client, mut near), (mut far, mut server)) = (pair().await, pair().await);
    let connections = Connections::new(Arc::new(Metrics::new()));
    let connection = connections.begin(Direction::Gateway, None, client.peer_addr().unwrap());
    let pipes = Pipes::new(2);
    let passing = pass(&mut near, &mut far, connection.traffic(), &pipes, || ());
    let talking = async {
        for _ in 0..5 {
            stream(&mut client, &mut server, 24 << 20).await;
            // Below the mark, with nothing behind it.
            for byte in 0..3 {
                client.write_all(&[byte]).await.unwrap();
                let mut got = [9];
                soon(server.read_exact(&mut got)).await.unwrap();
                assert_eq!(got, [byte]);
            }
        }
        assert!(pipes.streams() > 0, "no direction was ever a stream");
        // A receiver that stands still in the middle of one, then takes all of it and its end.
        let sent = vec![7u8; 24 << 20];
        let sending = async {
            client.write_all(&sent).await?;
            client.shutdown().await
        };
        let receiving = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let mut got = Vec::new();
            server.read_to_end(&mut got).await.map(|_| got)
        };
        let (done, got) = soon(async { tokio::join!(sending, receiving) }).await;
        done.unwrap();
        assert!(got.unwrap() == sent);
        server.shutdown().await.unwrap();
    };
    let (passed, ()) = tokio::join!(passing, talking);
    passed.unwrap();
    assert_eq!(pipes.in_use(), 0);
}

#[tokio::test]
async fn a_stream_that_is_broken_off_ends_at_once() {
    let ((mut client, mut near), (mut far, mut server)) = (pair().await, pair().await);
    let connections = Connections::new(Arc::new(Metrics::new()));
    let connection = connections.begin(Direction::Gateway, None, client.peer_addr().unwrap());
    let pipes = Pipes::new(2);
    let passing = pass(&mut near, &mut far, connection.traffic(), &pipes, || ());
    let talking = async {
        stream(&mut client, &mut server, 24 << 20).await;
        crate::tcp::reset_on_drop(&client);
        drop(client);
    };
    let (passed, ()) = soon(async { tokio::join!(passing, talking) }).await;
    assert_eq!(passed.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(pipes.in_use(), 0);
}

//! An API server as the description of a cluster.
//!
//! Each kind is followed by a stream of its own ([`follow`]): listed once, then watched, and listed again only when the
//! server can not go on from where the watch ended. What the streams say goes through one synchronous core, which passes
//! on what differs from what is known. Laws: an object is gone when a DELETE said so or a complete list lacks it, and never
//! because something failed; an object that is as it was is not sent again; the cluster is known as a whole when every
//! kind was listed once.

mod core;
mod follow;
mod kind;
mod thin;

use crate::source::SourceEvent;
use core::Core;
use follow::{Told, follow};
use futures::stream::{BoxStream, StreamExt, select_all};
use kind::Kind;
use kube::Client;
use tokio::sync::mpsc;

/// The most that is taken in at once: lists come in thousands, and each batch is one lock of the index.
const BATCH: usize = 512;

/// Follows the cluster until the receiver is gone.
pub async fn run(client: Client, events: mpsc::Sender<SourceEvent>) {
    let mut told = select_all(streams(&client)).ready_chunks(BATCH);
    let mut core = Core::default();
    loop {
        let batch = tokio::select! {
            batch = told.next() => batch,
            () = events.closed() => return,
        };
        // The streams never end.
        let Some(batch) = batch else { return };
        for (kind, told) in batch {
            core.on(kind, told);
        }
        for event in core.take() {
            if events.send(event).await.is_err() {
                return;
            }
        }
    }
}

fn streams(client: &Client) -> Vec<BoxStream<'static, (Kind, Told)>> {
    vec![
        follow::<thin::Namespace>(client.clone()).boxed(),
        follow::<thin::Node>(client.clone()).boxed(),
        follow::<thin::Export>(client.clone()).boxed(),
        follow::<thin::Service>(client.clone()).boxed(),
        follow::<thin::Slice>(client.clone()).boxed(),
        follow::<thin::Pod>(client.clone()).boxed(),
    ]
}

use super::bench::{Bench, eventually, export, subscribe};
use crate::app::recover;
use crate::args::RecoverArgs;
use sealane_core::name::ServiceKey;
use sealane_proto::federation::v1 as pb;

#[tokio::test(flavor = "multi_thread")]
async fn one_surviving_disk_becomes_a_federation_with_everything_that_was_acknowledged() {
    let mut bench = Bench::new().await;
    bench.grow().await;
    bench.grow().await;
    let east = bench.member(1, "east").await;
    let mut session = east.publish(&bench, 1, 1, &["shop/cart"]).await;
    let late = ServiceKey::parse("shop/late").unwrap();
    session.write(2, &[export(&late)]).await.unwrap();
    let survivor = bench.dir.path().join("1");
    for running in std::mem::take(&mut bench.servers).into_values() {
        running.stop().await;
    }
    recover(RecoverArgs { dir: survivor.clone(), force_new_cluster: true }).await.unwrap();
    bench.restart(1, survivor).await;
    assert_eq!(bench.leader().await, 1);
    eventually("the lost servers are forgotten", || async {
        let state = bench.replica(1).state();
        (state.1.state.servers.len() == 1).then_some(())
    })
    .await;
    let mut watching = east.watch(&bench, 1, subscribe(&bench)).await.unwrap();
    watching
        .until("both services", |w| w.import("shop/cart").is_some() && w.import("shop/late").is_some())
        .await;
    let mut session = east.session(&bench, 1, 2).await.unwrap();
    session.write(1, &[]).await.unwrap();
    let removal = pb::RemoveClusterRequest { key: vec![1; 16], name: "east".to_owned() };
    bench.admin(1).remove_cluster(removal).await.unwrap();
    bench.stop().await;
}

//! The control plane on loopback is a real one, in what the tests of the agent rely on.

use sealane::local::wait::until_true;
use sealane_tests::control_plane::{ControlPlane, Shape};
use sealane_tests::{PATIENCE, in_lab, skip, tools};

#[test]
fn an_api_server_keeps_what_it_holds_and_refuses_who_may_not() {
    let needed = [&tools::ETCD, &tools::API_SERVER, &tools::CONTROLLERS, &tools::KUBECTL];
    if let Some(reason) = tools::missing(&needed) {
        return skip("an_api_server_keeps_what_it_holds_and_refuses_who_may_not", &reason);
    }
    in_lab(async |lab| {
        let mut east = ControlPlane::start(lab, Shape::new("east", 1).with_controllers()).await?;
        east.kubectl(&["create", "namespace", "shop"]).await?;
        let version = "--output=jsonpath={.metadata.resourceVersion}";
        let before = east.kubectl(&["get", "namespace/shop", version]).await?;
        east.apply(
            r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "shop"}}"#,
        )
        .await?;

        east.kill_server();
        assert!(east.server().is_none() && east.kubectl(&["get", "namespaces"]).await.is_err());
        east.restart_server().await?;
        assert_eq!(
            east.kubectl(&["get", "--namespace=shop", "configmap/a", "--output=name"]).await?,
            "configmap/a\n"
        );

        // What was before its start the archive knows, and it alone.
        let since =
            format!("/api/v1/namespaces/shop/configmaps?watch=1&timeoutSeconds=2&resourceVersion={before}");
        let known = east.kubectl(&["get", "--raw", &since]).await;
        assert!(!known.is_ok_and(|known| known.contains(r#""name":"a""#)));
        let archive = east.archive(lab).await?;
        let kept = archive.kubectl(&["get", "--raw", &since]).await?;
        assert!(kept.contains(r#""type":"ADDED""#) && kept.contains(r#""name":"a""#), "{kept}");
        drop(archive);

        let tenant = east.kubeconfig_of("tenant", "")?.display().to_string();
        let refused =
            east.kubectl(&["--kubeconfig", &tenant, "get", "secrets"]).await.unwrap_err().to_string();
        assert!(refused.contains(r#"User "tenant" cannot list resource "secrets""#), "{refused}");

        // Only the controllers end a namespace.
        east.kubectl(&["delete", "namespace", "shop", "--wait=false"]).await?;
        until_true("the namespace is gone", PATIENCE, async || {
            Ok(!east.kubectl(&["get", "namespaces", "--output=name"]).await?.contains("namespace/shop"))
        })
        .await?;
        Ok(())
    });
}

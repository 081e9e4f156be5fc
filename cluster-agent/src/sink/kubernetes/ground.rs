//! What must be known and so before the sink writes: versions and families of the cluster, that no other controller
//! federates it, and that its ClusterProperties say who it is.

use super::api::{MCS, MCS_VERSIONS, RequestError, Resources, ask};
use super::observed::Observed;
use super::schema::Missing;
use super::seen::{Kind, Owner};
use crate::desired::{MANAGED_BY, MANAGER};
use crate::lease::Leadership;
use crate::ours::is_ours;
use http::Request;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams,
    Preconditions,
};
use kube::core::Status;
use sealane_core::service::IpFamily;
use serde_json::{Value, json};

/// The group of ClusterProperties.
const ABOUT: &str = "about.k8s.io";
/// Its versions, the best first.
const ABOUT_VERSIONS: [&str; 2] = ["v1beta1", "v1alpha1"];
/// The property that names this cluster.
const CLUSTER: &str = "cluster.clusterset.k8s.io";
/// The property that names the federation.
const CLUSTERSET: &str = "clusterset.k8s.io";

/// Why the sink does not write.
#[derive(Debug, thiserror::Error)]
pub(super) enum GroundError {
    /// A request failed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The CRDs are missing.
    #[error("the API server does not serve {MCS}: install the chart sealane-crds")]
    NoCrds,
    /// The API server does not describe what it serves: it may be about to.
    #[error("the API server does not describe its {0} yet (/openapi/v3)")]
    Undescribed(String),
    /// This agent is not the one that may write.
    #[error("another replica may write now")]
    Lost,
    /// Another controller federates the cluster.
    #[error(
        "another controller of the Multi-Cluster Services API is at work here ({0}): Sealane writes nothing beside it; \
         uninstall it, then delete that object and make it again, or uninstall Sealane"
    )]
    Controller(String),
    /// A ClusterProperty says otherwise.
    #[error("ClusterProperty {name} says {found:?}, and Sealane would say {wanted:?}: {ways}")]
    Property {
        /// Which.
        name: &'static str,
        /// What it says.
        found: String,
        /// What it would say.
        wanted: String,
        /// The two ways out.
        ways: &'static str,
    },
}

impl GroundError {
    /// Whether it is that somebody else federates the cluster, and not that it could not be seen.
    pub(super) fn is_somebody_else(&self) -> bool {
        matches!(self, GroundError::Controller(_) | GroundError::Property { .. })
    }
}

/// The best served version of a group that has this resource.
async fn served(
    client: &Client,
    group: &str,
    versions: [&'static str; 2],
    plural: &str,
) -> Result<Option<&'static str>, RequestError> {
    for version in versions {
        match ask(client.list_api_group_resources(&format!("{group}/{version}"))).await {
            Ok(list) if list.resources.iter().any(|r| r.name == plural) => return Ok(Some(version)),
            Ok(_) => {}
            Err(error) if error.status().is_some_and(Status::is_not_found) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The resources in their served versions.
pub(super) async fn resources(client: &Client) -> Result<(Resources, String), GroundError> {
    let version = served(client, MCS, MCS_VERSIONS, "serviceimports").await?.ok_or(GroundError::NoCrds)?;
    Ok((Resources::new(client.clone(), version), format!("{MCS}/{version}")))
}

/// The fields that the CRD of imports does not declare, of `api`, its group and version.
pub(super) async fn missing(client: &Client, api: &str) -> Result<Missing, GroundError> {
    let undescribed = || GroundError::Undescribed(api.to_owned());
    let request =
        Request::get(format!("/openapi/v3/apis/{api}")).body(Vec::new()).map_err(|_| undescribed())?;
    let missing = match ask(client.request::<Value>(request)).await {
        Ok(document) => Missing::of(&document).ok_or_else(undescribed)?,
        Err(error) if error.status().is_some_and(Status::is_not_found) => return Err(undescribed()),
        Err(error) => return Err(error.into()),
    };
    let fields = missing.names();
    if !fields.is_empty() {
        tracing::warn!(
            ?fields,
            "the installed CRD of ServiceImports does not have these fields: they stay unsaid"
        );
    }
    Ok(missing)
}

/// The families of the cluster's Services, asked for by a Service that is not made, in the agent's own namespace.
pub(super) async fn families(client: &Client, namespace: &str) -> Result<Vec<IpFamily>, RequestError> {
    let port = ServicePort { port: 1, ..ServicePort::default() };
    let probe = Service {
        metadata: ObjectMeta { generate_name: Some(format!("{MANAGER}-families-")), ..ObjectMeta::default() },
        spec: Some(ServiceSpec {
            ports: Some(vec![port]),
            ip_family_policy: Some("PreferDualStack".to_owned()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let params = PostParams { dry_run: true, field_manager: Some(MANAGER.to_owned()) };
    let made = ask(services.create(&params, &probe)).await?;
    let families = made.spec.and_then(|s| s.ip_families).unwrap_or_default();
    let family = |name: &String| match name.as_str() {
        "IPv4" => Some(IpFamily::V4),
        "IPv6" => Some(IpFamily::V6),
        _ => None,
    };
    Ok(families.iter().filter_map(family).collect())
}

/// Another controller, seen by its traces: whoever writes the status of imports or exports is one. People who edit a
/// status by hand are not.
pub(super) fn other_controller(observed: &Observed) -> Result<(), GroundError> {
    let by_hand = |writer: &String| writer.starts_with("kubectl");
    for (key, seen) in observed.objects().filter(|(k, _)| matches!(k.kind, Kind::Import | Kind::Export)) {
        let foreign = key.kind == Kind::Export || matches!(seen.owner, Owner::Foreign(_));
        if let Some(writer) = seen.status_writers.iter().find(|w| foreign && !by_hand(w)) {
            return Err(GroundError::Controller(format!("{writer} writes the status of {key}")));
        }
    }
    Ok(())
}

/// What the property says beside what it would say; `None` where it is to be made.
fn judge(name: &'static str, wanted: &str, found: Option<&str>) -> Result<Option<()>, GroundError> {
    let ways = if name == CLUSTER {
        "delete the property if nothing needs it, or let this cluster leave and join again under that name"
    } else {
        "leave that ClusterSet and delete the property, or uninstall Sealane here"
    };
    match found {
        None => Ok(None),
        Some(found) if found == wanted => Ok(Some(())),
        Some(found) => {
            Err(GroundError::Property { name, found: found.to_owned(), wanted: wanted.to_owned(), ways })
        }
    }
}

/// Makes the ClusterProperties where they are missing, and refuses where they say otherwise. Without their CRD there is
/// nothing to say.
pub(super) async fn properties(
    client: &Client,
    leadership: &Leadership,
    [cluster, federation]: [&str; 2],
) -> Result<(), GroundError> {
    let Some((api, version)) = properties_of(client).await? else {
        tracing::debug!(
            "the API server has no ClusterProperties: this cluster's name is told by Sealane alone"
        );
        return Ok(());
    };
    let wanted = [(CLUSTER, cluster), (CLUSTERSET, federation)];
    let mut missing = Vec::new();
    // Both are looked at before one is made.
    for (name, value) in wanted {
        let found = ask(api.get_opt(name)).await?;
        let found = found.as_ref().map(|p| p.data["spec"]["value"].as_str().unwrap_or_default());
        if judge(name, value, found)?.is_none() {
            missing.push((name, value));
        }
    }
    for (name, value) in missing {
        if !leadership.may_write() {
            return Err(GroundError::Lost);
        }
        let body = json!({
            "apiVersion": format!("{ABOUT}/{version}"),
            "kind": "ClusterProperty",
            "metadata": { "name": name, "labels": { MANAGED_BY: MANAGER } },
            "spec": { "value": value },
        });
        ask(api.patch(name, &PatchParams::apply(MANAGER), &Patch::Apply(&body))).await?;
    }
    Ok(())
}

/// The ClusterProperties, in their served version.
async fn properties_of(client: &Client) -> Result<Option<(Api<DynamicObject>, &'static str)>, RequestError> {
    let Some(version) = served(client, ABOUT, ABOUT_VERSIONS, "clusterproperties").await? else {
        return Ok(None);
    };
    let kind = GroupVersionKind::gvk(ABOUT, version, "ClusterProperty");
    let resource = ApiResource::from_gvk_with_plural(&kind, "clusterproperties");
    Ok(Some((Api::all_with(client.clone(), &resource), version)))
}

/// Removes the ClusterProperties that we made: the cluster belongs to nobody any more.
pub(super) async fn disown(client: &Client, leadership: &Leadership) -> Result<(), GroundError> {
    let Some((api, _)) = properties_of(client).await? else { return Ok(()) };
    for name in [CLUSTER, CLUSTERSET] {
        let Some(found) = ask(api.get_opt(name)).await? else { continue };
        if !is_ours(&found.metadata, MANAGED_BY) {
            continue;
        }
        if !leadership.may_write() {
            return Err(GroundError::Lost);
        }
        let this =
            Preconditions { uid: found.metadata.uid, resource_version: found.metadata.resource_version };
        let params = DeleteParams { preconditions: Some(this), ..DeleteParams::background() };
        ask(api.delete(name, &params)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_of_another_value_is_refused_with_both_ways_out() {
        assert_eq!(judge(CLUSTER, "east", None).unwrap(), None);
        assert_eq!(judge(CLUSTER, "east", Some("east")).unwrap(), Some(()));
        let refusal = judge(CLUSTER, "east", Some("west")).unwrap_err().to_string();
        assert_eq!(
            refusal,
            "ClusterProperty cluster.clusterset.k8s.io says \"west\", and Sealane would say \"east\": delete the \
             property if nothing needs it, or let this cluster leave and join again under that name"
        );
        let refusal = judge(CLUSTERSET, "f", Some("g")).unwrap_err().to_string();
        assert!(
            refusal.ends_with("leave that ClusterSet and delete the property, or uninstall Sealane here")
        );
    }
}

//! The API server's resources, as the sink asks for them: every request with its end.

use super::seen::{Kind, ObjectKey};
use crate::lease::WRITE;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::core::Status;
use kube::{Client, Error};
use std::future::Future;

/// The group of imports and exports.
pub(super) const MCS: &str = "multicluster.x-k8s.io";
/// Its versions, the best first. Their schemas are the same.
pub(super) const MCS_VERSIONS: [&str; 2] = ["v1beta1", "v1alpha1"];

/// The reasons that an API server gives itself.
const REASONS: [&str; 18] = [
    "AlreadyExists",
    "BadRequest",
    "Conflict",
    "Expired",
    "Forbidden",
    "Gone",
    "InternalError",
    "Invalid",
    "MethodNotAllowed",
    "NotAcceptable",
    "NotFound",
    "RequestEntityTooLarge",
    "ServerTimeout",
    "ServiceUnavailable",
    "Timeout",
    "TooManyRequests",
    "Unauthorized",
    "UnsupportedMediaType",
];

/// A request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// The API server refused it.
    #[error("{0}")]
    Refused(String, Box<Status>),
    /// It could not be asked.
    #[error("can not ask the API server: {0}")]
    Failed(Error),
    /// It did not answer in time.
    #[error("the API server did not answer within {} s", WRITE.as_secs())]
    Late,
}

impl RequestError {
    /// Why, in one word of a fixed list: a webhook may give any reason that it likes.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            RequestError::Refused(_, status) => {
                REASONS.iter().find(|known| **known == status.reason).copied().unwrap_or("Other")
            }
            RequestError::Failed(_) => "Unreachable",
            RequestError::Late => "Late",
        }
    }

    /// What the API server answered.
    pub(super) fn status(&self) -> Option<&Status> {
        match self {
            RequestError::Refused(_, status) => Some(status),
            RequestError::Failed(_) | RequestError::Late => None,
        }
    }
}

/// Waits for an answer for as long as one write may take.
pub(super) async fn ask<T>(request: impl Future<Output = Result<T, Error>>) -> Result<T, RequestError> {
    match tokio::time::timeout(WRITE, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(Error::Api(status))) => Err(RequestError::Refused(status.message.clone(), status)),
        Ok(Err(error)) => Err(RequestError::Failed(error)),
        Err(_) => Err(RequestError::Late),
    }
}

/// The resources that the sink watches and writes.
#[derive(Clone)]
pub(super) struct Resources {
    client: Client,
    import: ApiResource,
    export: ApiResource,
    service: ApiResource,
    slice: ApiResource,
}

impl Resources {
    /// With the version of imports and exports that is served.
    pub(super) fn new(client: Client, version: &str) -> Self {
        let mcs = |kind: Kind, plural| {
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(MCS, version, kind.as_str()), plural)
        };
        Resources {
            client,
            import: mcs(Kind::Import, "serviceimports"),
            export: mcs(Kind::Export, "serviceexports"),
            service: ApiResource::erase::<Service>(&()),
            slice: ApiResource::erase::<EndpointSlice>(&()),
        }
    }

    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    pub(super) fn of(&self, kind: Kind) -> &ApiResource {
        match kind {
            Kind::Import => &self.import,
            Kind::Export => &self.export,
            Kind::Service => &self.service,
            Kind::Slice => &self.slice,
        }
    }

    pub(super) fn all(&self, kind: Kind) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), self.of(kind))
    }

    pub(super) fn beside(&self, key: &ObjectKey) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), key.namespace.as_str(), self.of(key.kind))
    }
}

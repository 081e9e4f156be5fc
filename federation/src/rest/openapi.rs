//! The OpenAPI document, made from the types and handlers themselves.

use super::{cluster, explain, service, status};
use axum::Json;
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;

/// How current a read must be.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // described here, read by `Reading`
pub(super) struct Consistent {
    /// Ask the leader first, so that the answer holds everything that anyone was acknowledged before.
    consistent: Option<bool>,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Sealane status API", description = "What a federation of clusters knows, read-only."),
    paths(
        status::status,
        status::servers,
        cluster::clusters,
        cluster::cluster,
        service::services,
        service::service,
        service::endpoints,
        explain::explain,
    )
)]
struct Api;

/// The document.
#[must_use]
pub fn document() -> Document {
    Api::openapi()
}

pub(super) async fn openapi() -> Json<Document> {
    Json(document())
}

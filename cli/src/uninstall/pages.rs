//! All objects of a kind, page by page.

use super::REQUEST;
use super::kinds::Kind;
use anyhow::{Context, Result};
use kube::Api;
use kube::api::{DynamicObject, ListParams};
use kube::core::PartialObjectMeta;
use tokio::time::timeout;

/// How many objects are asked for at a time.
pub(super) const PAGE: u32 = 500;
/// How often a listing that took too long for the API server is begun anew.
const ANEW: usize = 10;

/// What lies at a page.
pub(super) type Page = Vec<PartialObjectMeta<DynamicObject>>;

/// All objects of a kind, page by page, and of each what it says of itself: however many there are, one page is held.
pub(super) struct Pages<'a> {
    api: &'a Api<DynamicObject>,
    kind: &'a Kind,
    label: Option<String>,
    /// Where the next page begins; `None` after the last one.
    next: Option<String>,
    anew: usize,
}

impl<'a> Pages<'a> {
    pub(super) fn new(api: &'a Api<DynamicObject>, kind: &'a Kind, label: Option<String>) -> Self {
        Pages { api, kind, label, next: Some(String::new()), anew: 0 }
    }

    pub(super) async fn next(&mut self) -> Result<Option<Page>> {
        while let Some(token) = self.next.take() {
            let params = ListParams {
                label_selector: self.label.clone(),
                limit: Some(PAGE),
                continue_token: Some(token.clone()).filter(|t| !t.is_empty()),
                ..ListParams::default()
            };
            match timeout(REQUEST, self.api.list_metadata(&params)).await {
                Ok(Ok(page)) => {
                    self.next = page.metadata.continue_.filter(|token| !token.is_empty());
                    return Ok(Some(page.items));
                }
                // What the first pages showed was forgotten meanwhile; what was deleted of it is not shown again.
                Ok(Err(kube::Error::Api(status)))
                    if status.code == 410 && !token.is_empty() && self.anew < ANEW =>
                {
                    self.anew += 1;
                    self.next = Some(String::new());
                }
                answer => {
                    let answer = answer.context("the API server did not answer in time");
                    answer
                        .and_then(|a| a.map_err(Into::into))
                        .with_context(|| format!("can not list {}", self.kind.plural))?;
                }
            }
        }
        Ok(None)
    }
}

//! The last view on disk: a line that names the format, a line with the SHA-256 of the rest, and the rest.

use super::{Held, Origin, key_of};
use prost::Message;
use sealane_core::identity::FederationId;
use sealane_core::time::Revision;
use sealane_core::view::ViewItem;
use sealane_proto::convert::field;
use sealane_proto::types::v1 as types;
use sealane_proto::{Invalid, Wire};
use sealane_trust::file::{self, Access, FileError};
use std::path::{Path, PathBuf};

const FORMAT: &[u8] = b"sealane-view 1\n";
/// The largest file that is read.
const MAX_FILE: u64 = 1024 * 1024 * 1024;

/// What the file holds.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeldFile {
    /// The federation that it is of.
    #[prost(bytes = "vec", tag = "1")]
    pub federation: Vec<u8>,
    /// The revision.
    #[prost(message, optional, tag = "2")]
    pub revision: Option<types::Revision>,
    /// What it covers.
    #[prost(bytes = "vec", tag = "3")]
    pub scope: Vec<u8>,
    /// The items.
    #[prost(message, repeated, tag = "4")]
    pub items: Vec<types::ViewItem>,
}

/// The view could not be kept or found again.
#[derive(Debug, thiserror::Error)]
pub enum ViewFileError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not what was written. It can be removed: the store will send the view again.
    #[error("{path} is damaged ({reason})", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The view is of another federation.
    #[error("{path} holds the view of another federation", path = .0.display())]
    Foreign(PathBuf),
}

/// Keeps a view.
///
/// # Errors
/// When the file can not be written; the former one stands then.
pub fn save(path: &Path, federation: FederationId, held: &Held) -> Result<(), ViewFileError> {
    let body = HeldFile {
        federation: federation.0.to_vec(),
        revision: Some(held.revision.to_wire()),
        scope: held.scope.clone(),
        items: field::to_list(held.items.values()),
    }
    .encode_to_vec();
    let check = data_encoding::HEXLOWER.encode(&sealane_trust::sha256(&body));
    let text = [FORMAT, check.as_bytes(), b"\n", &body].concat();
    Ok(file::write(path, &text, Access::Private)?)
}

/// The view that was kept; `None` when there is none.
///
/// # Errors
/// When the file can not be read, is damaged or is of another federation.
pub fn load(path: &Path, federation: FederationId) -> Result<Option<Held>, ViewFileError> {
    if !path.exists() {
        return Ok(None);
    }
    let damaged = |reason: &str| ViewFileError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
    let bytes = file::read(path, MAX_FILE)?;
    let rest = bytes.strip_prefix(FORMAT).ok_or_else(|| damaged("it is of another format"))?;
    let (check, body) = rest.split_at_checked(65).ok_or_else(|| damaged("it is cut short"))?;
    let sum = data_encoding::HEXLOWER.encode(&sealane_trust::sha256(body));
    if check != [sum.as_bytes(), b"\n"].concat() {
        return Err(damaged("its checksum does not match"));
    }
    let kept = HeldFile::decode(body).map_err(|e| damaged(&e.to_string()))?;
    if kept.federation != federation.0 {
        return Err(ViewFileError::Foreign(path.to_owned()));
    }
    held(kept).map(Some).map_err(|e| damaged(&e.to_string()))
}

fn held(kept: HeldFile) -> Result<Held, Invalid> {
    let revision: Revision = field::present(kept.revision, "revision")?;
    let items: Vec<ViewItem> = field::list(kept.items, "items")?;
    let items = items.into_iter().map(|item| (key_of(&item), item)).collect();
    Ok(Held { origin: Origin::Disk, revision, scope: kept.scope, items })
}

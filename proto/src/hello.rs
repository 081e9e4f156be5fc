//! The first message of every stream: which protocol versions each side speaks, and which federation it is of.

use crate::Invalid;
use crate::convert::field;
use crate::federation::v1::Hello;
use sealane_core::identity::FederationId;

/// The oldest protocol version that this build speaks.
pub const MIN_PROTOCOL: u32 = 1;
/// The newest protocol version that this build speaks.
pub const MAX_PROTOCOL: u32 = 1;

/// Two sides that have no protocol version in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this side speaks protocol {ours_min} to {ours_max}, the other {theirs_min} to {theirs_max}; upgrade the {}",
    if theirs_max < ours_min { "other side" } else { "older side, which is this one" }
)]
pub struct Incompatible {
    /// The oldest version of this side.
    pub ours_min: u32,
    /// The newest version of this side.
    pub ours_max: u32,
    /// The oldest version of the other side.
    pub theirs_min: u32,
    /// The newest version of the other side.
    pub theirs_max: u32,
}

/// The hello of this build; `federation` is `None` for a client that does not know it yet.
#[must_use]
pub fn hello(federation: Option<FederationId>) -> Hello {
    Hello {
        min_protocol: MIN_PROTOCOL,
        max_protocol: MAX_PROTOCOL,
        features: Vec::new(),
        federation: federation.map(|id| id.0.to_vec()).unwrap_or_default(),
    }
}

/// The newest version that both sides speak.
///
/// # Errors
/// When there is none, with a sentence that says which side to upgrade.
pub fn negotiate(ours: &Hello, theirs: &Hello) -> Result<u32, Incompatible> {
    let newest = ours.max_protocol.min(theirs.max_protocol);
    if newest >= ours.min_protocol.max(theirs.min_protocol) && newest != 0 {
        return Ok(newest);
    }
    Err(Incompatible {
        ours_min: ours.min_protocol,
        ours_max: ours.max_protocol,
        theirs_min: theirs.min_protocol,
        theirs_max: theirs.max_protocol,
    })
}

/// The federation that a hello names.
///
/// # Errors
/// When the id is neither empty nor 16 bytes.
pub fn federation(hello: &Hello) -> Result<Option<FederationId>, Invalid> {
    if hello.federation.is_empty() {
        return Ok(None);
    }
    Ok(Some(FederationId(field::id(&hello.federation, "hello.federation")?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speaks(min: u32, max: u32) -> Hello {
        Hello { min_protocol: min, max_protocol: max, features: Vec::new(), federation: Vec::new() }
    }

    #[test]
    fn the_newest_common_version_is_taken() {
        assert_eq!(negotiate(&speaks(1, 3), &speaks(2, 5)), Ok(3));
        assert_eq!(negotiate(&speaks(2, 5), &speaks(1, 3)), Ok(3));
        assert_eq!(negotiate(&hello(None), &hello(Some(FederationId([7; 16])))), Ok(1));
    }

    #[test]
    fn the_refusal_says_which_side_is_older() {
        let newer = negotiate(&speaks(1, 1), &speaks(2, 3)).unwrap_err().to_string();
        assert!(newer.ends_with("upgrade the older side, which is this one"), "{newer}");
        let older = negotiate(&speaks(2, 3), &speaks(1, 1)).unwrap_err().to_string();
        assert!(older.ends_with("upgrade the other side"), "{older}");
        assert!(negotiate(&hello(None), &Hello::default()).is_err());
    }

    #[test]
    fn a_federation_id_is_whole_or_absent() {
        assert_eq!(federation(&hello(None)), Ok(None));
        assert_eq!(federation(&hello(Some(FederationId([7; 16])))), Ok(Some(FederationId([7; 16]))));
        let short = Hello { federation: vec![1], ..hello(None) };
        assert_eq!(federation(&short), Err(Invalid::new("hello.federation", "must be 16 bytes, not 1")));
    }
}

//! Conversions between the domain and its messages, one file a subject.
//!
//! Law: to a message always succeeds and loses nothing; from a message gives a whole domain value or an [`Invalid`]
//! that names the field. What a field does not say is never guessed: a missing message, an unspecified or unknown
//! enum value, an empty oneof, a list that names a thing twice are all refused. prost drops what it does not know,
//! so an empty oneof is how a newer writer's variant looks to an older reader.

mod admission;
mod catalog;
mod command;
mod endpoint;
pub mod field;
mod record;
mod reply;
mod service;
mod view;

pub use catalog::MAX_ENDPOINTS;

use prost::Message;

/// A message that is not a domain value: where, and the rule that it broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{rule}", if field.is_empty() { String::new() } else { format!("{field}: ") })]
pub struct Invalid {
    /// The path to the field, such as `changes[3].put_endpoints.endpoints[7].address`; empty for the whole message.
    pub field: String,
    /// The rule that it broke, as a sentence about the field.
    pub rule: String,
}

impl Invalid {
    /// A refusal of one field.
    #[must_use]
    pub fn new(field: &str, rule: impl Into<String>) -> Self {
        Invalid { field: field.to_owned(), rule: rule.into() }
    }

    /// The same refusal, seen from one message further out.
    #[must_use]
    pub fn within(mut self, outer: &str) -> Self {
        self.field = if self.field.is_empty() { outer.to_owned() } else { format!("{outer}.{}", self.field) };
        self
    }

    /// A message or a value that must be there is not.
    pub(crate) fn missing(field: &str) -> Self {
        Invalid::new(field, "is missing")
    }

    /// A oneof without a value.
    pub(crate) fn unknown(field: &str) -> Self {
        Invalid::new(
            field,
            "is empty or of a kind that this process does not know; if a newer version wrote it, this one is too old \
             and must be upgraded",
        )
    }
}

/// A domain value that travels or rests as a message.
pub trait Wire: Sized {
    /// The message.
    type Message: Message + Default;

    /// The message that says this value.
    fn to_wire(&self) -> Self::Message;

    /// The value that the message says.
    ///
    /// # Errors
    /// When a field breaks its rule; the error names both.
    fn from_wire(message: Self::Message) -> Result<Self, Invalid>;

    /// The value as bytes: the same value gives the same bytes.
    #[must_use]
    fn encode(&self) -> Vec<u8> {
        self.to_wire().encode_to_vec()
    }

    /// The value as bytes that [`Wire::decode`] is known to take back. For what must never be refused later, such
    /// as a log entry: domain values have public fields, and one that breaks a wire rule would stop every replica.
    ///
    /// # Errors
    /// When the value breaks a rule of its message.
    fn encode_checked(&self) -> Result<Vec<u8>, Invalid> {
        let bytes = self.encode();
        Self::decode(&bytes)?;
        Ok(bytes)
    }

    /// The value that the bytes say.
    ///
    /// # Errors
    /// When the bytes are not such a message, or a field breaks its rule.
    fn decode(bytes: &[u8]) -> Result<Self, Invalid> {
        let message =
            Self::Message::decode(bytes).map_err(|e| Invalid::new("", format!("undecodable bytes: {e}")))?;
        Self::from_wire(message)
    }
}

/// A domain enum that travels as a number.
pub trait WireEnum: Sized + Copy {
    /// The number.
    fn to_number(self) -> i32;

    /// The value of a number.
    ///
    /// # Errors
    /// When the number is 0 (unspecified) or one that this build does not know.
    fn from_number(number: i32, field: &str) -> Result<Self, Invalid>;
}

macro_rules! wire_enum {
    ($domain:ty, $wire:ty, [$($variant:ident),+ $(,)?]) => {
        impl $crate::convert::WireEnum for $domain {
            fn to_number(self) -> i32 {
                match self {
                    $(Self::$variant => <$wire>::$variant as i32,)+
                }
            }

            fn from_number(number: i32, field: &str) -> Result<Self, $crate::convert::Invalid> {
                match <$wire>::try_from(number) {
                    $(Ok(<$wire>::$variant) => Ok(Self::$variant),)+
                    Ok(<$wire>::Unspecified) => Err($crate::convert::Invalid::new(field, "is unspecified")),
                    Err(_) => Err($crate::convert::Invalid::new(
                        field,
                        format!("is {number}, a value that this process does not know; if a newer version wrote it, \
                                 this one is too old and must be upgraded"),
                    )),
                }
            }
        }
    };
}
pub(crate) use wire_enum;

#[cfg(test)]
mod tests;

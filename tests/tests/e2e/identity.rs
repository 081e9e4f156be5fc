//! Who is taken for whom: tokens, certificates, names, and whoever stands in another's place.

#[path = "identity/catalog.rs"]
mod catalog;
#[path = "identity/names.rs"]
mod names;
#[path = "identity/places.rs"]
mod places;
#[path = "identity/renewal.rs"]
mod renewal;
#[path = "identity/tokens.rs"]
mod tokens;

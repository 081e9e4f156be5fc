//! The wire format of Sealane: .proto sources, generated code, conversions to and from the domain.

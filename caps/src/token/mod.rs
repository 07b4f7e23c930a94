//! Placeholder until the token module lands.
use serde::{Deserialize, Serialize};
/// A capability token: opaque bytes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(#[serde(with = "serde_bytes")] Vec<u8>);

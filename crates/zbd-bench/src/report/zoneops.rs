//! What zone management costs, as text and JSON.

pub(crate) mod json;
pub(crate) mod text;

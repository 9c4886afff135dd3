//! Many requests to one zone, in order.

pub(crate) mod flight;

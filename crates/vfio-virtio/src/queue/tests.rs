//! Behaviour of queues.

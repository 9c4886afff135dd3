//! zbd-core

//! On the embedded device: no privileges, any machine.

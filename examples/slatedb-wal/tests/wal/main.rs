//! Databases whose log is on zones, through SlateDB's own doors.

mod database;
mod fencing;
mod power;
mod program;
mod rig;
mod zones;

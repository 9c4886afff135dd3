//! Databases whose log is on zones, through SlateDB's own doors.

mod database;
mod fencing;
mod killed;
mod power;
mod rig;
mod zones;

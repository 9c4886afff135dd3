//! The tool as its users meet it, on the emulated device.

mod check;
mod compare;
mod devices;
mod harness;
mod refusals;
mod run;
mod sweep;
mod verify;
mod zoneops;

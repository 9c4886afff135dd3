//! The tool as its users meet it, on the emulated device.

mod check;
mod compare;
mod devices;
mod everyday;
mod fio_format;
mod harness;
mod refusals;
mod run;
mod sweep;
mod verify;
mod zoneops;
mod zones_map;

//! What is tested in the guest, a file a theme.
//!
//! A scenario is a function `fn(&mut Context) -> anyhow::Result<()>` in the file of its theme, and
//! its name in [`guest_scenarios!`](crate::guest_scenarios). It runs as root in a process of its
//! own, on disks that belong to the kernel's driver and whose zones are empty.

pub mod devices;
pub mod kernel;
pub mod shim;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::guest::machine::{self, Machine};
use crate::inside::function::Function;
use crate::inside::kernel_view::KernelDisk;
use crate::inside::panel::Panel;

/// All scenarios, by the machine they run on and their theme. The one list: the guest's table and
/// the tests are both made from it.
#[macro_export]
macro_rules! guest_scenarios {
    ($make:ident) => {
        $make! {
            main {
                kernel {
                    zoned_disks_show_the_geometry_they_were_given,
                    plain_disk_has_no_zones,
                    zone_commands_change_states,
                    writes_are_taken_at_the_write_pointer_only,
                    zone_is_full_at_its_capacity,
                    conventional_zone_takes_writes_anywhere,
                    open_and_active_limits_hold,
                }
                shim {
                    counters_show_what_reached_the_file,
                    held_disk_answers_once_released,
                }
                devices {
                    every_disk_is_alone_in_its_iommu_group,
                    function_goes_to_vfio_and_back,
                }
            }
        }
    };
}

/// A scenario.
#[derive(Debug)]
pub struct Scenario {
    /// `machine::theme::name`.
    pub name: &'static str,
    /// Where it runs.
    pub machine: &'static Machine,
    /// How long it may take.
    pub limit: Duration,
    /// What it does.
    pub run: fn(&mut Context) -> Result<()>,
}

macro_rules! table {
    ($($machine:ident { $($theme:ident { $($name:ident),+ $(,)? })+ })+) => {
        /// All scenarios.
        pub static ALL: &[Scenario] = &[$($($(
            Scenario {
                name: concat!(
                    stringify!($machine), "::", stringify!($theme), "::", stringify!($name)
                ),
                machine: &machine::$machine,
                limit: $theme::LIMIT,
                run: $theme::$name,
            },
        )+)+)+];
    };
}

guest_scenarios!(table);

impl Scenario {
    /// The scenario of this name.
    ///
    /// # Errors
    /// If there is none.
    pub fn by_name(name: &str) -> Result<&'static Self> {
        ALL.iter()
            .find(|scenario| scenario.name == name)
            .with_context(|| format!("no scenario {name}"))
    }
}

/// What a scenario works with.
#[derive(Debug)]
pub struct Context {
    /// The machine it runs on.
    pub machine: &'static Machine,
    /// What it measured, for the report.
    pub metrics: BTreeMap<String, f64>,
}

impl Context {
    /// The context of a scenario that has yet to begin.
    #[must_use]
    pub fn new(machine: &'static Machine) -> Self {
        Self {
            machine,
            metrics: BTreeMap::new(),
        }
    }

    /// The PCI function of a disk, by the disk's name.
    ///
    /// # Errors
    /// If the machine has no such disk.
    pub fn function(&self, name: &str) -> Result<Function> {
        let disk = self.machine.disks.iter().find(|disk| disk.name == name);
        Ok(Function::of(disk.with_context(|| {
            format!("{} has no disk {name}", self.machine.name)
        })?))
    }

    /// A disk as the kernel's driver shows it; gives it back to that driver if need be.
    ///
    /// # Errors
    /// If the machine has no such disk, or the kernel does not take it.
    pub fn kernel_disk(&self, name: &str) -> Result<KernelDisk> {
        self.function(name)?.bind_to_kernel()
    }

    /// A disk's part of the shim's panel.
    ///
    /// # Errors
    /// If the machine has no such disk.
    pub fn panel(&self, name: &str) -> Result<Panel> {
        Panel::of(self.machine, self.function(name)?.disk)
    }

    /// Notes something measured.
    pub fn metric(&mut self, name: impl Into<String>, value: f64) {
        self.metrics.insert(name.into(), value);
    }
}

//! What is tested in the guest, a file a theme.
//!
//! A scenario is a function `fn(&mut Context) -> anyhow::Result<()>` in the file of its theme, and
//! its name in [`guest_scenarios!`](crate::guest_scenarios). It runs as root in a process of its
//! own, on disks that belong to the kernel's driver and whose zones are empty.

pub mod addresses;
pub mod devices;
pub mod driver_append;
pub mod driver_cancel;
pub mod driver_crash;
pub mod driver_io;
pub mod driver_refusals;
pub mod driver_resize;
pub mod driver_stall;
pub mod driver_unplug;
pub mod driver_zones;
pub mod engine;
pub mod engine_devices;
pub mod engine_waiting;
pub mod kernel;
pub mod kernel_backend;
pub mod measure;
pub mod no_iommu;
pub mod pictures;
pub mod removal;
pub mod rings;
pub mod shim;
pub mod tool_check;
pub mod tool_compare;
pub mod tool_device;
pub mod tool_run;
pub mod tool_verify;
pub mod tool_zoneops;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::guest::machine::{self, Geometry, Machine};
use crate::inside::claim::Claim;
use crate::inside::control::Control;
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
                driver_io {
                    opened_device_is_what_was_described_and_goes_back_to_linux,
                    sequential_writes_at_depth_are_read_back,
                    conventional_zone_and_plain_disk_are_written_anywhere,
                }
                driver_append {
                    appends_of_many_tasks_land_where_the_device_says,
                    batch_of_appends_takes_one_doorbell,
                    full_zone_takes_no_more,
                }
                driver_zones {
                    commands_change_states,
                    refused_commands_leave_everything_as_it_was,
                    open_and_active_limits_are_errors,
                    linux_sees_the_states_that_the_driver_left,
                }
                driver_refusals {
                    device_that_bypasses_the_iommu_is_refused,
                    disk_of_the_kernel_is_refused,
                    disk_in_use_is_not_taken_from_the_kernel,
                    second_claim_is_refused_while_the_first_lasts,
                    plain_disk_takes_no_zone_requests,
                }
                driver_cancel {
                    dropped_appends_run_to_their_end,
                    device_is_dropped_with_requests_in_flight,
                }
                driver_crash {
                    killed_process_leaves_a_usable_device,
                }
                driver_resize {
                    queue_learns_the_new_size,
                    tasks_learn_the_new_size,
                }
                driver_stall {
                    held_requests_time_out_and_keep_their_memory,
                    late_completions_are_nobodys,
                    reset_ends_the_requests_of_all_queues,
                    tasks_learn_of_a_stall_and_go_on_after_it,
                    mode_of_the_cache_outlives_a_reset,
                    device_that_asks_for_a_reset_gets_it,
                }
                kernel_backend {
                    disks_are_what_linux_says_they_are,
                    queues_do_everything_on_any_disk,
                    appends_of_many_tasks_land_where_the_device_says,
                    no_queue_waits_for_the_owner_of_another,
                    queues_on_threads_share_zones,
                    refusals_have_the_kinds_of_the_virtio_back_end,
                    appends_go_on_where_others_have_moved_the_pointer,
                    late_requests_time_out_and_keep_their_memory,
                    device_is_dropped_with_requests_in_flight,
                    requests_end_when_the_device_goes,
                    plain_disk_is_read_written_and_zeroed,
                    devices_that_cannot_be_had_are_refused,
                    user_without_lockable_memory_is_served,
                    tool_does_its_work,
                }
                tool_device {
                    function_is_bound_described_and_given_back,
                    user_needs_the_group_and_enough_lockable_memory,
                    zones_are_reported_and_managed,
                }
                engine {
                    database_outlives_its_killed_processes,
                    database_keeps_to_the_limits_of_open_and_active_zones,
                }
                engine_devices {
                    one_engine_runs_on_functions,
                    one_engine_runs_on_the_same_disks_under_linux,
                    one_engine_runs_on_null_blk,
                }
                engine_waiting {
                    idle_device_takes_no_processor_time,
                    first_request_after_idleness_is_not_lost,
                    memory_of_the_engine_is_appended_from_and_read_into,
                    threads_sleep_in_io_uring_or_say_why_not,
                }
                tool_run {
                    twenty_thousand_appends_are_on_the_disk,
                    every_operation_on_both_apis_counts_right,
                    writing_beyond_the_zones_starts_over,
                    interrupted_job_reports_what_it_did,
                    bad_requests_are_refused_and_nothing_is_written,
                }
                tool_compare {
                    one_disk_is_compared_through_both_drivers,
                    a_sweep_shows_that_the_hypervisor_serialises,
                    jobs_mix_keep_a_rate_and_turn_zones_over,
                }
                tool_zoneops {
                    functions_are_measured_and_left_empty,
                    disks_of_the_kernel_are_measured_and_left_empty,
                    data_are_kept_without_consent,
                    interrupted_measurement_leaves_empty_zones,
                }
                tool_verify {
                    functions_keep_what_many_tasks_wrote,
                    disks_of_linux_keep_what_many_tasks_wrote,
                    disk_without_zones_is_refused,
                }
            }
            rings {
                rings {
                    split,
                    split_with_few_slots,
                    split_although_packed_is_offered,
                    split_in_order,
                    split_without_tables,
                    split_without_event_index,
                    split_with_nothing_else_offered,
                    two_split_queues_on_two_threads,
                    packed,
                    packed_with_an_odd_number_of_slots,
                    packed_in_order,
                    packed_in_order_without_tables,
                    packed_with_nothing_else,
                    packed_without_tables_offered,
                    packed_without_event_index_offered,
                    two_packed_queues_on_two_threads,
                    interrupt_for_each_queue,
                    interrupt_without_event_index,
                    interrupts_that_queues_share,
                    device_without_interrupts_is_polled,
                }
            }
            narrow {
                rings {
                    suite_on_the_disks_of_any_machine,
                }
                driver_io {
                    opened_device_is_what_was_described_and_goes_back_to_linux,
                    sequential_writes_at_depth_are_read_back,
                    conventional_zone_and_plain_disk_are_written_anywhere,
                }
                driver_append {
                    appends_of_many_tasks_land_where_the_device_says,
                    batch_of_appends_takes_one_doorbell,
                }
                driver_cancel {
                    dropped_appends_run_to_their_end,
                    device_is_dropped_with_requests_in_flight,
                }
                driver_crash {
                    killed_process_leaves_a_usable_device,
                }
                addresses {
                    memory_is_mapped_where_the_iommu_reaches,
                }
                removal {
                    notices_are_given_where_the_function_has_them,
                    unplugged_function_is_asked_for_and_let_go,
                }
                driver_stall {
                    device_that_asks_for_a_reset_gets_it,
                }
                driver_unplug {
                    queues_learn_that_their_device_is_gone,
                    shared_device_is_let_go_without_its_users,
                }
            }
            checked {
                tool_check {
                    deviations_of_qemu_are_found_and_no_others,
                }
            }
            unconfined {
                rings {
                    suite_on_the_disks_of_any_machine,
                }
                no_iommu {
                    function_is_refused_without_consent,
                    tool_says_what_is_at_stake,
                    tool_warns_and_does_its_work,
                    pinned_memory_lies_where_the_driver_is_told,
                    memory_of_ordinary_pages_is_not_pinned,
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
            .chain(measure::ALL)
            .chain(pictures::ALL)
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
    /// Texts that it leaves behind, by the names of the files that they shall be in.
    pub files: BTreeMap<String, String>,
}

impl Context {
    /// The context of a scenario that has yet to begin.
    #[must_use]
    pub fn new(machine: &'static Machine) -> Self {
        Self {
            machine,
            metrics: BTreeMap::new(),
            files: BTreeMap::new(),
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

    /// What the zones of a disk should be like.
    ///
    /// # Errors
    /// If the machine has no such disk, or it is not zoned.
    pub fn geometry(&self, name: &str) -> Result<&'static Geometry> {
        let disk = self.function(name)?.disk;
        disk.zones
            .as_ref()
            .with_context(|| format!("{name} is not zoned"))
    }

    /// Hands a disk to the driver under test.
    ///
    /// # Errors
    /// If the machine has no such disk, or it cannot be handed over.
    pub fn claim(&self, name: &str) -> Result<Claim> {
        Claim::take(self.function(name)?)
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

    /// The control of the machine, to plug and unplug, to resize and to look from outside.
    ///
    /// # Errors
    /// If QEMU does not answer.
    pub fn control(&self) -> Result<Control> {
        Control::open()
    }

    /// Notes something measured.
    pub fn metric(&mut self, name: impl Into<String>, value: f64) {
        self.metrics.insert(name.into(), value);
    }

    /// Leaves a text behind.
    pub fn file(&mut self, name: impl Into<String>, text: impl Into<String>) {
        self.files.insert(name.into(), text.into());
    }
}

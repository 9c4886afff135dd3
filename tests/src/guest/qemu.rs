//! QEMU's command line for a machine.

use std::path::Path;
use std::process::Command;

use super::build::Parts;
use super::machine::{Disk, Machine, PANEL};

/// The name of the program.
pub const PROGRAM: &str = "qemu-system-x86_64";

const MACHINE: [&str; 16] = [
    "-machine",
    "q35",
    "-accel",
    "tcg,thread=multi",
    "-cpu",
    "max",
    "-smp",
    "2",
    "-m",
    "2G",
    "-nodefaults",
    "-no-reboot",
    "-display",
    "none",
    "-device",
    "intel-iommu,intremap=on,aw-bits=48",
];

/// Kernel messages from warnings up go to the console; a panic ends the boot.
const KERNEL_ARGUMENTS: &str =
    "console=ttyS0 loglevel=5 panic=-1 intel_iommu=on mitigations=off hugepages=64";

/// The files of a run.
pub mod files {
    /// The initramfs.
    pub const INITRAMFS: &str = "initramfs";
    /// The guest's console.
    pub const CONSOLE: &str = "console.log";
    /// The scenarios' report.
    pub const REPORT: &str = "report.jsonl";
    /// What QEMU itself says.
    pub const QEMU: &str = "qemu.log";
}

/// The command that boots `machine`, whose files lie in `directory`.
#[must_use]
pub fn command(machine: &Machine, parts: &Parts, directory: &Path) -> Command {
    let file = |name: &str| directory.join(name).display().to_string();
    let mut qemu = Command::new(PROGRAM);
    qemu.env("LD_PRELOAD", parts.shim());
    qemu.args(MACHINE);
    qemu.arg("-kernel").arg(parts.kernel().join("vmlinuz"));
    qemu.arg("-initrd").arg(directory.join(files::INITRAMFS));
    qemu.args(["-append", KERNEL_ARGUMENTS]);
    qemu.args(["-serial", &format!("file:{}", file(files::CONSOLE))]);
    qemu.args(["-serial", &format!("file:{}", file(files::REPORT))]);
    for disk in machine.disks.iter().chain([&PANEL]) {
        qemu.args(["-blockdev", &backend(disk, &file(disk.name))]);
        qemu.args(["-device", &device(disk)]);
    }
    // On a thread of its own, the panel answers even while the shim holds all other disks' threads.
    qemu.args(["-object", &format!("iothread,id={}", PANEL.name)]);
    qemu.args(machine.arguments);
    qemu
}

fn backend(disk: &Disk, file: &str) -> String {
    let driver = if disk.zones.is_some() {
        "host_device,cache.direct=on,aio=threads"
    } else {
        "file"
    };
    // A comma in a value is written twice.
    format!(
        "node-name={},driver={driver},filename={}",
        disk.name,
        file.replace(',', ",,")
    )
}

fn device(disk: &Disk) -> String {
    let Disk {
        name,
        slot,
        queues,
        queue_size,
        ..
    } = disk;
    let on = if disk.behind_iommu { "on" } else { "off" };
    let mut device = format!(
        "virtio-blk-pci,drive={name},id={name},serial={name},addr={slot:#x},num-queues={queues},\
         queue-size={queue_size},iommu_platform={on},disable-legacy=on"
    );
    if name == &PANEL.name {
        device += &format!(",iothread={name}");
    }
    if !disk.properties.is_empty() {
        device += &format!(",{}", disk.properties);
    }
    device
}

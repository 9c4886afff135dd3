//! QEMU's command line for a machine.

use std::path::Path;
use std::process::Command;

use super::build::Parts;
use super::machine::{Attached, Disk, Iommu, Machine, PANEL};

/// The name of the program.
pub const PROGRAM: &str = "qemu-system-x86_64";

const MACHINE: [&str; 14] = [
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
];

/// Kernel messages from warnings up go to the console; a panic ends the boot.
const KERNEL_ARGUMENTS: &str =
    "console=ttyS0 loglevel=5 panic=-1 intel_iommu=on mitigations=off hugepages=64";

/// QEMU's control socket, and a serial port of the guest that is connected to it: a scenario speaks
/// QMP to the machine that it runs on. The port has an interrupt of its own, that of the floppy drive
/// which is not there: the console has the one that PCs give both, and those that PCI uses are lost
/// at times.
const CONTROL: [&str; 8] = [
    "-chardev",
    "socket,id=control,path=control,server=on,wait=off",
    "-mon",
    "chardev=control,mode=control",
    "-chardev",
    "socket,id=operator,path=control",
    "-device",
    "isa-serial,chardev=operator,index=2,irq=6",
];

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
    // The control socket's path is short wherever the directory lies.
    qemu.current_dir(directory);
    qemu.args(MACHINE);
    if let Iommu::Intel { bits } = machine.iommu {
        qemu.args([
            "-device",
            &format!("intel-iommu,intremap=on,aw-bits={bits}"),
        ]);
    }
    qemu.arg("-kernel").arg(parts.kernel().join("vmlinuz"));
    qemu.arg("-initrd").arg(directory.join(files::INITRAMFS));
    let mut arguments = KERNEL_ARGUMENTS.to_owned();
    if machine.iommu == Iommu::None {
        // For kernels that have VFIO built in; the others are told when they load it.
        arguments += " vfio.enable_unsafe_noiommu_mode=1";
    }
    qemu.args(["-append", &arguments]);
    qemu.args(["-serial", &format!("file:{}", file(files::CONSOLE))]);
    qemu.args(["-serial", &format!("file:{}", file(files::REPORT))]);
    qemu.args(CONTROL);
    for disk in machine.disks.iter().chain([&PANEL]) {
        qemu.args(["-blockdev", &backend(disk, &file(disk.name))]);
        if let Attached::Port { bus } = disk.attached {
            qemu.args(["-device", &port(disk, bus)]);
        }
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

fn port(disk: &Disk, bus: u8) -> String {
    let Disk { name, slot, .. } = disk;
    format!("pcie-root-port,id={name}-port,addr={slot:#x},chassis={bus}")
}

/// The device that a disk is, as it is described to QEMU at its start or when it is plugged in.
#[must_use]
pub fn device(disk: &Disk) -> String {
    let Disk {
        name,
        slot,
        queues,
        queue_size,
        ..
    } = disk;
    let place = match disk.attached {
        Attached::Fixed => format!("addr={slot:#x}"),
        Attached::Port { .. } => format!("bus={name}-port,addr=0"),
    };
    let on = if disk.behind_iommu { "on" } else { "off" };
    let mut device = format!(
        "virtio-blk-pci,drive={name},id={name},serial={name},{place},num-queues={queues},\
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

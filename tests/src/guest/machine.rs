//! The machines that scenarios run on. Both sides know them: the outside to build them, the inside
//! to find its devices and to know what they should look like.

use std::time::Duration;

/// A guest's hardware.
#[derive(Debug)]
pub struct Machine {
    /// What it is called.
    pub name: &'static str,
    /// What translates its devices' addresses.
    pub iommu: Iommu,
    /// Its disks; [`PANEL`] comes on top.
    pub disks: &'static [Disk],
    /// More arguments for QEMU.
    pub arguments: &'static [&'static str],
    /// How long a boot may take, scenarios included.
    pub limit: Duration,
}

/// What translates the devices' addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Iommu {
    /// Intel's, for addresses of so many bits.
    Intel {
        /// How many.
        bits: u32,
    },
    /// Nothing. The kernel's VFIO gives functions out all the same.
    None,
}

/// A virtio-blk disk, a PCI function of its own.
#[derive(Debug)]
pub struct Disk {
    /// What it is called; also its serial number.
    pub name: &'static str,
    /// Its PCI slot on bus 0, or that of the port which it is behind.
    pub slot: u8,
    /// How it is attached.
    pub attached: Attached,
    /// Its size.
    pub bytes: u64,
    /// Its zones, if it is zoned.
    pub zones: Option<Geometry>,
    /// Does it offer ACCESS_PLATFORM, and so go through the IOMMU?
    pub behind_iommu: bool,
    /// Its number of queues.
    pub queues: u16,
    /// The size of each.
    pub queue_size: u16,
    /// More properties of the device, `key=value` separated by commas.
    pub properties: &'static str,
}

/// How a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    /// On bus 0, for good.
    Fixed,
    /// Behind a port of its own, from which it can be unplugged.
    Port {
        /// The bus behind the port: the ports of a machine count from 1, in the order of their slots.
        bus: u8,
    },
}

/// What a disk's zones are like; bytes unless said otherwise.
#[derive(Debug)]
pub struct Geometry {
    /// Size of a zone.
    pub zone_size: u64,
    /// What can be written of one.
    pub zone_capacity: u64,
    /// How many zones at the start are conventional.
    pub conventional: u64,
    /// Most zones open at once; 0 for no limit.
    pub max_open: u64,
    /// Most zones open or closed at once; 0 for no limit.
    pub max_active: u64,
    /// Largest append.
    pub max_append: u64,
    /// Logical and physical block size.
    pub block: u64,
    /// More lines for the shim, which outdo what is said above.
    pub sidecar: &'static str,
}

impl Machine {
    /// The machine of this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<&'static Self> {
        [&main, &rings, &narrow, &unconfined, &checked, &bench]
            .into_iter()
            .find(|machine| machine.name == name)
    }
}

impl Disk {
    /// Its PCI address.
    #[must_use]
    pub fn address(&self) -> String {
        match self.attached {
            Attached::Fixed => format!("0000:00:{:02x}.0", self.slot),
            Attached::Port { bus } => format!("0000:{bus:02x}:00.0"),
        }
    }
}

const MIB: u64 = 1 << 20;

const DISK: Disk = Disk {
    name: "",
    slot: 0,
    attached: Attached::Fixed,
    bytes: 0,
    zones: None,
    behind_iommu: true,
    queues: 2,
    queue_size: 256,
    properties: "",
};

/// Everything at once: conventional zones, capacity below size, both limits.
const MAIN: Disk = Disk {
    name: "main",
    slot: 0x10,
    bytes: 32 * 8 * MIB,
    zones: Some(Geometry {
        zone_size: 8 * MIB,
        zone_capacity: 6 * MIB,
        conventional: 2,
        max_open: 8,
        max_active: 12,
        max_append: MIB / 2,
        block: 512,
        sidecar: "",
    }),
    ..DISK
};

/// One request is one operation on the backend; 4 KiB blocks, no limits.
const UNMERGED: Disk = Disk {
    name: "unmerged",
    slot: 0x11,
    bytes: 16 * 32 * MIB,
    zones: Some(Geometry {
        zone_size: 32 * MIB,
        zone_capacity: 32 * MIB,
        conventional: 0,
        max_open: 0,
        max_active: 0,
        max_append: MIB / 4,
        block: 4096,
        sidecar: "",
    }),
    properties: "request-merging=off",
    ..DISK
};

/// The same with the other format of rings, and requests returned in order.
const UNMERGED_PACKED: Disk = Disk {
    properties: "request-merging=off,packed=on,in_order=on",
    ..UNMERGED
};

const PLAIN: Disk = Disk {
    name: "plain",
    slot: 0x13,
    bytes: 64 * MIB,
    ..DISK
};

/// The machine that most scenarios run on.
#[expect(
    non_upper_case_globals,
    reason = "the scenarios' list names machines in lower case"
)]
pub static main: Machine = Machine {
    name: "main",
    iommu: Iommu::Intel { bits: 48 },
    disks: &[
        MAIN,
        UNMERGED,
        // Takes addresses for physical ones, whatever the IOMMU says.
        Disk {
            name: "no-iommu",
            slot: 0x12,
            bytes: 16 * 2 * MIB,
            zones: Some(Geometry {
                zone_size: 2 * MIB,
                zone_capacity: 2 * MIB - 4096,
                conventional: 0,
                max_open: 4,
                max_active: 4,
                max_append: MIB / 8,
                block: 512,
                sidecar: "",
            }),
            behind_iommu: false,
            ..DISK
        },
        PLAIN,
    ],
    arguments: &[],
    limit: Duration::from_secs(300),
};

/// A disk of the machine `rings`: small, and as zoned as `main`.
const fn offering(name: &'static str, slot: u8, properties: &'static str) -> Disk {
    Disk {
        name,
        slot,
        bytes: 24 * 2 * MIB,
        zones: Some(Geometry {
            zone_size: 2 * MIB,
            zone_capacity: 2 * MIB - 64 * 1024,
            conventional: 2,
            max_open: 0,
            max_active: 0,
            max_append: MIB / 4,
            block: 512,
            sidecar: "",
        }),
        properties,
        ..DISK
    }
}

/// Its disks differ in which ring features and how many interrupt vectors they offer.
#[expect(
    non_upper_case_globals,
    reason = "the scenarios' list names machines in lower case"
)]
pub static rings: Machine = Machine {
    name: "rings",
    iommu: Iommu::Intel { bits: 48 },
    disks: &[
        offering("split", 0x10, ""),
        offering("packed", 0x11, "packed=on"),
        offering("in-order", 0x12, "packed=on,in_order=on"),
        offering("direct", 0x13, "packed=on,indirect_desc=off"),
        offering("flags", 0x14, "packed=on,event_idx=off"),
        offering("bare", 0x15, "indirect_desc=off,event_idx=off"),
        offering("two-vectors", 0x16, "vectors=2"),
        offering("one-vector", 0x17, "vectors=1"),
        offering("no-vectors", 0x18, "vectors=0"),
    ],
    arguments: &[],
    limit: Duration::from_secs(300),
};

/// Its IOMMU maps addresses of 39 bits, like many small ones; some of its disks can be unplugged.
#[expect(
    non_upper_case_globals,
    reason = "the scenarios' list names machines in lower case"
)]
pub static narrow: Machine = Machine {
    name: "narrow",
    iommu: Iommu::Intel { bits: 39 },
    disks: &[
        MAIN,
        UNMERGED_PACKED,
        PLAIN,
        Disk {
            name: "unplugged",
            slot: 0x18,
            attached: Attached::Port { bus: 1 },
            bytes: 16 * 8 * MIB,
            zones: Some(Geometry {
                zone_size: 8 * MIB,
                zone_capacity: 8 * MIB,
                conventional: 1,
                max_open: 0,
                max_active: 0,
                max_append: MIB / 4,
                block: 512,
                sidecar: "",
            }),
            ..DISK
        },
    ],
    arguments: &[],
    limit: Duration::from_secs(300),
};

/// No IOMMU: addresses that devices are told are physical ones.
#[expect(
    non_upper_case_globals,
    reason = "the scenarios' list names machines in lower case"
)]
pub static unconfined: Machine = Machine {
    name: "unconfined",
    iommu: Iommu::None,
    disks: &[
        // Offers ACCESS_PLATFORM, which makes no difference here.
        MAIN,
        Disk {
            behind_iommu: false,
            ..UNMERGED_PACKED
        },
        PLAIN,
    ],
    arguments: &[],
    limit: Duration::from_secs(300),
};

/// What the conformance of QEMU's device is looked at on: its first disk has physical blocks that are
/// larger than logical ones, and zones that have failed.
#[expect(
    non_upper_case_globals,
    reason = "the scenarios' list names machines in lower case"
)]
pub static checked: Machine = Machine {
    name: "checked",
    iommu: Iommu::Intel { bits: 48 },
    disks: &[
        Disk {
            name: "strict",
            slot: 0x10,
            bytes: 24 * 2 * MIB,
            zones: Some(Geometry {
                zone_size: 2 * MIB,
                zone_capacity: 2 * MIB - 64 * 1024,
                conventional: 2,
                max_open: 4,
                max_active: 6,
                max_append: MIB / 4,
                block: 512,
                sidecar: "physical-block=4096\nread-only=20\noffline=21\n",
            }),
            ..DISK
        },
        Disk {
            name: "whole",
            slot: 0x11,
            bytes: 16 * 2 * MIB,
            zones: Some(Geometry {
                zone_size: 2 * MIB,
                zone_capacity: 2 * MIB,
                conventional: 0,
                max_open: 0,
                max_active: 0,
                max_append: MIB / 4,
                block: 4096,
                sidecar: "",
            }),
            properties: "packed=on,in_order=on",
            ..DISK
        },
        PLAIN,
    ],
    arguments: &[],
    limit: Duration::from_secs(300),
};

/// What is measured on: disks that differ in one thing each.
#[expect(
    non_upper_case_globals,
    reason = "the scenarios' list names machines in lower case"
)]
pub static bench: Machine = Machine {
    name: "bench",
    iommu: Iommu::Intel { bits: 48 },
    disks: &[
        Disk {
            name: "merged-split",
            slot: 0x10,
            ..MEASURED
        },
        Disk {
            name: "merged-packed",
            slot: 0x11,
            properties: "packed=on",
            ..MEASURED
        },
        Disk {
            name: "unmerged-split",
            slot: 0x12,
            properties: "request-merging=off",
            ..MEASURED
        },
        Disk {
            name: "unmerged-packed",
            slot: 0x13,
            properties: "request-merging=off,packed=on",
            ..MEASURED
        },
    ],
    arguments: &[],
    limit: Duration::from_secs(3600),
};

/// One zone takes all that a job writes.
const MEASURED: Disk = Disk {
    bytes: 8 * 128 * MIB,
    zones: Some(Geometry {
        zone_size: 128 * MIB,
        zone_capacity: 128 * MIB,
        conventional: 0,
        max_open: 0,
        max_active: 0,
        max_append: MIB / 4,
        block: 4096,
        sidecar: "",
    }),
    ..DISK
};

/// The shim's panel: counters to read, controls to write. Every machine has it.
pub static PANEL: Disk = Disk {
    name: "panel",
    slot: 0x1e,
    bytes: 64 << 10,
    queues: 1,
    queue_size: 64,
    ..DISK
};

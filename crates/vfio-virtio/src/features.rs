//! Feature bits (VIRTIO 1.3, 2.2 and 6).

use std::{fmt, ops};

use virtio_bindings::{
    virtio_config::{
        VIRTIO_F_ACCESS_PLATFORM, VIRTIO_F_IN_ORDER, VIRTIO_F_NOTIF_CONFIG_DATA,
        VIRTIO_F_NOTIFICATION_DATA, VIRTIO_F_ORDER_PLATFORM, VIRTIO_F_RING_PACKED,
        VIRTIO_F_RING_RESET, VIRTIO_F_VERSION_1,
    },
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};

/// A set of feature bits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Features(u64);

macro_rules! bits {
    ($($(#[$doc:meta])* $name:ident = $bit:expr;)*) => {
        $($(#[$doc])* pub const $name: Self = Self::bit($bit);)*

        const NAMES: &[(Self, &str)] = &[$((Self::$name, stringify!($name)),)*];
    };
}

impl Features {
    /// The empty set.
    pub const NONE: Self = Self(0);

    bits! {
        /// Chains may lie in tables outside the ring.
        INDIRECT_DESC = VIRTIO_RING_F_INDIRECT_DESC;
        /// Each side says at which index it wants to be notified.
        EVENT_IDX = VIRTIO_RING_F_EVENT_IDX;
        /// Not a legacy device.
        VERSION_1 = VIRTIO_F_VERSION_1;
        /// The device uses the addresses that the platform's IOMMU translates.
        ACCESS_PLATFORM = VIRTIO_F_ACCESS_PLATFORM;
        /// Packed virtqueues.
        RING_PACKED = VIRTIO_F_RING_PACKED;
        /// The device uses buffers in the order in which they were made available.
        IN_ORDER = VIRTIO_F_IN_ORDER;
        /// Memory accesses are ordered as the platform orders them.
        ORDER_PLATFORM = VIRTIO_F_ORDER_PLATFORM;
        /// Notifications carry the ring position.
        NOTIFICATION_DATA = VIRTIO_F_NOTIFICATION_DATA;
        /// Notifications carry a value that the device chose.
        NOTIF_CONFIG_DATA = VIRTIO_F_NOTIF_CONFIG_DATA;
        /// Queues can be reset one by one.
        RING_RESET = VIRTIO_F_RING_RESET;
    }

    /// The set of the one bit numbered `number`.
    pub const fn bit(number: u32) -> Self {
        Self(1 << number)
    }

    /// The set whose bits are those of `bits`.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits as a number.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether all of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl ops::BitOr for Features {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl ops::BitAnd for Features {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl ops::Sub for Features {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for bit in (0..64).filter(|bit| self.0 >> bit & 1 == 1) {
            match Self::NAMES.iter().find(|(set, _)| *set == Self::bit(bit)) {
                Some((_, name)) => list.entry(&format_args!("{name}")),
                None => list.entry(&bit),
            };
        }
        list.finish()
    }
}

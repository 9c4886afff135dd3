//! How much one request that names ranges may do (VIRTIO 1.3 §5.2.4). All numbers differ, so that a
//! driver that reads one for another is found out.

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The longest range.
    pub(crate) sectors: u32,
    /// The most ranges.
    pub(crate) segments: u32,
}

pub(crate) const DISCARD: Limits = Limits {
    sectors: 1 << 15,
    segments: 32,
};
pub(crate) const WRITE_ZEROES: Limits = Limits {
    sectors: 1 << 14,
    segments: 8,
};
pub(crate) const SECURE_ERASE: Limits = Limits {
    sectors: 1 << 13,
    segments: 4,
};

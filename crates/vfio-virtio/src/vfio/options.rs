//! How a function is claimed.

/// How a function is claimed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VfioOptions {
    /// Whether a function that no IOMMU confines may be claimed.
    pub no_iommu: NoIommu,
}

impl VfioOptions {
    /// The same options with another answer to functions that no IOMMU confines.
    #[must_use]
    pub fn no_iommu(mut self, no_iommu: NoIommu) -> Self {
        self.no_iommu = no_iommu;
        self
    }
}

/// Whether a function that no IOMMU confines may be claimed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NoIommu {
    /// No: it is refused.
    #[default]
    Refuse,
    /// Yes, in the kernel's no-IOMMU mode, if there is no IOMMU.
    ///
    /// Nothing then keeps the function from reading and writing any memory of the machine, by its
    /// own fault or by a wrong address of its driver's. If the process dies, its memory goes back
    /// to the kernel before the device is stopped, which may go on writing into what by then
    /// belongs to others.
    Allow,
}

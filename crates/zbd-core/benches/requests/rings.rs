//! The queue that all layers drive, and the device behind it.

/// The format of the queue.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Split,
    Packed,
}

/// Where the descriptors of a request are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chains {
    /// In a table of their own: one entry of the queue a request.
    Indirect,
    /// In the queue: three entries a request.
    Direct,
}

#[derive(Clone, Copy)]
pub(crate) struct Rings {
    pub(crate) format: Format,
    pub(crate) chains: Chains,
}

pub(crate) const FORMATS: &[(&str, Format)] =
    &[("split", Format::Split), ("packed", Format::Packed)];
pub(crate) const CHAINS: &[(&str, Chains)] =
    &[("indirect", Chains::Indirect), ("direct", Chains::Direct)];

impl Rings {
    /// 256 entries, as devices mostly offer. Direct, 256 requests need more.
    pub(crate) fn size(self) -> u16 {
        match self.chains {
            Chains::Indirect => 256,
            Chains::Direct => 1024,
        }
    }

    /// The device: no data are kept, one zone takes all that is written, one queue.
    pub(crate) fn device(self) -> String {
        let format = match self.format {
            Format::Split => "split",
            Format::Packed => "packed",
        };
        let indirect = match self.chains {
            Chains::Indirect => "on",
            Chains::Direct => "off",
        };
        let size = self.size();
        format!(
            "zones=2,zone-size=64g,store=null,queues=1,queue-size={size},ring={format},indirect={indirect}"
        )
    }
}

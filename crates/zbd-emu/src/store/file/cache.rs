//! The volatile write cache: blocks that the file does not hold yet.

use std::collections::{BTreeMap, btree_map::Entry};

use memmap2::{MmapMut, MmapOptions};

/// What a block will hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// What lies in this slot of the cache's memory.
    Slot(u32),
    Zero,
}

/// Blocks by their number on the device.
#[derive(Debug)]
pub(super) struct Cache {
    /// The kernel provides it as it is written.
    memory: MmapMut,
    block_bytes: usize,
    most_blocks: u32,
    /// Slots are handed out in order and taken back all at once, so that what was written in order
    /// lies in order.
    next_slot: u32,
    blocks: BTreeMap<u64, Content>,
}

impl Cache {
    /// A cache of at most `bytes`, which is a block or more.
    pub(super) fn new(bytes: u64, block_bytes: usize) -> std::io::Result<Self> {
        let most_blocks = bytes / block_bytes as u64;
        let memory = MmapOptions::new()
            .len(most_blocks as usize * block_bytes)
            .no_reserve_swap()
            .map_anon()?;
        Ok(Self {
            memory,
            block_bytes,
            // 4 GiB of blocks of 512 bytes at most.
            most_blocks: most_blocks as u32,
            next_slot: 0,
            blocks: BTreeMap::new(),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    pub(super) fn len_bytes(&self) -> u64 {
        self.blocks.len() as u64 * self.block_bytes as u64
    }

    /// Whether `block` may need room that there is not.
    pub(super) fn is_full_for(&self, block: u64) -> bool {
        match self.blocks.get(&block) {
            Some(Content::Slot(_)) => false,
            Some(Content::Zero) => self.next_slot == self.most_blocks,
            None => {
                self.next_slot == self.most_blocks
                    || self.blocks.len() as u64 >= u64::from(self.most_blocks)
            }
        }
    }

    pub(super) fn get(&self, block: u64) -> Option<Content> {
        self.blocks.get(&block).copied()
    }

    /// The first block from `block` on that is cached.
    pub(super) fn next(&self, block: u64) -> Option<u64> {
        self.blocks.range(block..).next().map(|(block, _)| *block)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, Content)> {
        self.blocks
            .iter()
            .map(|(block, content)| (*block, *content))
    }

    /// What `count` slots from `slot` on hold.
    pub(super) fn slots(&self, slot: u32, count: usize) -> &[u8] {
        let start = slot as usize * self.block_bytes;
        &self.memory[start..start + count * self.block_bytes]
    }

    /// The place of a block that there is room for. A new one holds whatever was there before,
    /// one that was zero is.
    pub(super) fn claim(&mut self, block: u64) -> &mut [u8] {
        let bytes = self.block_bytes;
        let next = self.next_slot;
        let mut zero = false;
        let slot = match self.blocks.entry(block) {
            Entry::Occupied(mut entry) => match *entry.get() {
                Content::Slot(slot) => slot,
                Content::Zero => {
                    zero = true;
                    entry.insert(Content::Slot(next));
                    self.next_slot += 1;
                    next
                }
            },
            Entry::Vacant(entry) => {
                entry.insert(Content::Slot(next));
                self.next_slot += 1;
                next
            }
        };
        let start = slot as usize * bytes;
        let place = &mut self.memory[start..start + bytes];
        if zero {
            place.fill(0);
        }
        place
    }

    /// Makes a block zero that there is room for.
    pub(super) fn zero(&mut self, block: u64) {
        self.blocks.insert(block, Content::Zero);
    }

    pub(super) fn clear(&mut self) {
        self.blocks.clear();
        self.next_slot = 0;
    }
}

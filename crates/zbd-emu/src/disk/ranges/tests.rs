//! What no request can see.

use super::{Disk, Range};
use crate::{EmulatedConfig, config::Resolved, store::Store};

#[test]
fn no_data_stay_in_the_store_where_zones_were_erased() {
    const SECTOR: usize = 512;
    let config: EmulatedConfig = "zones=3,zone-size=32k,zone-cap=16k".parse().unwrap();
    let mut disk = Disk::new(&Resolved::new(&config).unwrap(), None).unwrap();
    // As left there by a reset: all of it lies beyond the write pointers.
    kept(&mut disk).fill(7);
    let range = Range {
        sector: 64,
        sectors: 64,
        flags: 0,
    };
    disk.erase_zones(&[range]).unwrap();
    for (sector, bytes) in kept(&mut disk).chunks(SECTOR).enumerate() {
        let expected = if (64..128).contains(&sector) { 0 } else { 7 };
        assert!(bytes.iter().all(|byte| *byte == expected), "{sector}");
    }
}

fn kept(disk: &mut Disk) -> &mut [u8] {
    match &mut disk.store {
        Store::Memory(memory) => memory,
        Store::Null | Store::File(_) => panic!("the store keeps nothing"),
    }
}

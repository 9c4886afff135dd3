//! Requests that only some devices know, carried out.

use zbd_core::{
    ErrorKind, Lifetime, PreEol, Request, Sector, SectorCount, Unmap, Wear, ZoneId, ZonedDevice,
    parse_id,
};

use crate::{
    blocking::block_on,
    rig::{Device, Rig, pattern},
};

const DISK: &str = "model=none,zones=4,zone-size=1m,queue-size=8,discard=on,write-zeroes=on,secure-erase=on,lifetime=on";

/// Writes where ranges are to be set to zeroes, one block before and one after.
fn written(rig: &mut Rig, at: u64, blocks: u64) {
    let request = rig.write(at - 8, (blocks as usize + 2) * 4096, at);
    assert!(rig.run(request).result.is_ok());
}

fn only_zeroes(rig: &mut Rig, at: u64, blocks: u64) {
    let all = rig.read(at - 8, (blocks as usize + 2) * 4096);
    let was = pattern(at, all.len());
    let end = all.len() - 4096;
    assert!(all[..4096] == was[..4096] && all[end..] == was[end..]);
    assert!(all[4096..end].iter().all(|&byte| byte == 0));
}

#[test]
fn ranges_read_as_zeroes_and_what_is_beside_them_stays() {
    let mut rig = Rig::threaded(DISK);
    let info = rig.queue.info().clone();
    assert!(info.discard.is_some() && info.secure_erase.is_some());
    assert!(info.write_zeroes.unwrap().may_unmap);
    let (at, len) = (Sector(64), SectorCount(24));
    let unmapped = |unmap| Request::WriteZeroes { at, len, unmap };
    for request in [
        Request::Discard { at, len },
        unmapped(Unmap::Keep),
        unmapped(Unmap::Allow),
        Request::SecureErase { at, len },
    ] {
        let words = format!("{request:?}");
        written(&mut rig, 64, 3);
        let done = rig.run(request);
        assert_eq!(done.result.unwrap(), at, "{words}");
        assert!(done.buffer.is_none(), "{words}");
        // The software device fills what is discarded with zeroes.
        only_zeroes(&mut rig, 64, 3);
    }
}

#[test]
fn whole_disks_are_cleared_by_either_door() {
    for block in [512, 4096] {
        let device = Device::threaded(&format!("{DISK},block-size={block}")).open_shared();
        let whole = device.info().capacity;
        let fill = || {
            let mut buffer = device.buffer(1 << 20).unwrap();
            buffer.fill(7);
            for at in (0..whole.0).step_by(2048) {
                buffer = block_on(device.write(Sector(at), buffer)).unwrap();
            }
        };
        let empty = || {
            (0..whole.0).step_by(2048).all(|at| {
                let read = block_on(device.read(Sector(at), 1 << 20)).unwrap();
                read.to_vec().iter().all(|&byte| byte == 0)
            })
        };
        fill();
        assert!(!empty());
        block_on(device.discard(Sector(0), whole)).unwrap();
        assert!(empty());
        fill();
        block_on(device.write_zeroes(Sector(0), whole, Unmap::Keep)).unwrap();
        assert!(empty());
        fill();
        block_on(device.secure_erase(Sector(0), whole)).unwrap();
        assert!(empty());
    }
}

#[test]
fn a_host_aware_device_takes_ranges_in_its_zones() {
    let mut rig = Rig::threaded("model=ha,zones=4,zone-size=1m,discard=on");
    written(&mut rig, 2048 + 64, 3);
    let (at, len) = (Sector(2048 + 64), SectorCount(24));
    assert!(rig.run(Request::Discard { at, len }).result.is_ok());
    only_zeroes(&mut rig, 2048 + 64, 3);
    let request = rig.append(1, 4096, 1);
    let (kind, words) = crate::configuration::refusal(&mut rig, request);
    assert_eq!(kind, ErrorKind::InvalidRequest);
    assert!(words.contains("seq-preferred"), "{words}");
}

#[test]
fn zeroes_in_a_sequential_zone_are_what_the_device_makes_of_them() {
    let mut rig = Rig::threaded("zones=4,zone-size=1m,write-zeroes=on");
    let zeroes = |at| Request::WriteZeroes {
        at: Sector(at),
        len: SectorCount(8),
        unmap: Unmap::Keep,
    };
    assert!(rig.run(zeroes(2048)).result.is_ok());
    let error = rig.run(zeroes(2048)).result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnalignedWritePointer);
    assert_eq!(rig.report()[1].written(), Some(SectorCount(8)));
}

#[test]
fn the_id_is_the_serial_number_that_the_device_was_given() {
    for serial in ["Z", "0123456789abcdefghij"] {
        let mut device = Device::threaded(&format!("{DISK},serial={serial}"));
        assert_eq!(block_on(device.open_shared().id()).unwrap(), serial);
        let mut rig = Rig {
            queue: device.open_queue(),
            device,
        };
        let buffer = rig.filled(Request::ID_LEN, 1);
        let done = rig.run(Request::GetId { buffer });
        assert_eq!(done.result.unwrap(), Sector(0));
        assert_eq!(parse_id(&done.buffer.unwrap()), serial);
    }
}

#[test]
fn the_lifetime_is_that_of_the_device() {
    let device = Device::threaded(DISK).open_shared();
    let expected = Lifetime {
        pre_eol: PreEol::Normal,
        type_a: Wear::UpToPercent(20),
        type_b: Wear::UpToPercent(30),
    };
    assert_eq!(block_on(device.lifetime()).unwrap(), expected);
}

#[test]
fn a_read_only_device_is_read_through_both_doors() {
    let mut rig = Rig::threaded(&format!("{DISK},readonly=on"));
    assert!(rig.queue.info().read_only);
    assert_eq!(rig.read(0, 4096), [0; 4096]);
    let Rig { queue, .. } = rig;
    let device = ZonedDevice::from_queues(vec![queue]).unwrap();
    let (at, len) = (Sector(0), SectorCount(64));
    let buffer = device.buffer(4096).unwrap();
    for error in [
        block_on(device.write(at, buffer)).unwrap_err(),
        block_on(device.discard(at, len)).unwrap_err(),
        block_on(device.write_zeroes(at, len, Unmap::Allow)).unwrap_err(),
        block_on(device.secure_erase(at, len)).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    }
    assert!(block_on(device.flush()).is_ok() && block_on(device.id()).is_ok());
}

#[test]
fn a_device_with_small_segments_takes_the_greatest() {
    let mut rig = Rig::threaded("zones=4,zone-size=1m,max-append=16k,size-max=16k,seg-max=1");
    let info = rig.queue.info();
    assert_eq!((info.max_segment, info.max_transfer), (16_384, 16_384));
    let request = rig.append(1, 16_384, 1);
    assert_eq!(rig.run(request).result.unwrap(), Sector(2048));
    assert_eq!(rig.read(2048, 16_384), pattern(1, 16_384));
    let request = rig.write(0, 20_480, 1);
    let (kind, words) = crate::configuration::refusal(&mut rig, request);
    assert_eq!(kind, ErrorKind::InvalidRequest, "{words}");
    assert_eq!(block_on(rig_zones(rig)), 4);
}

async fn rig_zones(rig: Rig) -> usize {
    let device = ZonedDevice::from_queues(vec![rig.queue]).unwrap();
    assert!(device.zone(ZoneId(1)).report().await.is_ok());
    device.report(..).await.unwrap().len()
}

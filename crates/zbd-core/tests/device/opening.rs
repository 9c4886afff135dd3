//! Device strings, options, and devices that cannot do what is asked.

use zbd_core::{
    Backend, DeviceSpec, ErrorKind, IoQueue, OpenOptions, Request, Sector, ZoneId, ZoneModel,
    ZoneType, ZonedDevice,
};

use crate::{
    blocking::block_on,
    rig::{Device, Rig, open_options, pattern},
};

#[test]
fn device_strings_name_what_they_say() {
    for spec in ["emu:", "emu:zones=4,zone-size=1m", "emu:store=null,"] {
        let emulated = |spec: &str| match spec.parse().unwrap() {
            DeviceSpec::Emulated(config) => config,
            other => panic!("{spec} is {other:?}"),
        };
        let words = spec.parse::<DeviceSpec>().unwrap().to_string();
        assert_eq!(
            emulated(&words),
            emulated(spec),
            "{words} opens what {spec} does"
        );
    }
    let pci: DeviceSpec = "pci:0000:00:01.0".parse().unwrap();
    assert!(matches!(pci, DeviceSpec::Pci(_)));
    assert_eq!(pci.to_string(), "pci:0000:00:01.0");
    let kernel: DeviceSpec = "/dev/vda".parse().unwrap();
    assert!(matches!(kernel, DeviceSpec::Kernel(_)));
    assert_eq!(kernel.to_string(), "/dev/vda");
}

#[test]
fn malformed_device_strings_are_refused_with_what_is_wrong() {
    for (spec, word) in [
        ("", "names no device"),
        ("emu", "names no device"),
        ("vda", "names no device"),
        ("nvme:0000:00:01.0", "names no device"),
        ("pci:", "pci:"),
        ("pci:nonsense", "nonsense"),
        ("pci:0000:00:01.8", "01.8"),
        ("emu:zones", "zones"),
        ("emu:zones=", "zones="),
        ("emu:zones=0", "zones=0"),
        ("emu:zones=-1", "zones=-1"),
        ("emu:zones=4,zones=4", "twice"),
        ("emu:zones=4,size=4m", "both"),
        ("emu:colour=red", "colour"),
        ("emu:zone-size=1m,zone-cap=2m", "zone-cap"),
        ("emu:block-size=1000", "block-size"),
        ("emu:block-size=256", "block-size"),
        ("emu:zone-size=1000", "zone-size"),
        ("emu:queue-size=100", "queue-size"),
        ("emu:model=zoned", "model=zoned"),
        ("emu:indirect=yes", "indirect=yes"),
        ("emu:latency=soon", "latency=soon"),
        ("emu:max-open=9,max-active=3", "max-open"),
        ("emu:conventional=99", "conventional"),
    ] {
        let error = spec.parse::<DeviceSpec>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidSpec, "{spec}: {error}");
        assert!(error.to_string().contains(word), "{spec}: {error}");
    }
}

#[test]
fn what_is_no_block_device_is_refused_with_the_remedy() {
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    for (path, words) in [
        ("/dev/null", "is not a block device"),
        ("/dev", "is not a block device"),
        ("/dev/zbd/none", "there is no such device"),
        (here, "emu:store=/"),
    ] {
        let error = IoQueue::open(path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        let text = error.to_string();
        assert!(text.contains(words) && text.contains(path), "{error}");
    }
}

#[test]
fn a_pci_function_that_does_not_exist_is_not_found() {
    let error = IoQueue::open("pci:fffe:1f:1f.7").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[test]
fn the_defaults_open() {
    let queue = IoQueue::open("emu:").unwrap();
    let info = queue.info();
    assert_eq!(
        (info.name.as_str(), info.backend),
        ("emu:", Backend::Emulated)
    );
    assert_eq!((info.queues, info.max_queues), (1, 2));
    assert_eq!((info.queue_depth, queue.depth()), (256, 256));
    assert_eq!(info.block_size, 4096);
    assert_eq!(info.memory_len, 64 << 20);
    assert!(!info.read_only);
    let zoned = info.zoned().unwrap();
    assert_eq!(zoned.model, ZoneModel::HostManaged);
    assert!(zoned.zone_count > 1 && zoned.max_append.bytes() >= 4096);
    let size = u64::from(zoned.zone_count) * zoned.zone_size.bytes();
    assert_eq!(info.capacity.bytes(), size);
}

#[test]
fn a_plain_disk_reads_and_writes_and_knows_no_zones() {
    let mut rig = Rig::stepped("model=none,zones=4,zone-size=1m");
    let error = rig.queue.info().zoned().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(!rig.queue.info().features.contains(&"zoned"));
    for at in [0, 4096, 2040] {
        let request = rig.write(at, 8192, at);
        assert!(rig.run(request).result.is_ok());
        assert_eq!(rig.read(at, 8192), pattern(at, 8192));
    }
    assert!(rig.run(Request::Flush).result.is_ok());

    let device = Device::threaded("model=none,zones=4,zone-size=1m").open_shared();
    let buffer = device.buffer(4096).unwrap();
    let error = block_on(device.append(ZoneId(0), buffer)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.into_buffer().is_some());
    for kind in [
        block_on(device.report(..)).unwrap_err().kind(),
        block_on(device.reset_all()).unwrap_err().kind(),
        block_on(device.zone(ZoneId(0)).open()).unwrap_err().kind(),
    ] {
        assert_eq!(kind, ErrorKind::Unsupported);
    }
}

#[test]
fn a_host_aware_device_is_written_anywhere() {
    let mut rig = Rig::stepped("model=ha,zones=4,zone-size=1m");
    let zoned = rig.queue.info().zoned().unwrap();
    assert_eq!(zoned.model, ZoneModel::HostAware);
    assert_eq!(
        zoned.zone_type(ZoneId(1)),
        Some(ZoneType::SequentialPreferred)
    );
    for at in [2048 + 64, 2048] {
        let request = rig.write(at, 4096, at);
        assert_eq!(rig.run(request).result.unwrap(), Sector(at));
        assert_eq!(rig.read(at, 4096), pattern(at, 4096));
    }
    assert_eq!(rig.report()[1].written().unwrap().0, 72);
    // Zone append is for zones that require sequential writes.
    let request = rig.append(1, 4096, 0);
    match rig.queue.submit(request, 0) {
        Ok(()) => {
            let error = rig.finish().pop().unwrap().result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidZoneState);
        }
        Err(rejected) => assert_eq!(rejected.error.kind(), ErrorKind::InvalidRequest),
    }
}

#[test]
fn a_device_without_append_opens_and_is_written_otherwise() {
    let mut rig = Rig::stepped("max-append=0,zones=4,zone-size=1m");
    let request = rig.write(2048, 4096, 1);
    assert!(rig.run(request).result.is_ok());
    let device = Device::threaded("max-append=0").open_shared();
    let buffer = device.buffer(4096).unwrap();
    let error = block_on(device.append(ZoneId(0), buffer)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("write"), "{error}");
}

fn refused(device: &str, options: OpenOptions) -> zbd_core::Error {
    let mut device = Device::threaded(device);
    let error = device.open(options).unwrap_err();
    // The refusal left the device as it was: it opens with options that it can meet.
    assert!(device.open(open_options()).is_ok());
    error
}

#[test]
fn queues_that_the_device_does_not_have_are_refused() {
    for queues in [0, 3, u16::MAX] {
        let error = refused(
            "queues=2",
            OpenOptions {
                queues,
                ..open_options()
            },
        );
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.to_string().contains("has 2"), "{error}");
    }
}

#[test]
fn queue_sizes_that_the_device_does_not_allow_are_refused_with_its_limit() {
    // Packed rings are as large as one likes.
    let device = "queue-size=64,ring=split,indirect=on";
    for size in [0, 1, 2, 3, 5, 100, 128, 32768, u16::MAX] {
        let queue_size = Some(size);
        let error = refused(
            device,
            OpenOptions {
                queue_size,
                ..open_options()
            },
        );
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.to_string().contains("64"), "{error}");
    }
    for size in [4, 8, 64] {
        let queue_size = Some(size);
        let options = OpenOptions {
            queue_size,
            ..open_options()
        };
        let queues = Device::threaded(device).open(options).unwrap();
        assert_eq!(queues[0].depth(), size);
    }
}

#[test]
fn too_little_memory_is_refused_with_the_remedy() {
    // Rings of 32768 take more than 4 MiB.
    let error = refused(
        "",
        OpenOptions {
            memory_len: 4096,
            ..open_options()
        },
    );
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    assert!(error.to_string().contains("larger arena"), "{error}");
    let mut device = Device::threaded("queue-size=32768");
    let error = device.open(open_options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    // And memory that does not exist.
    let error = refused(
        "",
        OpenOptions {
            memory_len: 1 << 60,
            ..open_options()
        },
    );
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
}

#[test]
fn a_device_can_be_opened_again_and_keeps_its_data() {
    let mut device = Device::threaded("zones=4,zone-size=1m,block-size=512");
    for round in 0..10 {
        let shared: ZonedDevice = device.open_shared();
        let mut buffer = shared.buffer(512).unwrap();
        buffer.fill(round as u8);
        let done = block_on(shared.append(ZoneId(1), buffer)).unwrap();
        assert_eq!(done.sector, Sector(2048 + round));
        let read = block_on(shared.read(Sector(2048), 512 * (round as usize + 1))).unwrap();
        for (i, block) in read.to_vec().chunks(512).enumerate() {
            assert!(block.iter().all(|&byte| byte == i as u8));
        }
    }
}

#[test]
fn ring_features_that_are_asked_for_and_not_offered_are_refused_with_the_remedy() {
    use zbd_core::Use;
    let always = |set: fn(&mut zbd_core::RingOptions)| {
        let mut options = open_options();
        set(&mut options.rings);
        let device = "ring=split,indirect=off,event-idx=off,in-order=off,notification-data=off";
        refused(device, options)
    };
    for (error, qemu) in [
        (always(|rings| rings.packed = Use::Always), "packed=on"),
        (
            always(|rings| rings.indirect = Use::Always),
            "indirect_desc=on",
        ),
        (
            always(|rings| rings.event_idx = Use::Always),
            "event_idx=on",
        ),
        (always(|rings| rings.in_order = Use::Always), "in_order=on"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains(qemu), "{error}");
    }
}

#[test]
fn ring_features_are_used_where_they_are_offered_and_wanted() {
    use zbd_core::Use;
    let device = "ring=packed,indirect=on,event-idx=on,in-order=on,notification-data=on,notif-config-data=on,order-platform=on";
    let names = [
        "ring_packed",
        "indirect_desc",
        "event_idx",
        "in_order",
        "notification_data",
        "notif_config_data",
        "order_platform",
    ];
    for wanted in [Use::WhereOffered, Use::Always, Use::Never] {
        let mut options = open_options();
        let rings = &mut options.rings;
        rings.packed = wanted;
        rings.indirect = wanted;
        rings.event_idx = wanted;
        rings.in_order = wanted;
        rings.notification_data = wanted;
        rings.notif_config_data = wanted;
        rings.order_platform = wanted;
        let mut device = Device::stepped(device);
        let queue = device.open(options).unwrap().pop().unwrap();
        for name in names {
            let used = queue.info().features.contains(&name);
            assert_eq!(
                used,
                wanted != Use::Never,
                "{name}: {:?}",
                queue.info().features
            );
        }
        let mut rig = Rig { queue, device };
        assert!(rig.run(Request::Flush).result.is_ok());
    }
}

#[test]
fn pci_device_strings_are_written_as_they_are_read() {
    for spec in [
        "pci:0000:00:01.0",
        "pci:0000:00:01.0,noiommu=allow",
        "pci:0000:00:01.0,noiommu=allow,ring=packed,indirect=off,event-idx=on,in-order=off",
        "pci:0000:00:01.0,ring=split,notification-data=on,notif-config-data=off,order-platform=on",
    ] {
        let parsed: DeviceSpec = spec.parse().unwrap();
        assert_eq!(parsed.to_string(), spec);
    }
    for (spec, word) in [
        ("pci:0000:00:01.0,ring=round", "packed or split"),
        ("pci:0000:00:01.0,in-order=maybe", "on or off"),
        ("pci:0000:00:01.0,noiommu=yes", "allow or refuse"),
        ("pci:0000:00:01.0,colour=red", "in-order"),
        ("pci:0000:00:01.0,ring", "key=value"),
    ] {
        let error = spec.parse::<DeviceSpec>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidSpec);
        assert!(error.to_string().contains(word), "{error}");
    }
}

use std::{num::NonZeroU64, time::Duration};

use vfio_virtio::ErrorKind;

use super::{
    DataFault, DataFaultKind, EmulatedConfig, Quirk, Recurrence, Resolved, RingFormat, StoreKind,
    Switch, ZoneModel,
};

fn parse(options: &str) -> EmulatedConfig {
    options.parse().unwrap()
}

fn refused(options: &str) -> (ErrorKind, String) {
    let error = options.parse::<EmulatedConfig>().unwrap_err();
    (error.kind(), error.to_string())
}

#[test]
fn nothing_is_the_default() {
    assert_eq!(parse(""), EmulatedConfig::default());
    assert_eq!(parse(","), EmulatedConfig::default());
}

#[test]
fn every_key_is_understood() {
    let config = parse(
        "zones=64,zone-size=64m,zone-cap=48m,conventional=4,max-open=8,max-active=12,\
         max-append=512k,block-size=4096,model=hm,queues=2,queue-size=128,ring=packed,indirect=off,\
         event-idx=off,in-order=on,notification-data=on,notif-config-data=on,\
         order-platform=on,vectors=1,serial=A1,flush=off,discard=on,write-zeroes=off,\
         secure-erase=on,lifetime=off,readonly=on,size-max=64k,seg-max=100,store=null,\
         latency=10us",
    );
    let expected = EmulatedConfig {
        model: Some(ZoneModel::HostManaged),
        zones: Some(64),
        size_bytes: None,
        zone_size_bytes: Some(64 << 20),
        zone_capacity_bytes: Some(48 << 20),
        conventional_zones: Some(4),
        max_open_zones: Some(8),
        max_active_zones: Some(12),
        max_append_bytes: Some(512 << 10),
        block_size_bytes: Some(4096),
        queues: 2,
        queue_size: 128,
        ring: RingFormat::Packed,
        indirect: Switch::Off,
        event_idx: Switch::Off,
        in_order: Switch::On,
        notification_data: Switch::On,
        notif_config_data: Switch::On,
        order_platform: Switch::On,
        vectors: Some(1),
        serial: Some("A1".to_owned()),
        flush: Switch::Off,
        discard: Some(Switch::On),
        write_zeroes: Switch::Off,
        secure_erase: Some(Switch::On),
        lifetime: Switch::Off,
        readonly: Switch::On,
        size_max: Some(65536),
        seg_max: Some(100),
        store: StoreKind::Null,
        cache_bytes: None,
        latency: Duration::from_micros(10),
        faults: Vec::new(),
        quirks: Vec::new(),
    };
    assert_eq!(config, expected);
    assert_eq!(parse("model=ha").model, Some(ZoneModel::HostAware));
    assert_eq!(parse("model=none").model, Some(ZoneModel::None));
    let file = parse("store=../disk,cache=1m");
    assert_eq!(file.store, StoreKind::File("../disk".into()));
    assert_eq!(file.cache_bytes, Some(1 << 20));
    assert_eq!(parse("latency=0").latency, Duration::ZERO);
    for quirk in Quirk::ALL {
        assert_eq!(parse(&format!("quirks={quirk}")).quirks, [quirk]);
    }
    let number = |number| NonZeroU64::new(number).unwrap();
    assert_eq!(
        parse("fault=flip-bit@3+misreport@every:7").faults,
        [
            DataFault {
                kind: DataFaultKind::FlipBit,
                when: Recurrence::Once(number(3)),
            },
            DataFault {
                kind: DataFaultKind::Misreport,
                when: Recurrence::Every(number(7)),
            },
        ]
    );
}

#[test]
fn a_size_may_leave_a_short_last_zone() {
    let resolved = Resolved::new(&parse("size=100m,zone-size=48m")).unwrap();
    assert_eq!(resolved.geometry.sectors, (100 << 20) / 512);
    assert_eq!(resolved.geometry.zone_sectors, (48 << 20) / 512);
}

#[test]
fn limits_that_are_not_given_agree_with_those_that_are() {
    for (options, open, active) in [
        ("", 32, 48),
        ("max-open=100", 100, 100),
        ("max-open=4", 4, 48),
        ("max-open=0", 0, 0),
        ("max-active=8", 8, 8),
        ("max-active=0", 32, 0),
        ("max-open=2,max-active=0", 2, 0),
        ("model=ha", 0, 0),
        ("model=none", 0, 0),
    ] {
        let geometry = Resolved::new(&parse(options)).unwrap().geometry;
        assert_eq!(
            (geometry.max_open, geometry.max_active),
            (open, active),
            "{options}"
        );
    }
}

#[test]
fn refusals_name_key_value_and_remedy() {
    for (options, words) in [
        ("zone=4", &["'zone'", "zones, size"][..]),
        ("zones", &["'zones'", "key=value"]),
        ("zones=0", &["zones=0", "1 to"]),
        ("zones=x", &["zones=x", "number"]),
        ("zones=-1", &["zones=-1", "number"]),
        ("zones=4,zones=4", &["zones", "twice"]),
        ("zones=4,size=1g", &["zones and size"]),
        ("zone-size=64q", &["zone-size=64q", "64m"]),
        ("zone-size=1000", &["zone-size=1000", "4096"]),
        ("zone-size=2t", &["zone-size", "less than 2t"]),
        ("zones=4294967295", &["zones are not allowed"]),
        ("zone-cap=128m", &["zone-cap", "zone-size"]),
        ("zone-cap=0", &["zone-cap=0", "multiple"]),
        ("conventional=65", &["conventional=65", "64 zones"]),
        (
            "max-open=5,max-active=4",
            &["max-open=5", "max-active=4", "1 to 4"],
        ),
        ("max-open=0,max-active=4", &["max-open=0", "1 to 4"]),
        ("model=ha,max-open=4", &["max-open", "model=hm"]),
        ("model=ha,zone-cap=1m", &["zone-cap", "model=hm"]),
        ("max-append=1000", &["max-append=1000", "4096"]),
        ("block-size=1000", &["block-size=1000", "power of two"]),
        ("block-size=128k", &["block-size", "512 to 64k"]),
        ("model=zns", &["model=zns", "hm", "ha", "none"]),
        ("queues=0", &["queues=0", "1 to 64"]),
        ("queue-size=100", &["queue-size=100", "power of two"]),
        ("queue-size=65536", &["queue-size=65536", "32768"]),
        ("indirect=yes", &["indirect=yes", "on or off"]),
        ("ring=round", &["ring=round", "split or packed"]),
        ("ring=packed,queue-size=3", &["queue-size=3", "4 to 32768"]),
        ("vectors=129", &["vectors=129", "0 to 128"]),
        ("serial=123456789012345678901", &["serial", "20 characters"]),
        ("serial=a b", &["serial=a b", "no space"]),
        ("size-max=512", &["size-max=512", "4096"]),
        ("size-max=8g", &["size-max=8g", "below 4g"]),
        ("seg-max=0", &["seg-max=0", "1 to"]),
        ("seg-max=255", &["seg-max=255", "1 to 254"]),
        (
            "seg-max=4,size-max=64k",
            &["max-append=524288", "make 262144"],
        ),
        ("discard=maybe", &["discard=maybe", "on or off"]),
        ("store=disk", &["store=disk", "mem, null", "with a /"]),
        ("cache=1m", &["cache", "store=PATH"]),
        ("latency=fast", &["latency=fast", "10us"]),
        (
            "quirks=odd",
            &["quirks=odd", "append-overflow", "joined by +"],
        ),
        ("fault=", &["fault= ", "KIND@N"]),
        ("fault=lost@1", &["fault=lost@1", "lose-append"]),
        ("fault=flip-bit", &["fault=flip-bit", "@every:N"]),
        ("fault=flip-bit@0", &["fault=flip-bit@0", "KIND@N"]),
        ("fault=flip-bit@1+", &["fault= ", "joined by +"]),
        ("fault=flip-bit@1,store=null", &["store=null", "store=mem"]),
        (
            "fault=flip-bit@1+misreport@1,max-append=0",
            &["fault=misreport@1", "max-append"],
        ),
        ("fault=lose-append@1,model=ha", &["model=hm"]),
    ] {
        let (kind, text) = refused(options);
        assert_eq!(kind, ErrorKind::InvalidInput, "{options}");
        for word in words {
            assert!(text.contains(word), "{options}: {text}");
        }
    }
}

#[test]
fn a_configuration_prints_as_the_string_that_makes_it() {
    for options in [
        "",
        "zones=16,zone-size=8388608,zone-cap=6291456,max-open=4,max-active=0",
        "size=100663296,conventional=1,block-size=512,queues=4,queue-size=64",
        "max-append=65536,indirect=off,event-idx=off,store=null,latency=10us",
        "model=none",
        "ring=packed,queue-size=100,in-order=on",
        "notification-data=on,notif-config-data=on,order-platform=on,vectors=0,serial=X",
        "flush=off,discard=on,write-zeroes=off,secure-erase=off,lifetime=off,readonly=on",
        "size-max=1048576,seg-max=7",
        "store=/tmp/a b/disk,cache=65536",
        // What is said counts, also where it is the default.
        "store=./disk,zones=64,zone-size=16m,conventional=0,max-append=512k,block-size=4k,model=hm",
        "serial=zbd-emu",
        "quirks=append-overflow+close-opens",
        "fault=flip-bit@1+swap-sectors@2+lose-data@every:3+lose-append@4+repeat-append@5+misreport@6",
    ] {
        let config: EmulatedConfig = options.parse().unwrap();
        let printed: EmulatedConfig = config.to_string().parse().unwrap();
        assert_eq!(printed, config, "{options} printed as {config}");
    }
    assert_eq!(EmulatedConfig::default().to_string(), "");
}

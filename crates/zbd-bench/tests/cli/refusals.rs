//! What the tool refuses, and how.

use crate::harness::assert_refused;

#[test]
fn usage_errors_end_with_2() {
    for (arguments, word) in [
        ("--frobnicate", "--frobnicate"),
        ("frobnicate", "frobnicate"),
        ("run emu:", "give the device as --device emu:"),
        ("info --depth 3", "see zbd-bench info --help"),
        ("run --op fly", "fly"),
        ("--depth 0", "--depth 0"),
        ("--depth 257", "256"),
        ("--depth 32768", "256"),
        ("--depth many", "many"),
        ("--queues 3", "has 2"),
        ("--zones 0", "--zones 0"),
        ("--zones 65", "64 zones"),
        (
            "--zones 3 --device emu:zones=4,conventional=2",
            "2 sequential",
        ),
        ("--zones 49", "max_active"),
        ("--queues 2 --zones 1", "as many zones as queues"),
        ("--block-size 0", "--block-size 0"),
        ("--block-size 6k", "4096"),
        ("--block-size 1m", "524288"),
        ("--block-size 128m --op read", "capacity"),
        ("--block-size 1g --depth 256 --op read", "capacity"),
        ("--count 0", "--count 0"),
        ("--op read --read-mix 10", "--read-mix 10"),
        ("--read-mix 100", "percent"),
        ("--rate-iops 0", "requests a second"),
        ("--rate-iops 10 --batch 2", "--batch"),
        ("--max-open-zones 5", "--max-open-zones 5"),
        ("--queues 2 --max-open-zones 1", "--max-open-zones 1"),
        ("--threads 2", "--api async"),
        (
            "--api async --threads 5 --depth 8",
            "each thread needs a zone",
        ),
        ("--api async --threads 3 --depth 2", "2 tasks"),
        ("--count 1 --time_based", "--time-based"),
        ("--count 1 --runtime 1s", "--runtime"),
        ("--wait sleep", "adaptive"),
        ("--device nonsense", "nonsense"),
        ("--device emu:zones=0", "zones=0"),
        ("info pci:1", "PCI address"),
        ("zones", "command is missing"),
        ("zones open emu:", "--zone"),
        ("zones close emu:", "--zone"),
        ("zones finish emu:", "--zone"),
        ("zones reset emu:", "--zone"),
        ("zones reset emu: --zone 64", "64 zones"),
        ("bind 0000:00:01", "PCI address"),
    ] {
        assert_refused(arguments, 2, word);
    }
}

#[test]
fn what_a_device_cannot_do_ends_with_3() {
    for (arguments, word) in [
        ("--device emu:model=none", "not a zoned device"),
        ("--device emu:max-append=0", "--op write"),
        ("--device emu:model=ha", "--op write"),
        ("--device emu:conventional=64", "no sequential zones"),
        ("--device /dev/null", "/dev/null"),
        ("--device pci:ffff:ff:1f.7", "ffff:ff:1f.7"),
        ("zones report emu:model=none", "not a zoned device"),
        ("bind ffff:ff:1f.7", "ffff:ff:1f.7"),
        ("unbind ffff:ff:1f.7", "ffff:ff:1f.7"),
    ] {
        assert_refused(arguments, 3, word);
    }
}

#[test]
fn a_refused_zone_command_ends_with_1_and_says_what_could_not_be_done() {
    assert_refused(
        "zones close emu: --zone 3",
        1,
        "close zone 3, which is empty",
    );
}

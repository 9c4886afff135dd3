//! Listing and binding against a tree of files, with a thread that acts as the kernel would.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tempfile::TempDir;

use super::*;

const PCI: &str = "sys/bus/pci";
const DISK: &str = "0000:00:01.0";

/// A machine made of files.
struct Machine {
    dir: TempDir,
    stop: Arc<AtomicBool>,
    kernel: Option<JoinHandle<()>>,
}

impl Machine {
    fn new() -> Self {
        let machine = Self {
            dir: tempfile::tempdir().unwrap(),
            stop: Arc::default(),
            kernel: None,
        };
        for driver in ["vfio-pci", "virtio-pci", "e1000e"] {
            machine.write(&format!("{PCI}/drivers/{driver}/bind"), "");
            machine.write(&format!("{PCI}/drivers/{driver}/unbind"), "");
        }
        machine.write(&format!("{PCI}/drivers_probe"), "");
        machine.write("sys/module/vfio_iommu_type1/refcnt", "0\n");
        machine.write("etc/passwd", "root:x:0:0::/root:/bin/sh\n");
        machine
    }

    /// A machine with one disk in group 13.
    fn with_disk() -> Self {
        let machine = Self::new();
        machine.function(DISK, "0x1af4", "0x1042", Some("virtio-pci"), Some(13));
        machine.write(
            &format!("{PCI}/devices/{DISK}/virtio0/block/vda/dev"),
            "254:0\n",
        );
        machine.write(
            &format!("{PCI}/devices/{DISK}/virtio0/block/vda/queue/zoned"),
            "host-managed\n",
        );
        machine.write("dev/vfio/13", "");
        machine
    }

    fn function(&self, at: &str, vendor: &str, id: &str, driver: Option<&str>, group: Option<u32>) {
        let device = format!("{PCI}/devices/{at}");
        self.write(&format!("{device}/vendor"), &format!("{vendor}\n"));
        self.write(&format!("{device}/device"), &format!("{id}\n"));
        self.write(&format!("{device}/driver_override"), "(null)\n");
        if let Some(driver) = driver {
            link_driver(self.dir.path(), at, driver);
        }
        if let Some(group) = group {
            let target = format!("../../../../kernel/iommu_groups/{group}");
            symlink(target, self.path(&format!("{device}/iommu_group"))).unwrap();
            let members = format!("sys/kernel/iommu_groups/{group}/devices/{at}");
            fs::create_dir_all(self.path(&members)).unwrap();
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn sysfs(&self) -> Sysfs {
        Sysfs::at(self.dir.path())
    }

    /// Starts to answer what is written to the bus; a driver in `refusing` takes no function.
    fn run(mut self, refusing: &'static str) -> Self {
        let (root, stop) = (self.dir.path().to_owned(), Arc::clone(&self.stop));
        self.kernel = Some(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                answer(&root, refusing);
                thread::sleep(Duration::from_micros(500));
            }
        }));
        self
    }

    fn override_of(&self, at: &str) -> String {
        fs::read_to_string(self.path(&format!("{PCI}/devices/{at}/driver_override"))).unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(kernel) = self.kernel.take() {
            kernel.join().unwrap();
        }
    }
}

fn link_driver(root: &Path, at: &str, driver: &str) {
    let link = root.join(format!("{PCI}/devices/{at}/driver"));
    symlink(format!("../../drivers/{driver}"), link).unwrap();
}

/// Does what the kernel does on writes to `unbind`, `bind` and `drivers_probe`.
fn answer(root: &Path, refusing: &str) {
    let take = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        if !text.is_empty() {
            fs::write(path, "").unwrap();
        }
        text
    };
    // It was written last, so what was written before it is acted upon first.
    let probed = take(root.join(PCI).join("drivers_probe"));
    for driver in names(&root.join(PCI).join("drivers")) {
        let dir = root.join(PCI).join("drivers").join(&driver);
        let unbound = take(dir.join("unbind"));
        if !unbound.is_empty() {
            fs::remove_file(root.join(PCI).join("devices").join(unbound).join("driver")).unwrap();
        }
        let bound = take(dir.join("bind"));
        if !bound.is_empty() {
            link_driver(root, &bound, &driver);
        }
    }
    let device = root.join(PCI).join("devices").join(&probed);
    if !probed.is_empty() && !device.join("driver").exists() {
        let wish = fs::read_to_string(device.join("driver_override")).unwrap();
        let driver = match wish.trim_end() {
            "" | "(null)" => "virtio-pci",
            wish => wish,
        };
        if driver != refusing {
            link_driver(root, &probed, driver);
        }
    }
}

fn disk() -> PciAddress {
    DISK.parse().unwrap()
}

#[test]
fn only_virtio_blk_functions_are_listed_in_order() {
    let machine = Machine::with_disk();
    machine.function("0000:00:00.0", "0x1af4", "0x1001", None, None);
    machine.function("0000:00:02.0", "0x1af4", "0x1041", Some("virtio-pci"), None);
    machine.function("0000:00:03.0", "0x8086", "0x1042", None, Some(13));
    let found = machine.sysfs().functions().unwrap();
    let [old, new] = &found[..] else {
        panic!("{found:?}")
    };
    assert!(old.is_transitional());
    assert_eq!((&old.driver, &old.group), (&None, &None));
    assert_eq!(new.address, disk());
    assert!(!new.is_transitional());
    assert_eq!(new.driver.as_deref(), Some("virtio-pci"));
    let group = new.group.as_ref().unwrap();
    assert_eq!((group.id, group.others.len()), (13, 1));
    let [vda] = &new.disks[..] else {
        panic!("{:?}", new.disks)
    };
    assert_eq!((&*vda.name, &vda.in_use), ("vda", &None));
    assert_eq!(vda.zoned.as_deref(), Some("host-managed"));
}

#[test]
fn a_machine_without_pci_is_unsupported() {
    let empty = tempfile::tempdir().unwrap();
    let error = Sysfs::at(empty.path()).functions().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn only_members_with_drivers_of_their_own_are_obstacles() {
    let machine = Machine::with_disk();
    machine.function("0000:00:02.0", "0x8086", "0x10d3", Some("e1000e"), Some(13));
    machine.function(
        "0000:00:03.0",
        "0x8086",
        "0x10d3",
        Some("vfio-pci"),
        Some(13),
    );
    machine.function("0000:00:04.0", "0x8086", "0x10d3", None, Some(13));
    let group = machine.sysfs().iommu_group(disk()).unwrap();
    assert_eq!(group.others.len(), 3);
    let obstacles: Vec<_> = group.obstacles().map(|m| m.address.to_string()).collect();
    assert_eq!(obstacles, ["0000:00:02.0"]);
}

#[test]
fn a_disk_is_given_to_vfio_and_back() {
    let machine = Machine::with_disk().run("");
    let sysfs = machine.sysfs();
    let me = rustix::process::getuid().as_raw();
    let owner = Owner::Ids { uid: me, gid: None };
    let binding = sysfs.bind(disk(), Some(&owner)).unwrap();
    assert_eq!(binding.replaced.as_deref(), Some("virtio-pci"));
    assert_eq!(sysfs.driver(disk()).as_deref(), Some("vfio-pci"));
    let file = binding.group_file.unwrap();
    assert_eq!(file, machine.path("dev/vfio/13"));
    assert_eq!(fs::metadata(file).unwrap().uid(), me);

    let again = sysfs.bind(disk(), None).unwrap();
    assert_eq!(again.replaced, None);

    let own = sysfs.unbind(disk()).unwrap();
    assert_eq!(own.as_deref(), Some("virtio-pci"));
    assert_eq!(machine.override_of(DISK), "\n");
    assert_eq!(sysfs.unbind(disk()).unwrap().as_deref(), Some("virtio-pci"));
}

#[test]
fn a_function_that_vfio_refuses_goes_back_to_its_driver() {
    let machine = Machine::with_disk().run("vfio-pci");
    let sysfs = machine.sysfs();
    let error = sysfs.bind(disk(), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(sysfs.wait_for_driver(disk(), |d| d == Some("virtio-pci")));
    assert_eq!(machine.override_of(DISK), "\n");
}

#[test]
fn a_disk_in_use_stays_where_it_is() {
    let refusal = |path: &str, text: &str| {
        let machine = Machine::with_disk();
        let vda = format!("{PCI}/devices/{DISK}/virtio0/block/vda");
        machine.write(&format!("{vda}/vda1/dev"), "254:1\n");
        machine.write(&path.replace("VDA", &vda), text);
        let error = machine.sysfs().bind(disk(), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert_eq!(machine.override_of(DISK), "(null)\n");
        error.to_string()
    };
    let mountinfo = "proc/self/mountinfo";
    let mounted = refusal(mountinfo, "36 1 254:1 / /mnt rw - ext4 /dev/root rw\n");
    assert!(
        mounted.contains("vda1 is mounted on /mnt; unmount"),
        "{mounted}"
    );
    let btrfs = refusal(
        mountinfo,
        "36 1 0:42 / /data rw shared:1 - btrfs /dev/vda rw\n",
    );
    assert!(btrfs.contains("vda is mounted on /data"), "{btrfs}");
    let swap = refusal("proc/swaps", "Filename Type\n/dev/vda1 partition 1 0 -2\n");
    assert!(swap.contains("vda1 is swap space"), "{swap}");
    let held = refusal("VDA/holders/dm-0", "");
    assert!(held.contains("vda is part of dm-0"), "{held}");
}

#[test]
fn what_cannot_be_bound_is_refused_before_anything_changes() {
    let machine = Machine::with_disk();
    machine.function("0000:00:02.0", "0x8086", "0x10d3", Some("e1000e"), Some(14));
    machine.function("0000:00:03.0", "0x1af4", "0x1042", Some("virtio-pci"), None);
    let sysfs = machine.sysfs();
    let kind = |at: &str| sysfs.bind(at.parse().unwrap(), None).unwrap_err().kind();
    assert_eq!(kind("0000:00:1f.0"), ErrorKind::NotFound);
    assert_eq!(kind("0000:00:02.0"), ErrorKind::NotFound);
    assert_eq!(kind("0000:00:03.0"), ErrorKind::Unsupported);
    assert_eq!(machine.override_of("0000:00:03.0"), "(null)\n");
    let nobody = Owner::Name("no-such-user-here".to_owned());
    let error = sysfs.bind(disk(), Some(&nobody)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);

    fs::remove_dir_all(machine.path(&format!("{PCI}/drivers/vfio-pci"))).unwrap();
    let error = sysfs.bind(disk(), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("modprobe vfio-pci"), "{error}");
    assert_eq!(machine.override_of(DISK), "(null)\n");
}

#[test]
fn the_holder_of_a_group_is_named() {
    let machine = Machine::with_disk();
    let sysfs = machine.sysfs();
    let group = sysfs.iommu_group(disk()).unwrap();
    assert_eq!(sysfs.group_holder(&group), "another process");
    machine.write("proc/4711/comm", "engine\n");
    fs::create_dir_all(machine.path("proc/4711/fd")).unwrap();
    symlink(machine.path("dev/vfio/13"), machine.path("proc/4711/fd/7")).unwrap();
    assert_eq!(sysfs.group_holder(&group), "process 4711 (engine)");
    assert!(!sysfs.is_group_held(&group));
}

#[test]
fn a_group_that_nothing_confines_has_a_file_of_its_own() {
    let machine = Machine::with_disk();
    let sysfs = machine.sysfs();
    let group = sysfs.iommu_group(disk()).unwrap();
    assert_eq!(group.confinement, Confinement::Iommu);
    assert_eq!(sysfs.group_file(&group), machine.path("dev/vfio/13"));

    machine.write("sys/kernel/iommu_groups/13/name", "vfio-noiommu\n");
    let group = sysfs.iommu_group(disk()).unwrap();
    assert_eq!(group.confinement, Confinement::None);
    let file = machine.path("dev/vfio/noiommu-13");
    assert_eq!(sysfs.group_file(&group), file);
}

#[test]
fn a_function_without_an_iommu_is_bound_only_if_the_kernel_has_been_told() {
    let machine = Machine::new();
    machine.function(DISK, "0x1af4", "0x1042", Some("virtio-pci"), None);
    let error = machine.sysfs().bind(disk(), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("noiommu=allow"), "{error}");
    let parameter = "sys/module/vfio/parameters/enable_unsafe_noiommu_mode";
    machine.write(parameter, "N\n");
    assert!(machine.sysfs().bind(disk(), None).is_err());
    machine.write(parameter, "Y\n");
    let machine = machine.run("");
    assert!(machine.sysfs().bind(disk(), None).is_ok());
}

/// What stands in the way of the disk, each as `cause; remedy`.
fn hindrances(machine: &Machine) -> Vec<String> {
    let found = machine.sysfs().functions().unwrap();
    let ours = found.into_iter().find(|f| f.address == disk()).unwrap();
    let found = ours.hindrances.into_iter();
    found
        .map(|h| format!("{}; {}", h.cause, h.remedy))
        .collect()
}

#[track_caller]
fn assert_hindered(machine: &Machine, words: &[&str]) {
    let found = hindrances(machine);
    let [found] = &found[..] else {
        panic!("{found:?}");
    };
    for word in words {
        assert!(found.contains(word), "`{word}` is missing: {found}");
    }
}

#[test]
fn nothing_hinders_a_disk_that_can_be_bound_or_opened() {
    let machine = Machine::with_disk().run("");
    assert_eq!(hindrances(&machine), [""; 0]);
    machine.write("dev/vfio/vfio", "");
    machine.sysfs().bind(disk(), None).unwrap();
    assert_eq!(hindrances(&machine), [""; 0]);
}

#[test]
fn what_hinders_a_disk_of_the_kernels_is_named_with_its_remedy() {
    let machine = Machine::with_disk();
    machine.write(
        "proc/self/mountinfo",
        "36 1 254:0 / /mnt rw - ext4 /dev/vda rw\n",
    );
    assert_hindered(&machine, &["vda is mounted on /mnt", "unmount"]);

    let machine = Machine::with_disk();
    machine.function("0000:00:02.0", "0x8086", "0x10d3", Some("e1000e"), Some(13));
    let shared = "shares group 13 with 0000:00:02.0 (e1000e); bind those";
    assert_hindered(&machine, &[shared]);

    let machine = Machine::with_disk();
    fs::remove_dir_all(machine.path(&format!("{PCI}/drivers/vfio-pci"))).unwrap();
    assert_hindered(&machine, &["modprobe vfio-pci"]);
    machine.write("proc/sys/kernel/osrelease", "6.12.1\n");
    let module = "kernel/drivers/vfio/pci/vfio-pci.ko.xz: kernel/drivers/vfio/vfio.ko.xz\n";
    machine.write("lib/modules/6.12.1/modules.dep", module);
    assert_eq!(hindrances(&machine), [""; 0]);
}

#[test]
fn what_hinders_a_disk_of_vfio_is_named_with_its_remedy() {
    let machine = Machine::with_disk().run("");
    machine.write("dev/vfio/vfio", "");
    machine.sysfs().bind(disk(), None).unwrap();
    machine.write("proc/4711/comm", "engine\n");
    fs::create_dir_all(machine.path("proc/4711/fd")).unwrap();
    symlink(machine.path("dev/vfio/13"), machine.path("proc/4711/fd/7")).unwrap();
    assert_hindered(&machine, &["claimed by process 4711 (engine)"]);
    fs::remove_file(machine.path("proc/4711/fd/7")).unwrap();

    fs::remove_file(machine.path("dev/vfio/vfio")).unwrap();
    assert_hindered(&machine, &["dev/vfio/vfio is missing", "container"]);
    fs::remove_file(machine.path("dev/vfio/13")).unwrap();
    assert_hindered(&machine, &["dev/vfio/13 is missing", "container"]);
}

#[test]
fn want_of_an_iommu_is_named_with_what_the_kernel_allows() {
    let machine = Machine::new();
    machine.function(DISK, "0x1af4", "0x1042", Some("virtio-pci"), None);
    assert_hindered(&machine, &["no IOMMU", "intel_iommu=on"]);
    let parameter = "sys/module/vfio/parameters/enable_unsafe_noiommu_mode";
    machine.write(parameter, "Y\n");
    assert_hindered(&machine, &["no IOMMU", "bind it", "noiommu=allow"]);
}

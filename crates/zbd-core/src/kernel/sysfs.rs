//! What sysfs says of a block device.

use std::{
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::{Error, ErrorKind, Result, ZoneModel};

/// A block device's directory in sysfs.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    device: PathBuf,
    /// That of the request queue, which partitions have in common with their disk.
    queue: PathBuf,
}

impl Directory {
    /// The directory of the device of this number.
    pub(super) fn of(major: u32, minor: u32) -> Result<Self> {
        let link = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        let device = link.canonicalize().map_err(|error| {
            Error::new(
                ErrorKind::Io,
                format!(
                    "{}: sysfs does not know the device; is it mounted at /sys?",
                    link.display()
                ),
            )
            .with_source(error)
        })?;
        Ok(Self::at(device))
    }

    fn at(device: PathBuf) -> Self {
        let disk = match device.join("partition").exists() {
            true => device.parent().unwrap_or(&device),
            false => &device,
        };
        let queue = disk.join("queue");
        Self { device, queue }
    }

    /// Whether the device is a part of a disk.
    pub(super) fn is_partition(&self) -> bool {
        self.device.join("partition").exists()
    }

    /// The size in sectors; 0 once the device is gone.
    pub(super) fn sectors(&self) -> u64 {
        read(&self.device.join("size"))
            .ok()
            .and_then(|size| size.parse().ok())
            .unwrap_or(0)
    }

    pub(super) fn is_read_only(&self) -> bool {
        read(&self.device.join("ro")).is_ok_and(|value| value != "0")
    }

    /// The serial number, if the device has one.
    pub(super) fn serial(&self) -> Option<String> {
        let disk = self.queue.parent()?;
        ["serial", "device/serial"]
            .iter()
            .filter_map(|name| read(&disk.join(name)).ok())
            .find(|serial| !serial.is_empty())
    }

    /// How many queues the kernel has for the device.
    pub(super) fn hardware_queues(&self) -> u16 {
        let disk = self.queue.parent().map(|disk| disk.join("mq"));
        let entries = disk.and_then(|queues| fs::read_dir(queues).ok());
        u16::try_from(entries.map_or(1, Iterator::count)).unwrap_or(u16::MAX)
    }

    /// A number of the request queue.
    pub(super) fn number<T: FromStr>(&self, name: &str) -> Result<T> {
        let path = self.queue.join(name);
        let broken =
            |what: String| Error::new(ErrorKind::Io, format!("{}: {what}", path.display()));
        let value =
            read(&path).map_err(|error| broken("cannot be read".into()).with_source(error))?;
        value
            .parse()
            .map_err(|_| broken(format!("{value:?} is not the number that it should be")))
    }

    /// A number of the request queue that older kernels do not tell.
    pub(super) fn number_or<T: FromStr>(&self, name: &str, default: T) -> Result<T> {
        match self.queue.join(name).exists() {
            true => self.number(name),
            false => Ok(default),
        }
    }

    /// How the device treats its zones.
    pub(super) fn zone_model(&self) -> Result<ZoneModel> {
        match read(&self.queue.join("zoned")).as_deref() {
            // Kernels without zones do not tell.
            Ok("none") | Err(_) => Ok(ZoneModel::None),
            Ok("host-managed") => Ok(ZoneModel::HostManaged),
            Ok("host-aware") => Ok(ZoneModel::HostAware),
            Ok(other) => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{}: zones of a kind that is not known: {other:?}",
                    self.queue.display()
                ),
            )),
        }
    }

    /// Whether completed writes need a flush to be durable.
    pub(super) fn has_volatile_cache(&self) -> bool {
        // Where the kernel does not tell, to flush once too often is the lesser evil.
        read(&self.queue.join("write_cache")).map_or(true, |cache| cache != "write through")
    }

    /// What uses the device inside the kernel, such as a volume or an array.
    pub(super) fn holders(&self) -> Vec<String> {
        let entries = fs::read_dir(self.device.join("holders"));
        let mut names: Vec<_> = entries
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .collect();
        names.sort();
        names
    }
}

fn read(path: &Path) -> io::Result<String> {
    Ok(fs::read_to_string(path)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory like one of sysfs.
    fn made(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let root = std::env::temp_dir().join(format!("zbd-sysfs-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        for (path, content) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    #[test]
    fn a_disk_is_described_by_its_own_directory() {
        let root = made(
            "disk",
            &[
                ("size", "2048\n"),
                ("ro", "0\n"),
                ("serial", "abc \n"),
                ("queue/zoned", "host-managed\n"),
                ("queue/write_cache", "write through\n"),
                ("queue/logical_block_size", "4096\n"),
                ("queue/nonsense", "a lot\n"),
                ("mq/0/x", ""),
                ("mq/1/x", ""),
                ("holders/dm-0/x", ""),
            ],
        );
        let disk = Directory::at(root.clone());
        assert!(!disk.is_partition() && !disk.is_read_only() && !disk.has_volatile_cache());
        assert_eq!(disk.sectors(), 2048);
        assert_eq!(disk.serial().as_deref(), Some("abc"));
        assert_eq!(disk.hardware_queues(), 2);
        assert_eq!(disk.zone_model().unwrap(), ZoneModel::HostManaged);
        assert_eq!(disk.number::<u32>("logical_block_size").unwrap(), 4096);
        assert_eq!(disk.number_or("max_open_zones", 7_u32).unwrap(), 7);
        assert_eq!(disk.holders(), ["dm-0"]);
        let error = disk.number::<u32>("nonsense").unwrap_err();
        assert!(error.to_string().contains("a lot"), "{error}");
        assert_eq!(
            disk.number::<u8>("missing").unwrap_err().kind(),
            ErrorKind::Io
        );
        // What does not fit is not cut.
        assert!(disk.number::<u8>("logical_block_size").is_err());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_partition_has_its_own_size_and_the_limits_of_its_disk() {
        let root = made(
            "part",
            &[
                ("size", "4096"),
                ("queue/zoned", "none"),
                ("queue/logical_block_size", "512"),
                ("sda1/size", "8"),
                ("sda1/ro", "1"),
                ("sda1/partition", "1"),
            ],
        );
        let part = Directory::at(root.join("sda1"));
        assert!(part.is_partition() && part.is_read_only());
        assert!(part.has_volatile_cache(), "what is not told may be");
        assert_eq!(part.sectors(), 8);
        assert_eq!(part.zone_model().unwrap(), ZoneModel::None);
        assert_eq!(part.number::<u32>("logical_block_size").unwrap(), 512);
        assert_eq!(part.serial(), None);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_device_that_has_gone_has_no_sectors() {
        let gone = Directory::at("/sys/devices/none/such".into());
        assert_eq!(gone.sectors(), 0);
        assert!(gone.number::<u32>("logical_block_size").is_err());
    }
}

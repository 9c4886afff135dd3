//! The virtio-blk functions of a machine.

use serde::Serialize;
use zbd_core::sysfs::{FunctionInfo, Hindrance};

use super::{SCHEMA, print, print_json, table};
use crate::{cli::PlainFormat, failure::Failure};

#[derive(Serialize)]
struct Functions {
    schema: &'static str,
    functions: Vec<FunctionRecord>,
}

#[derive(Serialize)]
struct FunctionRecord {
    address: String,
    device_id: u16,
    transitional: bool,
    driver: Option<String>,
    group: Option<u32>,
    /// The IOMMU by the kernel's name.
    iommu: Option<String>,
    /// Whether it can be opened only by consent to what it may do, because nothing confines it.
    unconfined: bool,
    /// What opens it, once nothing hinders and vfio-pci has it.
    device: String,
    disks: Vec<DiskRecord>,
    /// The zone model; null where the kernel does not tell, because vfio-pci has it.
    zoned: Option<String>,
    /// The other functions that must be bound to vfio-pci, too.
    obstacles: Vec<String>,
    hindrances: Vec<HindranceRecord>,
}

#[derive(Serialize)]
struct DiskRecord {
    name: String,
    zoned: Option<String>,
    in_use: Option<String>,
}

#[derive(Serialize)]
struct HindranceRecord {
    cause: String,
    remedy: String,
}

impl From<&Hindrance> for HindranceRecord {
    fn from(hindrance: &Hindrance) -> Self {
        Self {
            cause: hindrance.cause.clone(),
            remedy: hindrance.remedy.clone(),
        }
    }
}

impl FunctionRecord {
    /// The record of a function; `locking` is in the way of all that could be opened else.
    fn new(function: &FunctionInfo, locking: Option<&Hindrance>) -> Self {
        let obstacles = function.group.iter().flat_map(|group| group.obstacles());
        let locking = locking.filter(|_| function.is_bound_to_vfio());
        let consent = if function.is_unconfined() {
            ",noiommu=allow"
        } else {
            ""
        };
        Self {
            address: function.address.to_string(),
            device_id: function.device_id,
            transitional: function.is_transitional(),
            driver: function.driver.clone(),
            group: function.group.as_ref().map(|group| group.id),
            iommu: function.iommu.clone(),
            unconfined: function.is_unconfined(),
            device: format!("pci:{}{consent}", function.address),
            disks: function
                .disks
                .iter()
                .map(|disk| DiskRecord {
                    name: disk.name.clone(),
                    zoned: disk.zoned.clone(),
                    in_use: disk.in_use.clone(),
                })
                .collect(),
            zoned: function.disks.iter().find_map(|disk| disk.zoned.clone()),
            obstacles: obstacles.map(|other| other.address.to_string()).collect(),
            hindrances: function
                .hindrances
                .iter()
                .chain(locking)
                .map(HindranceRecord::from)
                .collect(),
        }
    }

    /// What there is to say of it, a line each.
    fn remarks(&self, bound: bool) -> Vec<String> {
        let hindrances = self.hindrances.iter();
        let mut remarks: Vec<_> = hindrances
            .map(|one| format!("{}; {}", one.cause, one.remedy))
            .collect();
        // What is unconfined is hindered by that alone, and by consent not at all.
        if bound && self.hindrances.len() == usize::from(self.unconfined) {
            remarks.push(format!("opens as {}", self.device));
        } else if self.hindrances.is_empty() {
            remarks.push(format!("zbd-bench bind {} makes it usable", self.address));
        }
        remarks
    }
}

/// Prints the functions, of which none can be opened by this user while `locking` is in the way.
pub(crate) fn functions(
    functions: &[FunctionInfo],
    locking: Option<&Hindrance>,
    format: PlainFormat,
) -> Result<(), Failure> {
    let record = |function| FunctionRecord::new(function, locking);
    match format {
        PlainFormat::Json => print_json(&Functions {
            schema: SCHEMA,
            functions: functions.iter().map(record).collect(),
        }),
        PlainFormat::Text if functions.is_empty() => print(
            "This machine has no virtio-blk functions. The device emu: is always there: zbd-bench run\n",
        ),
        PlainFormat::Text => {
            let bound = functions.iter().map(FunctionInfo::is_bound_to_vfio);
            let functions: Vec<_> = functions.iter().map(record).zip(bound).collect();
            print(&text(&functions))
        }
    }
}

/// A table of facts, and below it what there is to say of each function.
fn text(functions: &[(FunctionRecord, bool)]) -> String {
    let heads = ["address", "driver", "group", "iommu", "disk", "zoned"];
    let mut facts = vec![heads.map(str::to_owned).to_vec()];
    let mut remarks = Vec::new();
    let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
    for (function, bound) in functions {
        let zoned = match &function.zoned {
            None if *bound => "unknown",
            zoned => zoned.as_deref().unwrap_or("-"),
        };
        let iommu = match &function.iommu {
            Some(name) => name,
            None if function.unconfined => "no-iommu",
            None if function.group.is_none() => "none",
            None => "-",
        };
        facts.push(vec![
            function.address.clone(),
            or_dash(function.driver.as_deref()),
            function.group.map_or("-".to_owned(), |id| id.to_string()),
            iommu.to_owned(),
            or_dash(function.disks.first().map(|disk| &*disk.name)),
            zoned.to_owned(),
        ]);
        for remark in function.remarks(*bound) {
            remarks.push(vec![function.address.clone(), remark]);
        }
    }
    format!("{}\n{}", table(6, facts), table(2, remarks))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> FunctionRecord {
        FunctionRecord {
            address: "0000:00:10.0".to_owned(),
            device_id: 0x1042,
            transitional: false,
            driver: Some("virtio-pci".to_owned()),
            group: Some(13),
            iommu: Some("dmar0".to_owned()),
            unconfined: false,
            device: "pci:0000:00:10.0".to_owned(),
            disks: vec![],
            zoned: Some("host-managed".to_owned()),
            obstacles: vec![],
            hindrances: vec![],
        }
    }

    fn hindered() -> Vec<HindranceRecord> {
        vec![HindranceRecord {
            cause: "shares group 13 with 0000:00:1f.0 (e1000e), 0000:00:1f.1 (snd_hda_intel)"
                .to_owned(),
            remedy: "bind those to vfio-pci, too, or move the device to another slot".to_owned(),
        }]
    }

    #[test]
    fn everything_fits_a_terminal_and_no_word_is_broken() {
        let mut shared = record();
        shared.hindrances = hindered();
        let text = text(&[(shared, false), (record(), false)]);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        for word in ["(snd_hda_intel);", "host-managed", "0000:00:1f.1", "dmar0"] {
            assert!(text.contains(word), "{text}");
        }
        assert!(text.contains("zbd-bench bind 0000:00:10.0"), "{text}");
    }

    #[test]
    fn only_what_can_be_opened_is_said_to_open() {
        let bound = |change: fn(&mut FunctionRecord)| {
            let mut function = record();
            function.zoned = None;
            change(&mut function);
            text(&[(function, true)])
        };
        let opens = "opens as pci:0000:00:10.0";
        let text = bound(|_| ());
        assert!(text.contains(opens) && text.contains("unknown"), "{text}");
        assert!(!bound(|function| function.hindrances = hindered()).contains(opens));
        let unconfined = bound(|function| {
            function.unconfined = true;
            function.iommu = None;
            function.hindrances = hindered();
        });
        assert!(unconfined.contains(opens) && unconfined.contains("no-iommu"));
    }
}

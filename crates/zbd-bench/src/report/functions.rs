//! The virtio-blk functions of a machine.

use serde::Serialize;
use zbd_core::sysfs::FunctionInfo;

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
    disks: Vec<DiskRecord>,
    /// The other functions that must be bound to vfio-pci, too.
    obstacles: Vec<String>,
}

#[derive(Serialize)]
struct DiskRecord {
    name: String,
    zoned: Option<String>,
    in_use: Option<String>,
}

impl From<&FunctionInfo> for FunctionRecord {
    fn from(function: &FunctionInfo) -> Self {
        let obstacles = function.group.iter().flat_map(|group| group.obstacles());
        Self {
            address: function.address.to_string(),
            device_id: function.device_id,
            transitional: function.is_transitional(),
            driver: function.driver.clone(),
            group: function.group.as_ref().map(|group| group.id),
            disks: function
                .disks
                .iter()
                .map(|disk| DiskRecord {
                    name: disk.name.clone(),
                    zoned: disk.zoned.clone(),
                    in_use: disk.in_use.clone(),
                })
                .collect(),
            obstacles: obstacles.map(|other| other.address.to_string()).collect(),
        }
    }
}

/// Prints the functions.
pub(crate) fn functions(functions: &[FunctionInfo], format: PlainFormat) -> Result<(), Failure> {
    let functions: Vec<_> = functions.iter().map(FunctionRecord::from).collect();
    match format {
        PlainFormat::Json => print_json(&Functions {
            schema: SCHEMA,
            functions,
        }),
        PlainFormat::Text if functions.is_empty() => print(
            "This machine has no virtio-blk functions. The device emu: is always there: zbd-bench run\n",
        ),
        PlainFormat::Text => print(&text(&functions)),
    }
}

fn text(functions: &[FunctionRecord]) -> String {
    let heads = ["address", "driver", "group", "disk", "zoned", "remarks"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    for function in functions {
        let disk = function.disks.first();
        rows.push(vec![
            function.address.clone(),
            or_dash(function.driver.clone()),
            or_dash(function.group.map(|id| id.to_string())),
            or_dash(disk.map(|disk| disk.name.clone())),
            or_dash(disk.and_then(|disk| disk.zoned.clone())),
            remarks(function),
        ]);
    }
    table(6, rows)
}

fn remarks(function: &FunctionRecord) -> String {
    let mut remarks = Vec::new();
    if function.driver.as_deref() == Some("vfio-pci") {
        remarks.push(format!("opens as pci:{}", function.address));
    }
    remarks.extend(function.disks.iter().filter_map(|disk| disk.in_use.clone()));
    if function.group.is_none() {
        remarks.push("no IOMMU".to_owned());
    }
    if !function.obstacles.is_empty() {
        remarks.push(format!(
            "shares its group with {}",
            function.obstacles.join(", ")
        ));
    }
    remarks.join("; ")
}

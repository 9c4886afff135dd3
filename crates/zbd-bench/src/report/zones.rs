//! Zones as text, JSON or CSV.

use std::fmt::Write;

use serde::Serialize;
use zbd_core::Zone;

use super::{SCHEMA, print, print_json, table};
use crate::{cli::ZonesFormat, failure::Failure};

#[derive(Serialize)]
struct Zones<'a> {
    schema: &'static str,
    device: &'a str,
    zones: Vec<ZoneRecord>,
}

/// A zone, in sectors of 512 bytes.
#[derive(Serialize)]
struct ZoneRecord {
    zone: u32,
    start_sector: u64,
    size_sectors: u64,
    capacity_sectors: u64,
    write_pointer_sector: Option<u64>,
    r#type: String,
    state: String,
}

impl From<&Zone> for ZoneRecord {
    fn from(zone: &Zone) -> Self {
        Self {
            zone: zone.id.0,
            start_sector: zone.start.0,
            size_sectors: zone.size.0,
            capacity_sectors: zone.capacity.0,
            write_pointer_sector: zone.write_pointer.map(|sector| sector.0),
            r#type: zone.zone_type.to_string(),
            state: zone.state.to_string(),
        }
    }
}

/// Prints zones of a device.
pub(crate) fn zones(device: &str, zones: &[Zone], format: ZonesFormat) -> Result<(), Failure> {
    let zones = zones.iter().map(ZoneRecord::from).collect();
    match format {
        ZonesFormat::Json => print_json(&Zones {
            schema: SCHEMA,
            device,
            zones,
        }),
        ZonesFormat::Csv => print(&csv(&zones)),
        ZonesFormat::Text => print(&text(&zones)),
    }
}

fn csv(zones: &[ZoneRecord]) -> String {
    let mut text =
        "zone,start_sector,size_sectors,capacity_sectors,write_pointer_sector,type,state\n"
            .to_owned();
    for z in zones {
        let pointer = z
            .write_pointer_sector
            .map_or_else(String::new, |p| p.to_string());
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{},{},{},{},{pointer},{},{}",
            z.zone, z.start_sector, z.size_sectors, z.capacity_sectors, z.r#type, z.state
        );
    }
    text
}

fn text(zones: &[ZoneRecord]) -> String {
    let heads = [
        "zone",
        "start",
        "size",
        "capacity",
        "write pointer",
        "type",
        "state",
    ];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(zones.iter().map(|z| {
        vec![
            z.zone.to_string(),
            z.start_sector.to_string(),
            z.size_sectors.to_string(),
            z.capacity_sectors.to_string(),
            z.write_pointer_sector
                .map_or_else(|| "-".to_owned(), |p| p.to_string()),
            z.r#type.clone(),
            z.state.clone(),
        ]
    }));
    table(0, rows) + "  in sectors of 512 bytes\n"
}

//! What the driver must not do, and what it says instead.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::OFlags;
use zbd_core::{ErrorKind, IoQueue, Request, ZoneAction, ZoneId, ZonedDevice, sysfs};

use super::Context;
use crate::inside::beside;
use crate::inside::claim::block_on;
use crate::inside::function::Function;

pub(super) const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn device_that_bypasses_the_iommu_is_refused(context: &mut Context) -> Result<()> {
    const BUS_MASTER: u8 = 1 << 2;
    let panel = context.panel("no-iommu")?;
    let claim = context.claim("no-iommu")?;
    let before = panel.counters()?;
    for _ in 0..2 {
        let Err(error) = IoQueue::open(&claim.spec()) else {
            bail!("it was opened");
        };
        let text = error.to_string();
        ensure!(error.kind() == ErrorKind::Unsupported, "{error:?}");
        ensure!(text.contains("iommu_platform=on"), "{text}");
        // The device was told nothing that it could have taken for an address of the guest's memory.
        let command = pci_command(&claim.function)?;
        ensure!(command & BUS_MASTER == 0, "bus mastering: {command:#x}");
    }
    let after = panel.counters()?;
    ensure!(before == after, "{before:?} became {after:?}");
    let disk = claim.give_back()?;
    disk.write(0, &[1; 4096])?;
    ensure!(disk.read(0, 4096)? == [1; 4096]);
    Ok(())
}

/// The low byte of the function's command register.
fn pci_command(function: &Function) -> Result<u8> {
    let path = format!("/sys/bus/pci/devices/{}/config", function.address());
    let mut command = [0];
    File::open(&path)?.read_exact_at(&mut command, 4)?;
    Ok(command[0])
}

pub(super) fn disk_of_the_kernel_is_refused(context: &mut Context) -> Result<()> {
    let function = context.function("main")?;
    let address = function.address();
    ensure!(function.driver().as_deref() == Some("virtio-pci"));
    expect(
        IoQueue::open(&format!("pci:{address}")).map(drop),
        ErrorKind::Busy,
        &["virtio-pci", &format!("zbd-bench bind {address}")],
    )?;
    let nobody = IoQueue::open("pci:0000:00:1f.7").map(drop);
    expect(nobody, ErrorKind::NotFound, &["0000:00:1f.7"])?;
    let disk = function.bind_to_kernel()?;
    ensure!(disk.report()?.len() == 32, "Linux's disk has suffered");
    Ok(())
}

pub(super) fn disk_in_use_is_not_taken_from_the_kernel(context: &mut Context) -> Result<()> {
    let function = context.function("main")?;
    let exclusive = File::options()
        .read(true)
        .custom_flags(OFlags::EXCL.bits() as i32)
        .open(function.bind_to_kernel()?.path())?;
    let address = function.address().parse()?;
    let refused = sysfs::bind(address, None).map(drop);
    expect(refused.map_err(Into::into), ErrorKind::Busy, &["in use"])?;
    ensure!(function.driver().as_deref() == Some("virtio-pci"));
    drop(exclusive);
    sysfs::bind(address, None)?;
    ensure!(function.driver().as_deref() == Some("vfio-pci"));
    Ok(())
}

pub(super) fn second_claim_is_refused_while_the_first_lasts(context: &mut Context) -> Result<()> {
    let claim = context.claim("main")?;
    let spec = claim.spec();
    let device = ZonedDevice::open(&spec)?;
    let append = || block_on(async { Ok(device.append(ZoneId(2), device.buffer(4096)?).await?) });
    append()?;

    let holder = format!("process {}", std::process::id());
    let said = open_beside(&spec)?;
    ensure!(said.starts_with("Busy") && said.contains(&holder), "{said}");
    expect(
        IoQueue::open(&spec).map(drop),
        ErrorKind::Busy,
        &["this process"],
    )?;
    let refused = sysfs::unbind(claim.address()).map(drop);
    expect(refused.map_err(Into::into), ErrorKind::Busy, &["claimed"])?;
    ensure!(claim.function.driver().as_deref() == Some("vfio-pci"));
    append().context("after the refusals")?;

    drop(device);
    let said = open_beside(&spec)?;
    ensure!(said == "opened", "{said}");
    IoQueue::open(&spec)?;
    claim.give_back()?;
    Ok(())
}

/// Opens the device in another process, and returns what that says of it.
fn open_beside(spec: &str) -> Result<String> {
    let mut command = beside::command(beside::OPEN, &[spec.to_owned()])?;
    let child: Child = command.stdout(Stdio::piped()).spawn()?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

pub(super) fn plain_disk_takes_no_zone_requests(context: &mut Context) -> Result<()> {
    let claim = context.claim("plain")?;
    let mut queue = IoQueue::open(&claim.spec())?;
    ensure!(queue.info().zoned.is_none());
    let buffer = || queue.buffer(4096);
    for request in [
        Request::Append {
            zone: ZoneId(0),
            buffer: buffer()?,
        },
        Request::Report {
            from: zbd_core::Sector(0),
            buffer: buffer()?,
        },
        Request::Manage {
            action: ZoneAction::Finish,
            zone: ZoneId(0),
        },
        Request::ResetAll,
    ] {
        let described = format!("{request:?}");
        let Err(rejected) = queue.submit(request, 1) else {
            bail!("accepted: {described}");
        };
        ensure!(
            format!("{:?}", rejected.request) == described,
            "{rejected:?}"
        );
        let refused = Err(rejected.into());
        expect(refused, ErrorKind::Unsupported, &["not a zoned device"])?;
    }
    ensure!(queue.in_flight() == 0);
    drop(queue);
    let device = ZonedDevice::open(&claim.spec())?;
    block_on(async {
        let reported = device.report(..).await.map(drop);
        expect(reported, ErrorKind::Unsupported, &["not a zoned device"])
    })
}

fn expect(done: zbd_core::Result<()>, kind: ErrorKind, words: &[&str]) -> Result<()> {
    let Err(error) = done else {
        bail!("it was done, not refused as {kind:?}");
    };
    let text = error.to_string();
    ensure!(error.kind() == kind, "{error:?}, not {kind:?}");
    for word in words {
        ensure!(text.contains(word), "`{text}` does not say `{word}`");
    }
    Ok(())
}

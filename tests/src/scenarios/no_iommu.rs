//! Functions that no IOMMU confines.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::Value;
use vfio_virtio::{
    Error, ErrorKind, HostMemory, Iova, NoIommu, PageSize, PciFunction as _, Translation,
    VfioFunction, VfioOptions,
};

use super::Context;
use crate::inside::claim::Claim;
use crate::inside::control::Control;
use crate::inside::hugepages::Reserved;
use crate::inside::tool;

pub(super) const LIMIT: Duration = Duration::from_secs(30);

const HUGE_PAGE: usize = 2 << 20;
const PAGES: usize = 3;

fn open(claim: &Claim) -> vfio_virtio::Result<VfioFunction> {
    VfioFunction::open_with(
        claim.address(),
        VfioOptions::default().no_iommu(NoIommu::Allow),
    )
}

fn refused<T>(done: vfio_virtio::Result<T>, kind: ErrorKind, words: &[&str]) -> Result<Error> {
    let Err(error) = done else {
        bail!("it was done, not refused as {kind:?}");
    };
    ensure!(error.kind() == kind, "{error:?}, not {kind:?}");
    let text = error.to_string();
    for word in words {
        ensure!(text.contains(word), "`{text}` does not say `{word}`");
    }
    Ok(error)
}

pub(super) fn function_is_refused_without_consent(context: &mut Context) -> Result<()> {
    let address = context.function("main")?.address();
    let consent = format!("pci:{address},noiommu=allow");
    // While the kernel's driver has it, there is not even a group.
    let bdf = address.parse()?;
    refused(
        VfioFunction::open(bdf),
        ErrorKind::Unsupported,
        &["no IOMMU", &consent],
    )?;
    let claim = context.claim("main")?;
    refused(
        VfioFunction::open(bdf),
        ErrorKind::Unsupported,
        &["no IOMMU", "all memory", &consent],
    )?;

    let function = open(&claim)?;
    ensure!(function.translation() == Translation::Physical);
    let mut vendor = [0; 2];
    function.read_config(0, &mut vendor)?;
    ensure!(vendor == [0xf4, 0x1a], "{vendor:x?}");
    ensure!(function.msix_vectors() > 0);
    let bar = function.open_bar(4)?;
    ensure!(bar.len_bytes() == 16384, "{}", bar.len_bytes());
    // The second claim names the first, and nobody takes the function away.
    refused(open(&claim), ErrorKind::Busy, &["this process"])?;
    let taken = vfio_virtio::sysfs::unbind(bdf);
    refused(taken, ErrorKind::Busy, &["claimed"])?;
    drop(bar);
    drop(function);
    drop(open(&claim)?);
    claim.give_back()?;
    Ok(())
}

pub(super) fn tool_says_what_is_at_stake(context: &mut Context) -> Result<()> {
    let function = context.function("main")?;
    let address = function.address();
    let consent = format!("pci:{address},noiommu=allow");
    let listed = || -> Result<Value> {
        let list = tool::run("list --format json")?.json()?;
        let functions = list["functions"].as_array().context("no functions")?;
        let ours = functions.iter().find(|one| one["address"] == *address);
        let ours = ours.context("missing")?.clone();
        ensure!(ours["iommu"].is_null(), "{ours}");
        let [hindrance] = &ours["hindrances"].as_array().context("none")?[..] else {
            bail!("{ours}");
        };
        ensure!(hindrance["cause"] == "no IOMMU confines it", "{ours}");
        ensure!(hindrance["remedy"].to_string().contains(&consent), "{ours}");
        Ok(ours)
    };
    let kernels = listed()?;
    ensure!(kernels["unconfined"] == false && kernels["zoned"] == "host-managed");

    let bound = tool::run(&format!("bind {address}"))?;
    for word in [&consent, "all memory", "/dev/vfio/noiommu-"] {
        ensure!(bound.printed()?.contains(word), "{word}: {bound}");
    }
    let ours = listed()?;
    ensure!(
        ours["unconfined"] == true && ours["device"] == consent,
        "{ours}"
    );
    ensure!(ours["zoned"].is_null(), "{ours}");
    let text = tool::run("list")?;
    ensure!(text.printed()?.contains(&format!("opens as {consent}")));
    tool::run(&format!("info pci:{address}"))?.refused(3, &["all memory", &consent])?;
    tool::run(&format!("unbind {address}"))?.printed()?;
    ensure!(function.driver().as_deref() == Some("virtio-pci"));
    Ok(())
}

pub(super) fn pinned_memory_lies_where_the_driver_is_told(context: &mut Context) -> Result<()> {
    let claim = context.claim("main")?;
    let function = open(&claim)?;
    let memory = Arc::new(HostMemory::new(PAGES * HUGE_PAGE)?);
    refused(
        function.map_dma(Iova(1 << 32), Arc::clone(&memory)),
        ErrorKind::Unsupported,
        &["pinned"],
    )?;
    let pages = function.pin_dma(Arc::clone(&memory))?;
    ensure!(pages.len() == PAGES, "{pages:x?}");
    refused(
        function.pin_dma(Arc::clone(&memory)),
        ErrorKind::InvalidInput,
        &["already"],
    )?;

    // What is written here is there for the machine's other side.
    let here = File::options().write(true).open("/proc/self/mem")?;
    let mut control = context.control()?;
    for round in 1..=2_u64 {
        for (page, Iova(physical)) in pages.iter().enumerate() {
            for offset in [0, HUGE_PAGE - 8] {
                let word = round << 56 | (page * HUGE_PAGE + offset) as u64 | 1;
                let address = memory.as_ptr().addr() + page * HUGE_PAGE + offset;
                here.write_all_at(&word.to_le_bytes(), address as u64)?;
                let found = word_at(&mut control, physical + offset as u64)?;
                ensure!(found == word, "page {page}: {found:x}, not {word:x}");
            }
        }
        fork_while_writing(&here, memory.as_ptr().addr() as u64)?;
    }

    let first = *pages.first().context("no pages")?;
    drop(memory);
    ensure!(word_at(&mut control, first.0)? != 0, "it was freed");
    function.unmap_dma(first)?;
    refused(function.unmap_dma(first), ErrorKind::InvalidInput, &[])?;
    drop(function);
    claim.give_back()?;
    Ok(())
}

/// Forks a process off while memory is written. Were the pages shared with it, writing would move
/// them.
fn fork_while_writing(memory: &File, address: u64) -> Result<()> {
    let forking = AtomicBool::new(true);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            while forking.load(Ordering::Relaxed) {
                for page in 0..PAGES as u64 {
                    memory.write_all_at(&[0xff; 8], address + page * HUGE_PAGE as u64)?;
                }
            }
            Ok(())
        });
        let mut child = Command::new(std::env::current_exe()?);
        // Changing the user takes a fork; other children never have the memory.
        let forked = child.uid(0).args(["beside", "nothing"]).output();
        forking.store(false, Ordering::Relaxed);
        forked?;
        writer.join().map_err(|_| anyhow!("the writer panicked"))?
    })
}

/// What QEMU sees at a physical address.
fn word_at(control: &mut Control, physical: u64) -> Result<u64> {
    let printed = control.monitor(&format!("xp /1gx {physical:#x}"))?;
    let word = printed.split_whitespace().next_back().unwrap_or_default();
    let word = word.strip_prefix("0x").context(printed.clone())?;
    u64::from_str_radix(word, 16).context(printed)
}

pub(super) fn memory_of_ordinary_pages_is_not_pinned(context: &mut Context) -> Result<()> {
    let claim = context.claim("main")?;
    let function = open(&claim)?;
    let few = Reserved::only(1)?;
    let memory = Arc::new(HostMemory::new(2 * HUGE_PAGE)?);
    ensure!(memory.page_size() == PageSize::Base);
    refused(
        function.pin_dma(memory),
        ErrorKind::OutOfMemory,
        &["vm.nr_hugepages", "2 of them"],
    )?;
    drop(few);
    drop(function);
    claim.give_back()?;
    Ok(())
}

pub(super) fn tool_warns_and_does_its_work(context: &mut Context) -> Result<()> {
    const COUNT: u64 = 500;
    let claim = context.claim("main")?;
    let job = format!("--device {} --count {COUNT}", claim.spec());
    let ended = tool::run(&format!("run {job} --format json"))?;
    let address = claim.address().to_string();
    let document = ended.json_with_warning(&["no IOMMU confines", &address, "all memory"])?;
    let result = &document["results"][0];
    ensure!(
        result["ios"] == COUNT && result["errors"] == 0,
        "{document}"
    );
    claim.give_back()?;
    Ok(())
}

//! The kernel modules that the guest loads: found, decompressed, and put into the order in which
//! they can be loaded.
//!
//! A kernel package that was only unpacked has no `modules.dep`: that is written when it is
//! installed. But each module says itself what it depends on.

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

const WANTED: [&str; 8] = [
    "irqbypass",
    "vfio",
    "vfio_iommu_type1",
    "vfio_pci_core",
    "vfio_pci",
    "virtio_blk",
    "null_blk",
    "zonefs",
];

/// A module, decompressed.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) file_name: String,
    pub(crate) content: Vec<u8>,
}

/// The wanted modules and what they depend on, each after its dependencies. Modules that are built
/// into the kernel are left out.
pub(crate) fn load_order(files: &[PathBuf]) -> Result<Vec<Module>> {
    let mut found: HashMap<String, &Path> = HashMap::new();
    let mut builtin = String::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if let Some((stem, _)) = name.split_once(".ko") {
            found.insert(canonical(stem), file);
        } else if name == "modules.builtin" {
            builtin = fs::read_to_string(file)?;
        }
    }
    let is_builtin = |name: &str| {
        builtin
            .lines()
            .filter_map(|line| line.rsplit('/').next()?.strip_suffix(".ko"))
            .any(|built| canonical(built) == name)
    };
    let mut loaded: Vec<String> = Vec::new();
    let mut modules = Vec::new();
    for wanted in WANTED {
        if !is_builtin(wanted) {
            add(wanted, &found, &mut loaded, &mut modules)?;
        }
    }
    Ok(modules)
}

fn add(
    name: &str,
    found: &HashMap<String, &Path>,
    loaded: &mut Vec<String>,
    modules: &mut Vec<Module>,
) -> Result<()> {
    if loaded.iter().any(|known| known == name) {
        return Ok(());
    }
    loaded.push(name.to_owned());
    let file = found
        .get(name)
        .with_context(|| format!("the kernel has no module {name}"))?;
    let content = decompress(file).with_context(|| format!("{}", file.display()))?;
    for dependency in dependencies(&content) {
        add(&dependency, found, loaded, modules)?;
    }
    modules.push(Module {
        file_name: format!("{name}.ko"),
        content,
    });
    Ok(())
}

/// What a module's own information says it depends on.
fn dependencies(module: &[u8]) -> Vec<String> {
    let entry = module
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(b"depends="));
    let names = String::from_utf8_lossy(entry.unwrap_or_default()).into_owned();
    names
        .split(',')
        .filter(|name| !name.is_empty())
        .map(canonical)
        .collect()
}

/// Modules are named with underscores, their files often with dashes.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

fn decompress(file: &Path) -> Result<Vec<u8>> {
    let packed = fs::read(file)?;
    let mut content = Vec::new();
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => content = packed,
        Some("xz") => lzma_rs::xz_decompress(&mut packed.as_slice(), &mut content)?,
        Some("zst") => {
            let mut unpacked = ruzstd::decoding::StreamingDecoder::new(packed.as_slice())?;
            unpacked.read_to_end(&mut content)?;
        }
        _ => bail!("compressed in a way that is not known here"),
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_from_the_modules_own_information() {
        let module = b"\x7fELF\0license=GPL\0depends=vfio-pci-core,irqbypass\0name=vfio_pci\0";
        assert_eq!(dependencies(module), ["vfio_pci_core", "irqbypass"]);
        assert!(dependencies(b"license=GPL\0depends=\0").is_empty());
    }

    #[test]
    fn modules_come_after_what_they_depend_on_and_without_built_in_ones() {
        let directory = std::env::temp_dir().join(format!("zbd-modules-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let mut files = Vec::new();
        let mut write = |name: &str, content: &str| {
            fs::write(directory.join(name), content).unwrap();
            files.push(directory.join(name));
        };
        for (name, depends) in [
            ("vfio", "iommu"),
            ("iommu", ""),
            ("vfio-pci", "vfio-pci-core"),
        ] {
            write(&format!("{name}.ko"), &format!("\0depends={depends}\0"));
        }
        for name in [
            "irqbypass",
            "vfio-pci-core",
            "vfio_iommu_type1",
            "null_blk",
            "zonefs",
        ] {
            write(&format!("{name}.ko"), "\0depends=\0");
        }
        write("modules.builtin", "kernel/drivers/block/virtio_blk.ko\n");
        let names: Vec<String> = load_order(&files)
            .unwrap()
            .into_iter()
            .map(|module| module.file_name)
            .collect();
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(names[..3], ["irqbypass.ko", "iommu.ko", "vfio.ko"]);
        assert!(!names.contains(&"virtio_blk.ko".to_owned()));
    }
}

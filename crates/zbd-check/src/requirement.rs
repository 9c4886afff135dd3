//! What is required, and where that is said.

use std::fmt;

use crate::{checks, outcome::Verdict, subject::Subject};

/// How strongly something is required.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// MUST, MUST NOT or SHALL of a device.
    Must,
    /// SHOULD or SHOULD NOT of a device.
    Should,
    /// The text says what is so, without a keyword: it defines the protocol.
    Defined,
}

impl Level {
    /// Whether a device that does not do it does not conform; otherwise that is worth a warning.
    pub fn is_binding(self) -> bool {
        self != Self::Should
    }

    /// As it is written in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Must => "MUST",
            Self::Should => "SHOULD",
            Self::Defined => "DEFINED",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One requirement.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Requirement {
    /// The name that it keeps.
    pub id: &'static str,
    /// The section of VIRTIO 1.3 that says it, such as `5.2.6.2`.
    pub section: &'static str,
    /// How strongly.
    pub level: Level,
    /// What it says, shortened.
    pub text: &'static str,
    pub(crate) check: fn(&mut Subject) -> Verdict,
}

impl fmt::Debug for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requirement")
            .field("id", &self.id)
            .field("section", &self.section)
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

impl Requirement {
    pub(crate) const fn new(
        id: &'static str,
        section: &'static str,
        level: Level,
        text: &'static str,
        check: fn(&mut Subject) -> Verdict,
    ) -> Self {
        Self {
            id,
            section,
            level,
            text,
            check,
        }
    }

    /// The clause as it is cited.
    pub fn clause(&self) -> String {
        format!("VIRTIO 1.3, {}", self.section)
    }
}

/// All requirements, in the order of the sections that say them.
pub fn requirements() -> Vec<&'static Requirement> {
    let mut all: Vec<_> = checks::ALL.iter().flat_map(|group| group.iter()).collect();
    // Stable: inside a section they stay in the order in which they are written down.
    all.sort_by_key(|requirement| order(requirement.section));
    all
}

fn order(section: &str) -> Vec<u32> {
    section.split('.').flat_map(str::parse).collect()
}

/// What a section is called.
pub fn section_title(section: &str) -> &'static str {
    match section {
        "2.2.2" => "Device Requirements: Feature Bits",
        "2.5.2" => "Device Requirements: Device Configuration Space",
        "2.7.4.1" => "Device Requirements: Message Framing",
        "2.7.8.2" => "Device Requirements: The Virtqueue Used Ring",
        "5.2.2" => "Block Device: Virtqueues",
        "5.2.4" => "Block Device: Device configuration layout",
        "5.2.5" => "Block Device: Device Initialization",
        "5.2.5.2" => "Device Requirements: Device Initialization",
        "5.2.6" => "Block Device: Device Operation",
        "5.2.6.2" => "Device Requirements: Device Operation",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_unique_and_every_section_has_a_title() {
        let mut ids = HashSet::new();
        for requirement in requirements() {
            let id = requirement.id;
            assert!(ids.insert(id), "{id} is there twice");
            assert!(
                id.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
                "{id}"
            );
            assert!(!section_title(requirement.section).is_empty(), "{id}");
            assert!(
                requirement.text.ends_with('.'),
                "{id}: {}",
                requirement.text
            );
        }
        assert!(ids.len() > 90);
    }

    #[test]
    fn sections_come_in_their_order() {
        let sections: Vec<_> = requirements().iter().map(|r| order(r.section)).collect();
        assert!(sections.is_sorted());
    }
}

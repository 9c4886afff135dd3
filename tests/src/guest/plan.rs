//! What the guest is to do: a file in its initramfs.

use serde::{Deserialize, Serialize};

/// Where the plan lies in the guest.
pub const PATH: &str = "/etc/plan.json";
/// Where the scenarios' modules lie in the guest, and the list of them.
pub const MODULES: &str = "/lib/modules";

/// The plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The machine that this is.
    pub machine: String,
    /// The scenarios to run, in this order.
    pub scenarios: Vec<String>,
}

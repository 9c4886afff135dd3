//! What came of a check.

use crate::Exchange;

/// What came of looking whether a requirement is met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is.
    Pass,
    /// It is not.
    Fail(Evidence),
    /// It does not concern this device: why.
    NotApplicable(String),
    /// This device gives no occasion to see it: why, and what was tried.
    Undecidable(String, Vec<Exchange>),
}

impl Outcome {
    /// As it is written in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail(_) => "fail",
            Self::NotApplicable(_) => "not-applicable",
            Self::Undecidable(..) => "undecidable",
        }
    }
}

/// What a device did, and what it should have done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// What is required in this case.
    pub required: String,
    /// What was found.
    pub found: String,
    /// The requests that led there, oldest first, the last of them the one that shows it. Of many,
    /// the last few.
    pub exchanges: Vec<Exchange>,
}

/// Why a check ends before its end.
#[derive(Debug)]
pub(crate) enum Finding {
    /// The requests that led there are added by the suite.
    Fail {
        required: String,
        found: String,
    },
    NotApplicable(String),
    Undecidable(String),
}

/// How a check, or a step of one, ended.
pub(crate) type Verdict<T = ()> = Result<T, Finding>;

/// Fails unless `holds`.
pub(crate) fn require(holds: bool, required: &str, found: impl FnOnce() -> String) -> Verdict {
    if holds {
        return Ok(());
    }
    Err(Finding::Fail {
        required: required.to_owned(),
        found: found(),
    })
}

/// Ends a check that does not concern the device.
pub(crate) fn not_applicable<T>(why: impl Into<String>) -> Verdict<T> {
    Err(Finding::NotApplicable(why.into()))
}

/// Ends a check for which the device gives no occasion.
pub(crate) fn undecidable<T>(why: impl Into<String>) -> Verdict<T> {
    Err(Finding::Undecidable(why.into()))
}

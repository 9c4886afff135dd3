//! A request and its answer, as evidence.

use std::fmt;

use crate::wire::{request_name, status_name};

/// A request that was sent, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exchange {
    /// The type in the request's header.
    pub kind: u32,
    /// The sector in the request's header.
    pub sector: u64,
    /// The lengths of the segments that the device reads, the header included.
    pub readable: Vec<u32>,
    /// The lengths of the segments that the device writes, the answer included.
    pub writable: Vec<u32>,
    /// What came back, or what happened instead.
    pub answer: Result<Answered, String>,
}

/// What a device answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answered {
    /// The last byte that it may write.
    pub status: u8,
    /// Whether it wrote that byte at all.
    pub is_status_written: bool,
    /// What lies where the answer to this kind of request does: the status, and before it the
    /// sector of an append.
    pub in_header: Vec<u8>,
    /// How many bytes it says it wrote.
    pub used_len: u32,
}

impl Exchange {
    /// What the request's type is called.
    pub fn kind_name(&self) -> &'static str {
        request_name(self.kind)
    }
}

impl Answered {
    /// What the status is called.
    pub fn status_name(&self) -> &'static str {
        match self.is_status_written {
            true => status_name(self.status),
            false => "not written",
        }
    }
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}), sector {}, reads {}, writes {}: ",
            self.kind_name(),
            self.kind,
            self.sector,
            lengths(&self.readable),
            lengths(&self.writable)
        )?;
        match &self.answer {
            Err(what) => f.write_str(what),
            Ok(answer) => write!(
                f,
                "status {} ({}), in-header [{}], used length {}",
                answer.status,
                answer.status_name(),
                answer
                    .in_header
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect::<Vec<_>>()
                    .join(" "),
                answer.used_len
            ),
        }
    }
}

/// The lengths of segments, equal neighbours counted.
fn lengths(segments: &[u32]) -> String {
    let runs: Vec<_> = segments
        .chunk_by(|a, b| a == b)
        .map(|run| match run.len() {
            1 => run[0].to_string(),
            count => format!("{count}x{}", run[0]),
        })
        .collect();
    match runs.is_empty() {
        true => "nothing".to_owned(),
        false => format!("{} B", runs.join("+")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_is_told_in_one_line() {
        let exchange = Exchange {
            kind: 15,
            sector: 4096,
            readable: vec![16, 4096, 4096],
            writable: vec![9],
            answer: Ok(Answered {
                status: 3,
                is_status_written: true,
                in_header: vec![0, 1, 3],
                used_len: 9,
            }),
        };
        assert_eq!(
            exchange.to_string(),
            "ZONE_APPEND (15), sector 4096, reads 16+2x4096 B, writes 9 B: status 3 \
             (ZONE_INVALID_CMD), in-header [00 01 03], used length 9"
        );
    }
}

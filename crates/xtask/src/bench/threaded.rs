//! What the software device can do on a thread of its own.

use anyhow::Result;

use super::budgets::{Budget, Budgets};
use super::program::{Program, number};
use super::statistics::Samples;

const DEPTH: u32 = 128;
const ROUNDS: u32 = 7;

pub(crate) fn run(program: &Program, budgets: &mut Budgets) -> Result<()> {
    println!(
        "\n4 KiB appends through IoQueue to the software device on its own thread, depth {DEPTH}: \
         millions a second,\nmedian (least-greatest) of {ROUNDS}; copies: the same blocks, copied \
         by one thread in alternation"
    );
    for store in ["null", "mem"] {
        let (mut appends, mut copies, mut ratios) =
            (Samples::default(), Samples::default(), Samples::default());
        let mut doorbells = Samples::default();
        for line in program
            .print(&format!("threaded {store} {DEPTH} {ROUNDS}"))?
            .lines()
        {
            let (done, copied) = (number(line, "appends")?, number(line, "copies")?);
            appends.add(done / 1e6);
            copies.add(copied / 1e6);
            ratios.add(done / copied);
            doorbells.add(number(line, "doorbells")?);
        }
        print!("  {store:4} appends {appends:.2}  doorbells per request {doorbells:.4}");
        if store == "mem" {
            println!("  copies {copies:.2}  ratio {ratios:.2}");
            let case = format!("median (least-greatest) of {ROUNDS}: {ratios:.2}");
            budgets.note(Budget::EmulatedMemory, ratios.median(), case);
        } else {
            println!();
            let case = format!("median (least-greatest) of {ROUNDS}: {appends:.2}");
            budgets.note(Budget::EmulatedNull, appends.median(), case);
        }
    }
    Ok(())
}

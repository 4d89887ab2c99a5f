//! Models come and go, and every second one is not fit to be served: does memory stay where it is?

use std::error::Error;
use std::fmt;
use std::fs;

use volley_examples::{Caller, Repository, Resident, SPOILINGS, ServerProcess, Spread};
use volley_validate::usage::ProcessUsage;

use super::SERVER_CORE;

pub(crate) struct Cycles {
    count: usize,
    /// After each cycle.
    resident: Resident,
    /// Milliseconds of a good load.
    loads: Spread,
}

/// Goes through `count` cycles: in turn a load that succeeds with an unload, and a load that must fail.
pub(crate) fn run(count: usize) -> Result<Cycles, Box<dyn Error>> {
    let repository = Repository::new()?;
    let path = repository.root().to_str().ok_or("the temporary folder's path is not UTF-8")?;
    let server = ServerProcess::start(Some(SERVER_CORE), &[("VOLLEY_MODEL_REPOSITORY", path)])?;
    let mut caller = Caller::connect(server.http)?;
    let mut change = |what: &str| caller.post(&format!("/v2/repository/models/cnn_lstm/{what}"), "", b"");
    let mut cycles = Cycles { count, resident: Resident::default(), loads: Spread::default() };
    for cycle in 0..count {
        if cycle % 100 == 0 {
            eprintln!("loads and unloads: {cycle} of {count}");
        }
        if cycle % 2 == 0 {
            let started = std::time::Instant::now();
            for what in ["load", "unload"] {
                let answer = change(what)?;
                if answer.status != 200 {
                    return Err(format!("the {what} of cycle {cycle} was refused: {}", answer.text()).into());
                }
                if what == "load" {
                    cycles.loads.push(started.elapsed().as_secs_f64() * 1e3);
                }
            }
        } else {
            let (name, spoil) = SPOILINGS[cycle / 2 % SPOILINGS.len()];
            let folder = repository.add_version(2)?;
            spoil(&folder)?;
            let answer = change("load")?;
            fs::remove_dir_all(folder)?;
            if answer.status == 200 {
                return Err(format!("a version spoilt by {name} was loaded").into());
            }
        }
        cycles.resident.push(ProcessUsage::of(server.pid())?.resident_bytes);
    }
    Ok(cycles)
}

impl Cycles {
    /// By how much of itself the resident memory grew over the last half of the cycles.
    pub(crate) fn growth(&self) -> f64 {
        self.resident.growth()
    }
}

impl fmt::Display for Cycles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "loads and unloads, {} cycles, half of them loads that fail", self.count)?;
        writeln!(f, "  a good load               {:.0} ms", self.loads)?;
        writeln!(f, "  resident                  {}, after the first and after each tenth", self.resident)?;
        writeln!(f, "  growth                    {:.4} over the last half", self.growth())
    }
}

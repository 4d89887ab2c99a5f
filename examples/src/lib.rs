//! What the benchmarks in `examples/` share: a server process of their own, pinned to a core, and figures with their spread.

mod caller;
mod process;
mod spread;

pub use caller::{Answer, Caller};
pub use process::{ServerProcess, pin_this_process, programs, raw_samples_per_second};
pub use spread::Spread;

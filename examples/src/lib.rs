//! What the benchmarks in `examples/` share: a server process of their own, pinned to a core, and figures with their spread.

mod arguments;
mod caller;
mod connection;
mod found;
pub mod message;
mod process;
mod raw;
mod repository;
mod resident;
mod spread;
mod traffic;

pub use arguments::Arguments;
pub use caller::{Answer, Caller};
pub use connection::{Broken, Connection, Reply};
pub use found::{Found, milliseconds};
pub use process::{ServerProcess, pin_this_process, programs};
pub use raw::Raw;
pub use repository::{Repository, SPOILINGS, Spoil};
pub use resident::Resident;
pub use spread::{Spread, rounded};
pub use traffic::{Traffic, stay_awake};

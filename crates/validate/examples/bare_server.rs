//! A server that reads a request and answers at once, without a model: the most any server could do here.
//!
//! Saturating it shows what the load generator itself can do on this machine, and so up to which rate its
//! figures are about the server. Pin the two to cores of their own:
//!
//! ```text
//! taskset -c 0 cargo run --release -p volley-validate --example bare_server -- 8000 60 &
//! taskset -c 1 cargo run --release -p volley-validate -- saturate --connections 32
//! ```
//!
//! Arguments: port (8000) and seconds to live (60).

use std::io::Write;
use std::time::Duration;

#[path = "../tests/mock/mod.rs"]
mod mock;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().map_or(Ok(8000), |port| port.parse())?;
    let seconds = arguments.next().map_or(Ok(60), |seconds| seconds.parse())?;
    let server = mock::Mock::start_on(port, mock::Behaviour::Answer);
    writeln!(std::io::stdout(), "process {} serves {} for {seconds} s", std::process::id(), server.url())?;
    std::thread::sleep(Duration::from_secs(seconds));
    Ok(())
}

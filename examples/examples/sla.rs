//! Does the server keep its promise at 200 requests a second? Starts one, and asks the validator.
//!
//! ```sh
//! just bench sla                      # a minute
//! just bench sla --rate 500 --seconds 20
//! ```

use std::error::Error;
use std::io::{Write as _, stdout};
use std::num::NonZeroUsize;
use std::time::Duration;

use serde_json::{Map, Value};
use volley_examples::{Arguments, ServerProcess};
use volley_validate::load::{Arrivals, OpenLoop, Rate};
use volley_validate::profile::Profile;
use volley_validate::protocol::RequestOptions;
use volley_validate::runs;
use volley_validate::subject::Subject;
use volley_validate::target::Target;

/// The figures of the last line.
const KEYS: [&str; 6] = ["p50_ms", "p95_ms", "p99_ms", "max_ms", "error_rate", "validation_passed"];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = Arguments::of_this_process();
    let rate = arguments.take("--rate", 200.0, "requests a second");
    let seconds = arguments.take("--seconds", 60.0, "how long they are measured");
    arguments.finish()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let server = ServerProcess::start(None, &[])?;
    let report = runtime.block_on(async {
        let target = Target::new(&format!("http://{}", server.http), "cnn_lstm")?;
        let subject = Subject::reach(target, &RequestOptions::default()).await?.with_process(server.pid())?;
        let load = OpenLoop {
            arrivals: Arrivals::Poisson { rate: Rate::new(rate)?, seed: 1 },
            warmup: Duration::from_secs(2),
            duration: Duration::from_secs_f64(seconds),
            max_connections: NonZeroUsize::new(256).ok_or("not zero")?,
        };
        Ok::<_, Box<dyn Error>>(runs::sla(&subject, load, &Profile::default(), |_| {}).await?)
    })?;
    let mut all = report.json();
    let figures: Map<String, Value> = KEYS.iter().map(|&key| (key.to_owned(), all[key].take())).collect();
    writeln!(stdout(), "{report}\n{}", Value::Object(figures))?;
    Ok(())
}

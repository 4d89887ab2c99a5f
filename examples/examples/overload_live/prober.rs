//! A caller that asks one request after the other, to see when a server is itself again.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::json;
use volley_examples::{Caller, message};

/// An answer that takes longer had to queue: under overload the queue is about as long as the deadline lets it be, without
/// it an answer takes a millisecond or two.
const SLOW: Duration = Duration::from_millis(20);
const PAUSE: Duration = Duration::from_millis(2);

/// Asks until it is stopped.
pub(crate) struct Prober {
    over: Arc<AtomicBool>,
    /// When the last request ended that failed or was slow.
    thread: JoinHandle<Result<Option<Instant>, String>>,
}

impl Prober {
    /// Asks the bundled model at `address`, with this deadline.
    pub(crate) fn start(address: SocketAddr, deadline: Duration) -> Result<Self, Box<dyn Error>> {
        let mut caller = Caller::connect(address)?;
        let parameters = json!({ "cache": false, "timeout": deadline.as_micros() as u64 });
        let request = message::inference("cnn_lstm", "input", &[1, 50, 60], &message::window(0), &parameters);
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let mut last_bad = None;
            while !stop.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let answer = caller.exchange(&request).map_err(|error| format!("the prober: {error}"))?;
                if answer.status != 200 || asked.elapsed() > SLOW {
                    last_bad = Some(Instant::now());
                }
                thread::sleep(PAUSE);
            }
            Ok(last_bad)
        });
        Ok(Self { over, thread })
    }

    /// Watches for `longer`. How long after `moment` the last request ended that failed or was slow.
    pub(crate) fn stop_after(self, moment: Instant, longer: Duration) -> Result<Duration, Box<dyn Error>> {
        thread::sleep(longer);
        self.over.store(true, Ordering::Relaxed);
        let last_bad = self.thread.join().map_err(|_| "the prober panicked")??;
        Ok(last_bad.map_or(Duration::ZERO, |last| last.saturating_duration_since(moment)))
    }
}

//! When a request came, by a thread that may be behind with what has come.
//!
//! A thread that has more to read than it gets the time for reads each request late: it lay in the system's buffers and
//! then in the line of connections to be served, and its answer will wait in that line once more. A deadline that is
//! counted from the reading would be kept by the server's clock and missed by the caller's, request after request, while
//! the workers take the processor from the very thread that should refuse. So the wait in that line is measured, by a task
//! that goes through it every now and then.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::yielding::lags;

/// How often the line is measured; a shorter wait in it is none.
const LOOK: Duration = Duration::from_millis(1);

thread_local! {
    static LINE: Line = const { Line { entered: Cell::new(None), left: Cell::new(None) } };
}

/// When a request came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received {
    /// As far as that can be known: deadlines and latency count from here.
    pub at: Instant,
    /// How long what is ready waits for its turn on this thread, as this request did, and as its answer will.
    pub lag: Duration,
}

impl Received {
    /// For a request whose head was read just now, by a task of the calling thread's runtime.
    pub(crate) fn now() -> Self {
        let now = Instant::now();
        let lag = LINE.with(|line| line.lag(now));
        Self { at: now.checked_sub(lag).unwrap_or(now), lag }
    }

    /// By when an answer must be ready to be heard in time by a caller who waits so long.
    pub(crate) fn deadline(&self, patience: Duration) -> Option<Instant> {
        let deadline = self.at.checked_add(patience)?;
        Some(deadline.checked_sub(self.lag).unwrap_or(deadline))
    }
}

/// The line of tasks that are ready on this thread, first come, first served.
struct Line {
    /// When the last task that measures it entered it.
    entered: Cell<Option<Instant>>,
    /// When that task had its turn, and how long it had waited.
    left: Cell<Option<(Instant, Duration)>>,
}

impl Line {
    fn lag(&self, now: Instant) -> Duration {
        let (entered, left) = (self.entered.get(), self.left.get());
        let in_line = entered.filter(|&entered| left.is_none_or(|(at, _)| at < entered));
        // What was measured says nothing about a line that has been empty since: then it was not entered again at once.
        let measured = left.filter(|&(at, _)| in_line.unwrap_or(now) - at <= LOOK).map(|(_, waited)| waited);
        let waiting = in_line.map(|entered| now - entered);
        if in_line.is_none() && entered.is_none_or(|entered| now - entered >= LOOK) {
            self.entered.set(Some(now));
            tokio::spawn(async move {
                let turn = Instant::now();
                LINE.with(|line| line.left.set(Some((turn, turn - now))));
            });
        }
        let lag = measured.max(waiting).filter(|&lag| lag >= LOOK).unwrap_or(Duration::ZERO);
        lags(lag, now);
        lag
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;

    const WORK: Duration = Duration::from_millis(10);

    #[tokio::test]
    async fn a_request_counts_from_when_it_could_first_have_been_read() {
        assert_eq!(Received::now().lag, Duration::ZERO);
        tokio::task::yield_now().await;
        sleep(LOOK);
        // Five connections are in line, and the measuring task behind them.
        let line: Vec<_> = (0..5).map(|_| tokio::spawn(async { sleep(WORK) })).collect();
        Received::now();
        for served in line {
            served.await.expect("it sleeps");
        }
        tokio::task::yield_now().await;
        let received = Received::now();
        assert!(received.lag >= 5 * WORK, "{received:?}");
        assert!(received.at.elapsed() >= 5 * WORK, "{received:?}");
        // Its answer will wait as long as it did.
        let deadline = received.deadline(12 * WORK).expect("it is soon");
        assert_eq!(deadline + received.lag, received.at + 12 * WORK);
    }

    #[tokio::test]
    async fn a_line_counts_while_it_is_measured_and_no_more_once_it_is_empty() {
        Received::now();
        // The task that measures has no turn yet.
        sleep(WORK);
        let behind = Received::now();
        assert!(behind.lag >= WORK, "{behind:?}");
        tokio::task::yield_now().await;
        sleep(2 * LOOK);
        // Nobody has come since. The next is not behind, nor is another before the line is measured anew.
        assert_eq!(Received::now().lag, Duration::ZERO);
        assert_eq!(LINE.with(|line| line.lag(Instant::now() + LOOK / 2)), Duration::ZERO);
    }
}

//! One line a second while a run lasts.

use std::fmt;

use super::milliseconds;
use crate::load::Progress;

/// Turns cumulative progress into lines that show what changed since the line before.
#[derive(Debug, Default)]
pub struct ProgressLine {
    before: Option<Progress>,
}

impl ProgressLine {
    /// The next line, without a line end.
    #[must_use]
    pub fn next(&mut self, now: &Progress) -> String {
        let before = self.before.replace(*now);
        let answered_before = before.map_or(0, |before| before.answered);
        let elapsed_before = before.map_or(0.0, |before| before.elapsed.as_secs_f64());
        let seconds = now.elapsed.as_secs_f64() - elapsed_before;
        let rate = if seconds > 0.0 { (now.answered - answered_before) as f64 / seconds } else { 0.0 };
        format!(
            "{:>4.0} of {:.0} s: {rate:.0} requests/s answered, {} due, {} failed, {}",
            now.elapsed.as_secs_f64(),
            now.planned.as_secs_f64(),
            now.due,
            now.failed,
            Latencies(now),
        )
    }
}

struct Latencies<'a>(&'a Progress);

impl fmt::Display for Latencies<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.p50, self.0.p99) {
            (Some(p50), Some(p99)) => write!(f, "p50 {:.2} ms, p99 {:.2} ms", milliseconds(p50), milliseconds(p99)),
            _ => f.write_str("nothing measured yet"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_line_shows_the_rate_since_the_line_before() {
        let mut line = ProgressLine::default();
        let mut progress = Progress {
            elapsed: Duration::from_secs(1),
            planned: Duration::from_secs(62),
            due: 201,
            answered: 200,
            failed: 0,
            p50: None,
            p99: None,
        };
        assert_eq!(
            line.next(&progress),
            "   1 of 62 s: 200 requests/s answered, 201 due, 0 failed, nothing measured yet"
        );
        progress.elapsed = Duration::from_secs(3);
        progress.answered = 500;
        progress.failed = 3;
        progress.p50 = Some(Duration::from_micros(1500));
        progress.p99 = Some(Duration::from_millis(4));
        assert_eq!(
            line.next(&progress),
            "   3 of 62 s: 150 requests/s answered, 201 due, 3 failed, p50 1.50 ms, p99 4.00 ms"
        );
    }
}

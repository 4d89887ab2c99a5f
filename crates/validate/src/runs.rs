//! Whole runs: a load, the checks that make sense under it, and a report.

use crate::checks::{errors, latency, throughput};
use crate::load::{self, ClosedLoop, Load, LoadError, OpenLoop, Progress};
use crate::profile::Profile;
use crate::report::Report;
use crate::subject::Subject;
use crate::verdict::Verdict;

/// Whether the server keeps the profile under independent users: latency, errors and throughput.
///
/// # Errors
///
/// When the load cannot be generated. A server that fails gives a report that says so.
pub async fn sla(
    subject: &Subject,
    open: OpenLoop,
    profile: &Profile,
    on_progress: impl FnMut(&Progress),
) -> Result<Report, LoadError> {
    let load = Load::Open(open);
    let measured = load::run(subject, &load, on_progress).await?;
    let verdict = Verdict::over([
        latency::judge(&measured, profile),
        errors::judge(&measured, profile),
        throughput::judge(&measured, &load, profile),
    ]);
    Ok(Report::new(subject, load, measured, verdict))
}

/// How much the server can do: errors and throughput. Latencies are reported but not judged, because
/// with every connection busy they say more about the number of connections than about the server.
///
/// # Errors
///
/// When the load cannot be generated. A server that fails gives a report that says so.
pub async fn saturate(
    subject: &Subject,
    closed: ClosedLoop,
    profile: &Profile,
    on_progress: impl FnMut(&Progress),
) -> Result<Report, LoadError> {
    let load = Load::Closed(closed);
    let measured = load::run(subject, &load, on_progress).await?;
    let verdict = Verdict::over([errors::judge(&measured, profile), throughput::judge(&measured, &load, profile)]);
    Ok(Report::new(subject, load, measured, verdict))
}

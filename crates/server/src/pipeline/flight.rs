//! A computation that many may wait for, and that its first caller may leave.

use tokio::runtime::Handle;
use volley_cache::{Key, Lead};
use volley_scheduler::Ticket;

use crate::engine::{Computed, JobResult};
use crate::results::{Results, Unkept};

/// The lead of a flight, and what is under way for it.
///
/// Dropped before it lands, because its caller hung up or waits no longer: what is queued is withdrawn, and the next who
/// waits leads. What is being computed is not computed again for them, but landed as soon as it is there.
pub(super) struct Flight<'a> {
    results: &'a Results,
    key: Key,
    /// How many must have had a part in an answer that is kept.
    members: usize,
    /// There until the flight has landed.
    pub lead: Option<Lead<Unkept>>,
    /// The request, while it is queued or computed.
    pub ticket: Option<Ticket<JobResult>>,
}

impl<'a> Flight<'a> {
    /// Nothing is under way yet.
    pub(super) fn new(results: &'a Results, key: Key, members: usize, lead: Lead<Unkept>) -> Self {
        Self { results, key, members, lead: Some(lead), ticket: None }
    }

    /// Answers all who wait, and keeps the answer for those who come.
    pub(super) fn land(&mut self, computed: &Computed) {
        if let Some(lead) = self.lead.take() {
            land(self.results, self.key, self.members, lead, computed);
        }
    }
}

fn land(results: &Results, key: Key, members: usize, lead: Lead<Unkept>, computed: &Computed) {
    // An answer that a member of the ensemble had no part in is for those who wait now.
    if computed.members < members {
        return lead.fail_all(Unkept::Partial(computed.clone()));
    }
    let outputs = computed.outputs.to_joined();
    results.share(key, lead.born(), outputs.clone());
    lead.complete(outputs);
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let (Some(lead), Some(ticket)) = (self.lead.take(), self.ticket.take()) else { return };
        let Err(running) = ticket.withdraw() else { return };
        let Ok(runtime) = Handle::try_current() else { return };
        let (results, key, members) = (self.results.clone(), self.key, self.members);
        runtime.spawn(async move {
            if let Ok(Ok(computed)) = running.await.result {
                land(&results, key, members, lead, &computed);
            }
        });
    }
}

//! Whose turn it is: fair shares for tenants, half of the device for what has not been raised.

use crate::TenantId;

/// Into how many parts a full batch is cut: what a tenant gets before it is the next one's turn.
const PARTS: usize = 8;

/// Who was served how much.
///
/// Tenants take turns in rounds, each getting an eighth of a full batch a round, over all lanes and groups (deficit
/// round robin, after Shreedhar and Varghese). Inside a round the lanes decide, then the deadlines. A tenant that had
/// nothing waiting saves up no turns, and owes at most the full batch that it was last given beyond its turn.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// By tenant: 0 stands for those without.
    tenants: Vec<Turn>,
    /// The latest round from which a batch's first request was served; or later, so that nobody is more than a full
    /// batch ahead of it.
    current: u64,
    /// Rows of requests that were not raised, less rows of those that were; within one largest batch of zero.
    balance: i64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Turn {
    round: u64,
    served: usize,
}

/// What a tenant is given before it is the next one's turn, where a batch is full at `full_rows`.
pub(crate) const fn turn_rows(full_rows: usize) -> usize {
    full_rows.div_ceil(PARTS)
}

/// A tenant's place in [`Turns`].
pub(crate) fn place(tenant: Option<TenantId>) -> usize {
    tenant.map_or(0, |tenant| tenant.index() + 1)
}

impl Turns {
    /// The round in which a tenant will next be served.
    pub(crate) fn round(&self, tenant: usize) -> u64 {
        self.tenants.get(tenant).map_or(0, |turn| turn.round).max(self.current)
    }

    /// Takes note that a tenant was given `rows`; a batch of the group is full at `full_rows`. `is_first` says that
    /// they are the first of their batch: nobody whose turn was earlier waited.
    pub(crate) fn serve(&mut self, tenant: usize, rows: usize, full_rows: usize, is_first: bool) {
        let round = self.round(tenant);
        if is_first {
            self.current = round;
        }
        if self.tenants.len() <= tenant {
            self.tenants.resize(tenant + 1, Turn::default());
        }
        let turn = &mut self.tenants[tenant];
        if turn.round < round {
            *turn = Turn { round, served: 0 };
        }
        turn.served += rows;
        let share = turn_rows(full_rows);
        turn.round += (turn.served / share) as u64;
        turn.served %= share;
        self.current = self.current.max(turn.round.saturating_sub(PARTS as u64));
    }

    /// Whether the raised go first in the next batch.
    pub(crate) const fn raised_first(&self) -> bool {
        self.balance >= 0
    }

    /// Takes note of a batch.
    pub(crate) fn settle(&mut self, native_rows: usize, raised_rows: usize, max_rows: usize) {
        let max_rows = max_rows as i64;
        self.balance = (self.balance + native_rows as i64 - raised_rows as i64).clamp(-max_rows, max_rows);
    }
}

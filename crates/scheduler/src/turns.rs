//! Whose turn it is: fair shares for tenants, half of the device for what has not been raised.

use crate::TenantId;

/// Into how many parts a full batch is cut: what a tenant gets before it is the next one's turn.
const PARTS: usize = 8;

/// Who was served how much.
///
/// Tenants take turns in rounds, each getting an eighth of a full batch a round, over all lanes and groups (deficit
/// round robin, after Shreedhar and Varghese). A tenant that had nothing waiting joins the current round: it neither
/// saves up turns nor repays. Inside a round the deadlines decide.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// By tenant: 0 stands for those without.
    tenants: Vec<Turn>,
    /// The latest round from which a lane's first request was served.
    current: u64,
    /// Rows of requests that were not raised, less rows of those that were; within one largest batch of zero.
    balance: i64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Turn {
    round: u64,
    served: usize,
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
    /// nobody whose turn was earlier waited beside it.
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
        let share = full_rows.div_ceil(PARTS);
        turn.round += (turn.served / share) as u64;
        turn.served %= share;
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

//! On whose behalf a request comes.

use std::num::NonZeroU32;

/// Names a tenant: a caller whose load must not be the others' problem. From
/// [`Scheduler::add_tenant`](crate::Scheduler::add_tenant).
///
/// It carries the tenant's quota with it, so that submitting looks nothing up. It means nothing to another scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TenantId {
    index: u32,
    quota: NonZeroU32,
}

impl TenantId {
    pub(crate) const fn new(index: u32, quota: NonZeroU32) -> Self {
        Self { index, quota }
    }

    /// The tenant's number: 0, 1, 2 ... in the order in which the tenants were added.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// How many of the tenant's requests may be queued at a time.
    #[must_use]
    pub const fn quota(self) -> usize {
        self.quota.get() as usize
    }

    pub(crate) const fn number(self) -> u32 {
        self.index
    }
}

//! Single flight: which keys are being computed, who leads each computation and who waits for it.
//!
//! Two kinds of lock, both held for a few map operations and never while anything is computed or woken: a shard's,
//! over the flights whose keys fall to it, and a flight's, over its own state; where both are held the shard's is
//! taken first. A flight is *attached* while its shard's map holds it. Joining, landing and passing on hold the shard's
//! lock, so at any time a key has at most one attached flight, and a flight one leader at most. Invalidations know
//! nothing of flights: one that began before is found too old, by whoever would join it and when it lands.

use crate::domain::Domain;
use crate::key::{BuildPassThrough, Key};
use crate::rank::Rank;
use crate::stamp::Stamp;
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// A power of two, many times the threads that look up at once, so that two of them rarely meet.
const SHARDS: usize = 64;

type Attached<E> = HashMap<Key, Arc<Flight<E>>, BuildPassThrough>;

/// All flights of a cache.
pub(crate) struct Flights<E> {
    shards: Box<[Shard<E>]>,
}

/// Aligned to two cache lines (the adjacent-line prefetcher pairs them), so that shards do not slow each other.
#[repr(align(128))]
struct Shard<E>(Mutex<Attached<E>>);

/// One computation under way.
pub(crate) struct Flight<E> {
    key: Key,
    domain: Domain,
    state: Mutex<State<E>>,
}

struct State<E> {
    leader: Leader,
    /// What was invalidated when the leader's computation began.
    born: Stamp,
    /// By order of arrival. The holder of the lead is not among them; one to whom it is offered still is.
    waiters: BTreeMap<u64, Waiter>,
    arrivals: u64,
    /// Set once, by the leader; then `waiters` is empty and stays so.
    landed: Option<Result<Bytes, E>>,
    /// The leader's task, if it waits for the flight's rank to exceed this one.
    watch: Option<(Rank, Waker)>,
}

enum Leader {
    Holds(Rank),
    /// The waiter with this number leads as soon as it is polled.
    Offered(u64),
}

struct Waiter {
    rank: Rank,
    waker: Option<Waker>,
}

/// What became of joining a key's flight.
pub(crate) enum Joined<E> {
    /// The value was there after all: its flight landed between the caller's look-up and this one.
    Found(Bytes),
    Leads(Arc<Flight<E>>),
    /// As the waiter with this number.
    Follows(Arc<Flight<E>>, u64),
}

/// What a follower's wait came to.
pub(crate) enum Turn<E> {
    Landed(Result<Bytes, E>),
    Leads,
}

impl<E: Clone> Flights<E> {
    pub(crate) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard(Mutex::default())).collect() }
    }

    /// Follows the flight of `key`, or leads one of its own, whose computation begins at `born`, if `find`, called
    /// under the shard's lock, still finds nothing. A flight whose birth is not `fresh` any more is not joined: the new
    /// one takes its place, and it detaches.
    pub(crate) fn join(
        &self,
        key: Key,
        domain: &Domain,
        rank: Rank,
        born: Stamp,
        fresh: impl FnOnce(Stamp) -> bool,
        find: impl FnOnce() -> Option<Bytes>,
    ) -> Joined<E> {
        let mut attached = self.attached(key);
        if let Some(flight) = attached.get(&key) {
            let mut state = flight.state.lock();
            if fresh(state.born) {
                let (number, watcher) = state.follow(rank);
                drop(state);
                let flight = Arc::clone(flight);
                drop(attached);
                wake(watcher);
                return Joined::Follows(flight, number);
            }
        }
        if let Some(value) = find() {
            return Joined::Found(value);
        }
        let state = Mutex::new(State::led_with(rank, born));
        let flight = Arc::new(Flight { key, domain: domain.clone(), state });
        attached.insert(key, Arc::clone(&flight));
        Joined::Leads(flight)
    }

    /// Ends `flight` for all who wait. `keep` stores the value, under the shard's lock, and is called only if the
    /// flight is still attached: in place of one that was detached another has begun.
    pub(crate) fn land(&self, flight: &Arc<Flight<E>>, outcome: Result<Bytes, E>, keep: impl FnOnce()) {
        let mut attached = self.attached(flight.key);
        if detach(&mut attached, flight) {
            keep();
        }
        drop(attached);
        let mut state = flight.state.lock();
        state.landed = Some(outcome);
        let waiters = mem::take(&mut state.waiters);
        drop(state);
        waiters.into_values().for_each(|waiter| wake(waiter.waker));
    }

    /// The leader gives up: the longest waiting follower is offered the lead; without one the flight vanishes.
    pub(crate) fn pass_on(&self, flight: &Arc<Flight<E>>) {
        let mut attached = self.attached(flight.key);
        let mut state = flight.state.lock();
        state.watch = None;
        let Some(mut first) = state.waiters.first_entry() else {
            detach(&mut attached, flight);
            return;
        };
        let waker = first.get_mut().waker.take();
        let number = *first.key();
        state.leader = Leader::Offered(number);
        drop(state);
        drop(attached);
        wake(waker);
    }

    /// A follower goes; a lead offered to it passes on.
    pub(crate) fn leave(&self, flight: &Arc<Flight<E>>, number: u64) {
        let mut state = flight.state.lock();
        state.waiters.remove(&number);
        let offered = state.landed.is_none() && matches!(state.leader, Leader::Offered(to) if to == number);
        drop(state);
        if offered {
            self.pass_on(flight);
        }
    }

    fn attached(&self, key: Key) -> MutexGuard<'_, Attached<E>> {
        #[expect(clippy::cast_possible_truncation, reason = "only the low bits choose a shard")]
        let shard = key.spread() as usize % SHARDS;
        self.shards[shard].0.lock()
    }
}

impl<E: Clone> Flight<E> {
    pub(crate) fn key(&self) -> Key {
        self.key
    }

    pub(crate) fn domain(&self) -> &Domain {
        &self.domain
    }

    pub(crate) fn born(&self) -> Stamp {
        self.state.lock().born
    }

    /// The computation begins anew, by another leader.
    pub(crate) fn begin_anew(&self, born: Stamp) {
        self.state.lock().born = born;
    }

    /// The join of the ranks of all who wait, the leader among them.
    pub(crate) fn rank(&self) -> Rank {
        self.state.lock().rank()
    }

    pub(crate) fn followers(&self) -> usize {
        self.state.lock().waiters.len()
    }

    /// Ready with the flight's rank once that exceeds `above`. One task at a time is woken: the last that polled.
    pub(crate) fn poll_raised(&self, above: Rank, context: &Context<'_>) -> Poll<Rank> {
        let mut state = self.state.lock();
        let rank = state.rank();
        if rank.exceeds(above) {
            return Poll::Ready(rank);
        }
        state.watch = Some((above, context.waker().clone()));
        Poll::Pending
    }

    /// Ready when the flight has landed, or when the lead falls to the follower `number`.
    pub(crate) fn poll_turn(&self, number: u64, context: &Context<'_>) -> Poll<Turn<E>> {
        let mut state = self.state.lock();
        if let Some(outcome) = &state.landed {
            return Poll::Ready(Turn::Landed(outcome.clone()));
        }
        if matches!(state.leader, Leader::Offered(to) if to == number)
            && let Some(waiter) = state.waiters.remove(&number)
        {
            state.leader = Leader::Holds(waiter.rank);
            return Poll::Ready(Turn::Leads);
        }
        if let Some(waiter) = state.waiters.get_mut(&number) {
            match &mut waiter.waker {
                Some(waker) => waker.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
        }
        Poll::Pending
    }
}

impl<E> State<E> {
    fn led_with(rank: Rank, born: Stamp) -> Self {
        Self { leader: Leader::Holds(rank), born, waiters: BTreeMap::new(), arrivals: 0, landed: None, watch: None }
    }

    /// The new waiter's number, and the leader's task if it wants to hear of this rank.
    fn follow(&mut self, rank: Rank) -> (u64, Option<Waker>) {
        let number = self.arrivals;
        self.arrivals += 1;
        self.waiters.insert(number, Waiter { rank, waker: None });
        let watcher = self.watch.take_if(|(above, _)| rank.exceeds(*above)).map(|(_, waker)| waker);
        (number, watcher)
    }

    fn rank(&self) -> Rank {
        let own = match self.leader {
            Leader::Holds(rank) => Some(rank),
            Leader::Offered(_) => None,
        };
        let all = own.into_iter().chain(self.waiters.values().map(|waiter| waiter.rank));
        all.reduce(Rank::join).expect("a flight lasts while someone waits for it")
    }
}

/// Whether `flight` was attached. Another flight of the same key stays.
fn detach<E>(attached: &mut Attached<E>, flight: &Arc<Flight<E>>) -> bool {
    let found = attached.get(&flight.key).is_some_and(|current| Arc::ptr_eq(current, flight));
    if found {
        attached.remove(&flight.key);
    }
    found
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

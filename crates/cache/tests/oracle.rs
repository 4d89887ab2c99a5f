//! Random operations, one at a time, against a naive account of what must happen.

#[expect(dead_code, reason = "each test file uses its part of what they share")]
mod common;

use common::{AMPLE, Bell, Error, cache, key, look_up, value};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::task::Poll;
use volley_cache::{Cache, CacheStats, Follow, Followed, Lead, Lookup, Rank, Scope};

const KEYS: u64 = 3;

#[derive(Debug, Clone, Copy)]
enum Operation {
    LookUp { key: u64, urgency: u8 },
    Complete(prop::sample::Index),
    DropLead(prop::sample::Index),
    FailAll(prop::sample::Index),
    Poll(prop::sample::Index),
    DropFollow(prop::sample::Index),
    Invalidate { key: u64 },
    Clear,
}

fn operation() -> impl Strategy<Value = Operation> {
    let one = any::<prop::sample::Index>;
    prop_oneof![
        8 => (0..KEYS, 0_u8..4).prop_map(|(key, urgency)| Operation::LookUp { key, urgency }),
        2 => one().prop_map(Operation::Complete),
        2 => one().prop_map(Operation::DropLead),
        1 => one().prop_map(Operation::FailAll),
        5 => one().prop_map(Operation::Poll),
        2 => one().prop_map(Operation::DropFollow),
        1 => (0..KEYS).prop_map(|key| Operation::Invalidate { key }),
        1 => Just(Operation::Clear),
    ]
}

/// The oracle's view of a flight. Followers are numbered over all flights.
#[derive(Default)]
struct Flight {
    key: u64,
    leader_urgency: u8,
    /// Follower to whom the lead was passed and who was not polled since.
    offered: Option<usize>,
    waiting: Vec<(usize, u8)>,
    landed: Option<Result<u64, Error>>,
    /// Its computation began before its key was last invalidated.
    stale: bool,
}

struct Following {
    number: usize,
    flight: usize,
    follow: Follow<Error>,
    bell: Arc<Bell>,
    polled: bool,
}

struct World {
    cache: Cache<Error>,
    leads: Vec<(usize, Lead<Error>)>,
    follows: Vec<Following>,
    flights: Vec<Flight>,
    attached: HashMap<u64, usize>,
    /// What is served.
    stored: HashMap<u64, u64>,
    /// Whose values take room: invalidated together, they stay until something else takes it.
    held: HashSet<u64>,
    versions: u64,
    followers: usize,
    expected: (u64, u64, u64),
}

impl World {
    fn new() -> Self {
        Self {
            cache: cache(AMPLE),
            leads: Vec::new(),
            follows: Vec::new(),
            flights: Vec::new(),
            attached: HashMap::new(),
            stored: HashMap::new(),
            held: HashSet::new(),
            versions: 0,
            followers: 0,
            expected: (0, 0, 0),
        }
    }

    fn look_up(&mut self, n: u64, urgency: u8) {
        match look_up(&self.cache, key(n), Rank { urgency, deadline: None }) {
            Lookup::Hit(found) => {
                assert_eq!(found, value(self.stored[&n]));
                self.expected.0 += 1;
            }
            Lookup::Lead(lead) => {
                let joinable = self.attached.get(&n).is_some_and(|flight| !self.flights[*flight].stale);
                assert!(!self.stored.contains_key(&n) && !joinable, "leads without need");
                self.flights.push(Flight { key: n, leader_urgency: urgency, ..Flight::default() });
                self.attached.insert(n, self.flights.len() - 1);
                self.leads.push((self.flights.len() - 1, lead));
                self.expected.1 += 1;
            }
            Lookup::Follow(follow) => {
                assert!(!self.stored.contains_key(&n), "follows though the value is there");
                let flight = self.attached[&n];
                assert!(!self.flights[flight].stale, "follows what was begun before an invalidation");
                let number = self.followers;
                self.followers += 1;
                self.flights[flight].waiting.push((number, urgency));
                self.follows.push(Following { number, flight, follow, bell: Arc::default(), polled: false });
            }
        }
    }

    fn end(&mut self, flight: usize, outcome: Result<u64, Error>) {
        let state = &mut self.flights[flight];
        state.landed = Some(outcome);
        state.waiting.clear();
        if self.attached.get(&state.key) == Some(&flight) {
            self.attached.remove(&state.key);
            if let Ok(version) = outcome
                && !state.stale
            {
                self.stored.insert(state.key, version);
                self.held.insert(state.key);
            }
        }
    }

    fn pass_on(&mut self, flight: usize) {
        let state = &mut self.flights[flight];
        state.offered = state.waiting.first().map(|(number, _)| *number);
        if state.offered.is_none() && self.attached.get(&state.key) == Some(&flight) {
            self.attached.remove(&state.key);
        }
    }

    fn poll(&mut self, at: usize) {
        let Following { number, flight, follow, bell, polled } = &mut self.follows[at];
        let (number, flight, rang) = (*number, *flight, bell.rang());
        let outcome = bell.poll(follow);
        let state = &mut self.flights[flight];
        let due = state.landed.is_some() || state.offered == Some(number);
        assert_eq!(outcome.is_ready(), due, "ready exactly when the flight landed or the lead was offered");
        assert!(rang || !*polled || !due, "a follower that waited was not woken");
        *polled = true;
        match outcome {
            Poll::Pending => return,
            Poll::Ready(Followed::Value(found)) => {
                assert_eq!(Some(Ok(found)), state.landed.map(|landed| landed.map(value)));
                self.expected.2 += 1;
            }
            Poll::Ready(Followed::Failed(error)) => assert_eq!(Some(Err(error)), state.landed),
            Poll::Ready(Followed::Lead(lead)) => {
                assert_eq!(state.offered.take(), Some(number), "leads without being offered to");
                let (_, urgency) = state.waiting.remove(0);
                state.leader_urgency = urgency;
                state.stale = false;
                self.leads.push((flight, lead));
                self.expected.1 += 1;
            }
        }
        self.follows.swap_remove(at);
    }

    fn drop_follow(&mut self, at: usize) {
        let Following { number, flight, .. } = self.follows.swap_remove(at);
        self.flights[flight].waiting.retain(|(waiting, _)| *waiting != number);
        if self.flights[flight].offered == Some(number) {
            self.pass_on(flight);
        }
    }

    fn step(&mut self, operation: Operation) {
        match operation {
            Operation::LookUp { key, urgency } => self.look_up(key, urgency),
            Operation::Complete(which) if !self.leads.is_empty() => {
                let (flight, lead) = self.leads.swap_remove(which.index(self.leads.len()));
                self.versions += 1;
                lead.complete(value(self.versions));
                self.end(flight, Ok(self.versions));
            }
            Operation::DropLead(which) if !self.leads.is_empty() => {
                let (flight, lead) = self.leads.swap_remove(which.index(self.leads.len()));
                drop(lead);
                self.pass_on(flight);
            }
            Operation::FailAll(which) if !self.leads.is_empty() => {
                let (flight, lead) = self.leads.swap_remove(which.index(self.leads.len()));
                lead.fail_all("everybody's");
                self.end(flight, Err("everybody's"));
            }
            Operation::Poll(which) if !self.follows.is_empty() => self.poll(which.index(self.follows.len())),
            Operation::DropFollow(which) if !self.follows.is_empty() => {
                self.drop_follow(which.index(self.follows.len()));
            }
            Operation::Invalidate { key: n } => {
                self.cache.invalidate(Scope::Key(key(n)));
                if let Some(flight) = self.attached.get(&n) {
                    self.flights[*flight].stale = true;
                }
                self.stored.remove(&n);
                self.held.remove(&n);
            }
            Operation::Clear => {
                self.cache.invalidate(Scope::All);
                self.attached.values().for_each(|flight| self.flights[*flight].stale = true);
                self.stored.clear();
            }
            _ => {}
        }
    }

    fn check(&self) {
        for (flight, lead) in &self.leads {
            let Flight { leader_urgency, waiting, .. } = &self.flights[*flight];
            let urgency = waiting.iter().map(|(_, urgency)| *urgency).fold(*leader_urgency, u8::max);
            assert_eq!((lead.rank().urgency, lead.followers()), (urgency, waiting.len()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_look_up_lead_and_follower_agrees_with_a_naive_account(operations in prop::collection::vec(operation(), 0..120)) {
        let mut world = World::new();
        for operation in operations {
            world.step(operation);
            world.check();
        }
        let CacheStats { hits, misses, shared, entries, .. } = world.cache.stats();
        prop_assert_eq!((hits, misses, shared), world.expected);
        prop_assert_eq!(entries, world.held.len() as u64);
    }
}

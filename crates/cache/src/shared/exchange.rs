//! Exchanges invalidations with the other replicas, through Redis.
//!
//! Redis keeps one sorted set: by scope, the number of its last invalidation. Numbers only grow, and what a value's
//! birth is compared with is the number, so the order in which replicas hear of things does not matter.
//!
//! - Four times a second, and whenever Redis publishes that there is news, a replica asks for what is newer than the
//!   greatest number it has heard of. The poll is what guarantees; publishing only makes it soon. On a cluster a
//!   published message reaches the subscribers of every node, but a subscription does not outlive its connection: a
//!   poll that finds what nothing announced subscribes anew.
//! - An answered poll confirms that all that was invalidated before it was sent is known here. The first tier may serve
//!   for `max_staleness` after that, look-ups ask Redis for [`READS_AFTER`]: a replica that was cut off, or comes late,
//!   reads nothing before it has heard what it missed.
//! - An invalidation made here has effect here at once, and waits until Redis has given it a number.
//! - Redis may lose what it said: a failover to a replica that lags, a restart. Whoever polls finds the newest
//!   invalidation it has heard of missing, and puts back all it knows; after a failed exchange or a new connection, whoever
//!   polls compares all it knows, lest the newest was only invalidated again. Numbers that were given a second time meanwhile
//!   are recognised (they are not greater than what the replica has heard of, yet it has not heard of them), and those
//!   scopes are invalidated anew. If everything is lost and nobody remembers, everything is invalidated once.
//!
//! What it cannot see: a primary that was replaced and does not know it yet confirms what it knows. How long it can is
//! the cluster's node timeout, or with Sentinel what `min-replicas-max-lag` says.

use super::config::SharedSettings;
use super::connection::{COMMAND_TIMEOUT, within};
use super::stats::Counters;
use crate::coherence::Coherence;
use crate::scope::Scope;
use crate::stamp::Stamp;
use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, EventInterface, LuaInterface, PubsubInterface};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

/// How often Redis is asked for news.
const POLL_EVERY: Duration = Duration::from_millis(250);

/// For how long after a confirmation look-ups may ask Redis: some polls may be late, none may be missing.
pub(super) const READS_AFTER: Duration = Duration::from_secs(1);

/// How many scopes wait for their number; beyond that they become one invalidation of everything.
const MOST_PENDING: usize = 1000;

/// Numbers are below this, as stamps are made.
const NUMBERS: u64 = 1 << 40;

const POLL: &str = concat!("#!lua flags=no-writes\n", include_str!("generations.lua"));

/// Also where memory is full: an invalidation must get through when values do not.
const WRITE: &str = concat!("#!lua flags=allow-oom\n", include_str!("generations.lua"));

/// Where an invalidation has effect by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Reached {
    /// Redis has it, so the other replicas hear of it: at once, or within a quarter of a second if the message is lost;
    /// those that are cut off when they are back.
    Everywhere,
    /// Redis is away. Here it has effect, and Redis gets it before anything else once it is back, if this process still
    /// runs then.
    HereOnly,
}

/// This replica's side of the exchange.
pub(super) struct Exchange {
    coherence: Coherence,
    pending: Mutex<Pending>,
    /// Rung when there is something to send, or Redis published that there is something to ask for.
    bell: Notify,
    announced: AtomicBool,
    /// The greatest number that Redis gave, and the scope it was for. Written by the loop alone.
    newest: Mutex<(u64, String)>,
    /// Whether Redis may have lost something since the last exchange: that failed, or the connection is another. Set and
    /// cleared by the tasks of the tier's one thread, so all accesses are relaxed.
    doubts: AtomicBool,
    start: Instant,
    /// When the last confirmed poll was sent, in nanoseconds after `start`; 0 if none was. Written by the loop, read by
    /// look-ups, which order nothing by it: what was merged before is under the coherence's own lock.
    confirmed: AtomicU64,
    max_staleness: Duration,
    /// The sorted set, and the channel.
    name: String,
    counters: Arc<Counters>,
}

/// Scopes that wait for their number, with those who wait for that.
#[derive(Default)]
struct Pending {
    waiting: Waiting,
    /// How many more have been sent.
    sending: usize,
    /// Nobody will send any more.
    closed: bool,
}

type Waiting = HashMap<Scope, Vec<oneshot::Sender<Reached>>>;

/// How Redis is asked for news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Hear,
    /// All that is known here must be known there.
    Check,
    /// What is known here is put back.
    Restore,
}

impl Manner {
    fn word(self) -> &'static str {
        match self {
            Self::Hear => "hear",
            Self::Check => "check",
            Self::Restore => "restore",
        }
    }
}

enum Reply {
    News(Vec<(Scope, u64)>),
    Lost,
}

impl Exchange {
    pub(super) fn new(settings: &SharedSettings, coherence: Coherence, counters: Arc<Counters>) -> Self {
        let config = &settings.config;
        let start = Instant::now();
        coherence.bound_staleness(start, config.when_cut_off);
        Self {
            coherence,
            pending: Mutex::default(),
            bell: Notify::new(),
            announced: AtomicBool::new(false),
            newest: Mutex::default(),
            doubts: AtomicBool::new(false),
            start,
            confirmed: AtomicU64::new(0),
            max_staleness: config.max_staleness,
            name: format!("{}:generations", config.prefix),
            counters,
        }
    }

    /// Invalidates here at once and elsewhere soon; what it comes to is sent.
    pub(super) fn invalidate(&self, scope: Scope) -> oneshot::Receiver<Reached> {
        let (told, tells) = oneshot::channel();
        // Before it can be sent: what Redis says of it is merged on top.
        self.coherence.invalidate(scope.clone());
        self.put_back([(scope, vec![told])]);
        self.bell.notify_one();
        tells
    }

    /// When Redis last confirmed that all it knows is known here.
    pub(super) fn confirmed(&self) -> Option<Instant> {
        let nanos = self.confirmed.load(Ordering::Relaxed);
        (nanos > 0).then(|| self.start + Duration::from_nanos(nanos))
    }

    /// How many scopes wait for their number, those included that are on their way.
    pub(super) fn pending(&self) -> usize {
        let pending = self.pending.lock();
        pending.waiting.len() + pending.sending
    }

    /// Nothing is sent any more: who waits for that is told so, now and later.
    pub(super) fn close(&self) {
        let mut pending = self.pending.lock();
        *pending = Pending { closed: true, ..Pending::default() };
    }

    /// Polls, and sends what is pending, for ever.
    pub(super) async fn run(&self, client: Client) {
        let (mut messages, mut reconnects) = (client.message_rx(), client.reconnect_rx());
        let polls = async {
            loop {
                let announced = self.announced.swap(false, Ordering::Relaxed);
                if self.exchange(&client, announced).await.is_ok_and(|unannounced| unannounced) {
                    // If it fails, the next news will be unannounced again.
                    _ = timeout(COMMAND_TIMEOUT, client.subscribe(self.name.as_str())).await;
                }
                _ = timeout(POLL_EVERY, self.bell.notified()).await;
            }
        };
        let announcements = async {
            // A receiver that lags has missed announcements, and knows that there were some.
            while !matches!(messages.recv().await, Err(tokio::sync::broadcast::error::RecvError::Closed)) {
                self.announced.store(true, Ordering::Relaxed);
                self.bell.notify_one();
            }
            std::future::pending::<()>().await;
        };
        let connections = async {
            while !matches!(reconnects.recv().await, Err(tokio::sync::broadcast::error::RecvError::Closed)) {
                self.doubts.store(true, Ordering::Relaxed);
                self.bell.notify_one();
            }
            std::future::pending::<()>().await;
        };
        tokio::join!(polls, announcements, connections);
    }

    /// Sends what is pending and hears what is new; whether that was news which nobody had announced.
    async fn exchange(&self, client: &Client, announced: bool) -> Result<bool, Error> {
        let sending = self.take();
        let doubts = self.doubts.swap(false, Ordering::Relaxed);
        let manner = if doubts { Manner::Check } else { Manner::Hear };
        let outcome = self.synchronise(client, sending.keys(), manner).await;
        self.doubts.fetch_or(outcome.is_err(), Ordering::Relaxed);
        let (scopes, waits): (Vec<_>, Vec<_>) = sending.into_iter().unzip();
        let reached = if outcome.is_ok() { Reached::Everywhere } else { Reached::HereOnly };
        if reached == Reached::HereOnly {
            self.put_back(scopes.into_iter().map(|scope| (scope, Vec::new())));
        }
        self.pending.lock().sending = 0;
        for wait in waits.into_iter().flatten() {
            // Those who no longer wait are told nothing.
            _ = wait.send(reached);
        }
        outcome.map(|heard| heard && !announced)
    }

    async fn synchronise(
        &self,
        client: &Client,
        scopes: impl Iterator<Item = &Scope>,
        manner: Manner,
    ) -> Result<bool, Error> {
        let sent = Instant::now();
        let scopes: Vec<String> = scopes.map(Scope::to_string).collect();
        let ours = !scopes.is_empty();
        let news = match self.ask(client, &scopes, manner).await? {
            Reply::News(news) => news,
            Reply::Lost => {
                let Reply::News(news) = self.ask(client, &scopes, Manner::Restore).await? else {
                    return Err(Error::new(ErrorKind::Protocol, "nothing there after it was put back"));
                };
                // Who had heard of nothing has put nothing back.
                self.counters.restorations.add(u64::from(self.newest.lock().0 > 0));
                news
            }
        };
        let heard = !news.is_empty();
        if let Some((scope, number)) = news.iter().max_by_key(|(_, number)| number) {
            *self.newest.lock() = (*number, scope.to_string());
        }
        let seen = Stamp::shared(self.newest.lock().0);
        self.coherence.merge(seen, news.into_iter().map(|(scope, number)| (scope, Stamp::shared(number))));
        self.coherence.confirm(sent + self.max_staleness);
        let nanos = sent.saturating_duration_since(self.start).as_nanos();
        self.confirmed.store(u64::try_from(nanos).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
        Ok(heard && !ours)
    }

    /// Runs the script, which invalidates `scopes`.
    async fn ask(&self, client: &Client, scopes: &[String], manner: Manner) -> Result<Reply, Error> {
        if !client.is_connected() {
            return Err(Error::new(ErrorKind::IO, "no connection"));
        }
        let (known, newest) = self.newest.lock().clone();
        let script = if manner == Manner::Restore || !scopes.is_empty() { WRITE } else { POLL };
        let mut words = vec![known.to_string(), newest, manner.word().to_owned(), scopes.len().to_string()];
        words.extend_from_slice(scopes);
        if manner != Manner::Hear {
            // Of what has no number yet, that it was invalidated at the number before is true as well.
            for (scope, stamp) in self.coherence.generations().iter() {
                words.extend([scope.to_string(), stamp.number().to_string()]);
            }
        }
        let client = within(client, COMMAND_TIMEOUT);
        let answer: Vec<String> = timeout(COMMAND_TIMEOUT, client.eval(script, self.name.as_str(), words))
            .await
            .map_err(|_| Error::new(ErrorKind::Timeout, "no answer in time"))??;
        reply(&answer).ok_or_else(|| Error::new(ErrorKind::Protocol, "not what the script answers"))
    }

    fn take(&self) -> Waiting {
        let mut pending = self.pending.lock();
        pending.sending = pending.waiting.len();
        mem::take(&mut pending.waiting)
    }

    fn put_back(&self, scopes: impl IntoIterator<Item = (Scope, Vec<oneshot::Sender<Reached>>)>) {
        let mut pending = self.pending.lock();
        if pending.closed {
            return;
        }
        let waiting = &mut pending.waiting;
        for (scope, waits) in scopes {
            waiting.entry(scope).or_default().extend(waits);
        }
        if waiting.len() > MOST_PENDING {
            let wait = mem::take(waiting).into_values().flatten().collect();
            waiting.insert(Scope::All, wait);
        }
    }
}

/// What the script's answer says; nothing if it is none.
fn reply(answer: &[String]) -> Option<Reply> {
    let (kind, rest) = answer.split_first()?;
    let (pairs, []) = rest.as_chunks() else { return None };
    let pair = |[scope, number]: &[String; 2]| {
        let number = number.parse().ok().filter(|number| *number < NUMBERS)?;
        Some((scope.parse().ok()?, number))
    };
    match kind.as_str() {
        "news" => pairs.iter().map(pair).collect::<Option<_>>().map(Reply::News),
        "lost" => Some(Reply::Lost),
        _ => None,
    }
}

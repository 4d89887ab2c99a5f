//! Two replicas on one Redis: how soon one hears what the other invalidated, and what it serves after it was cut off.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use volley_examples::{Caller, ServerProcess};

use crate::proxy::{Passage, Proxy};
use crate::redis::{Node, wait_until};

const ROUNDS: usize = 20;
/// How long the second replica is cut off, longer than it may serve without word from Redis.
const CUT_OFF: Duration = Duration::from_secs(3);
/// For how long it may.
const MAX_STALENESS: Duration = Duration::from_secs(2);
/// Nothing that is to happen takes this long.
const GIVE_UP: Duration = Duration::from_secs(10);
/// As many stale answers are enough.
const MOST_STALE: usize = 1_000;

/// What two replicas did.
pub(crate) struct Coherence {
    /// From an invalidation's answer at one replica to the other's first answer that is not from its cache.
    pub invalidate_ms_max: f64,
    invalidate_ms_median: f64,
    /// How long the replica that was cut off served what was invalidated elsewhere; its bound is [`MAX_STALENESS`].
    stale_while_away: Duration,
    /// Answers with what was invalidated, after it was back.
    pub stale_after_partition: usize,
}

impl fmt::Display for Coherence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "two replicas: what one invalidates the other does not serve after {:.1} ms (median of {ROUNDS}; worst {:.1}); \
             cut off for {CUT_OFF:?} it served it for {:.2} s (bound: {MAX_STALENESS:?}), and {} times when it was back",
            self.invalidate_ms_median,
            self.invalidate_ms_max,
            self.stale_while_away.as_secs_f64(),
            self.stale_after_partition,
        )
    }
}

pub(crate) fn run() -> Result<Coherence, Box<dyn Error>> {
    let redis = Node::start(&[])?;
    let proxy = Proxy::before(redis.address)?;
    let secret = "07".repeat(32);
    let (direct, through) = (format!("redis://{}", redis.address), format!("redis://{}", proxy.address));
    let staleness = format!("{}s", MAX_STALENESS.as_secs());
    let serve = |url: &str| {
        let settings = [
            ("VOLLEY_CACHE__REDIS__URL", url),
            ("VOLLEY_CACHE__SECRET", &secret),
            ("VOLLEY_CACHE__REDIS__MAX_STALENESS", &staleness),
            ("VOLLEY_MODELS__CNN_LSTM__VARIANTS", "[\"fp32\"]"),
        ];
        ServerProcess::start(None, &settings)
    };
    let (a, b) = (serve(&direct)?, serve(&through)?);
    let mut replica = Replica::of(&b)?;
    for server in [&a, &b] {
        wait_until("a replica to find Redis", || connected(server.metrics).unwrap_or(false))?;
    }

    let mut delays = Vec::new();
    for round in 0..ROUNDS {
        replica.keep(round)?;
        invalidate(a.admin)?;
        let told = Instant::now();
        while replica.serves_kept(round)? {
            if told.elapsed() > GIVE_UP {
                return Err("a replica never stopped serving what another invalidated".into());
            }
        }
        delays.push(told.elapsed().as_secs_f64() * 1e3);
    }
    delays.sort_by(f64::total_cmp);

    // Kept, and invalidated elsewhere while nothing is heard here.
    replica.keep(ROUNDS)?;
    proxy.set(Passage::Cut);
    invalidate(a.admin)?;
    let told = Instant::now();
    let mut stale_while_away = Duration::ZERO;
    while told.elapsed() < CUT_OFF {
        if replica.serves_kept(ROUNDS)? {
            stale_while_away = told.elapsed();
        }
        thread::sleep(Duration::from_millis(5));
    }
    proxy.set(Passage::Open);
    wait_until("the replica to be back", || connected(b.metrics).unwrap_or(false))?;
    // Whatever either tier holds was computed without knowing of the invalidation; what is computed from now on may be kept.
    let mut stale_after_partition = 0;
    while stale_after_partition < MOST_STALE && replica.serves_kept(ROUNDS)? {
        stale_after_partition += 1;
    }
    Ok(Coherence {
        invalidate_ms_max: delays[ROUNDS - 1],
        invalidate_ms_median: delays[ROUNDS / 2],
        stale_while_away,
        stale_after_partition,
    })
}

/// A server asked one question after the other, whose counts say whether an answer was computed.
struct Replica {
    caller: Caller,
    metrics: SocketAddr,
}

impl Replica {
    fn of(server: &ServerProcess) -> Result<Self, Box<dyn Error>> {
        Ok(Self { caller: Caller::connect(server.http)?, metrics: server.metrics })
    }

    /// Asks until the answer is not computed.
    fn keep(&mut self, question: usize) -> Result<(), Box<dyn Error>> {
        let began = Instant::now();
        while !self.serves_kept(question)? {
            if began.elapsed() > GIVE_UP {
                return Err("a replica keeps nothing".into());
            }
        }
        Ok(())
    }

    /// Asks, and tells whether the answer came from either tier, and was not computed.
    fn serves_kept(&mut self, question: usize) -> Result<bool, Box<dyn Error>> {
        let before = computed(self.metrics)?;
        let body = json!({
            "inputs": [{
                "name": "input", "shape": [1, 50, 60], "datatype": "FP32",
                "data": (0..3000).map(|i| ((question * 31 + i * 17) % 101) as f32 / 50.0 - 1.0).collect::<Vec<_>>(),
            }],
        });
        let answer = self.caller.post("/v2/models/cnn_lstm/infer", "", body.to_string().as_bytes())?;
        if answer.status != 200 {
            return Err(answer.text().into());
        }
        Ok(computed(self.metrics)? == before)
    }
}

fn invalidate(server: SocketAddr) -> Result<(), Box<dyn Error>> {
    let answer = Caller::connect(server)?.post("/admin/cache/invalidate", "", br#"{"scopes":["model/cnn_lstm"]}"#)?;
    if answer.status == 200 { Ok(()) } else { Err(answer.text().into()) }
}

fn connected(metrics: SocketAddr) -> Result<bool, Box<dyn Error>> {
    Ok(metric(metrics, "batch_processing_cache_confirmed_ago_seconds{tier=\"redis\"}")? < 0.5)
}

/// Rows that ran. Not the look-ups that found something: what Redis had may have been invalidated on its way here.
fn computed(metrics: SocketAddr) -> Result<u64, Box<dyn Error>> {
    let series = "batch_processing_batch_size_sum{model=\"cnn_lstm\",version=\"1\",variant=\"fp32\"}";
    Ok(metric(metrics, series)? as u64)
}

fn metric(metrics: SocketAddr, series: &str) -> Result<f64, Box<dyn Error>> {
    let text = Caller::connect(metrics)?.get("/metrics")?.text();
    let value = text.lines().find_map(|line| line.strip_prefix(series)).ok_or_else(|| format!("no {series}"))?;
    Ok(value.trim().parse()?)
}

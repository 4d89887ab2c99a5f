//! Callers whose questions repeat, as Zipf found words to, at times fixed beforehand; each answer is compared.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use volley_examples::Caller;
use volley_validate::histogram::LatencyHistogram;

/// Threads, each with a connection of its own.
const CALLERS: usize = 24;
/// Different questions.
const QUESTIONS: usize = 1_500;
/// Values of a question's one row, [50, 60].
const VALUES: usize = 3_000;

/// Questions, and what the model answers to them.
pub(crate) struct Quiz {
    bodies: Vec<(usize, Vec<u8>)>,
    answers: Vec<Vec<u8>>,
    /// Sums of the weights 1, 1/2, 1/3 ... up to each question.
    popularity: Vec<f64>,
}

/// What the callers saw.
#[derive(Default)]
pub(crate) struct Seen {
    pub asked: usize,
    pub failed: usize,
    pub wrong: usize,
    pub latency: LatencyHistogram,
    /// How late callers woke up who had time until their request was due. Where they are late, latencies are too.
    pub wake: LatencyHistogram,
    pub first_failure: Option<String>,
}

impl Seen {
    fn join(mut self, other: Self) -> Self {
        self.asked += other.asked;
        self.failed += other.failed;
        self.wrong += other.wrong;
        self.latency.merge(&other.latency);
        self.wake.merge(&other.wake);
        self.first_failure = self.first_failure.or(other.first_failure);
        self
    }
}

/// A quantile in milliseconds.
pub(crate) fn quantile_ms(histogram: &LatencyHistogram, quantile: f64) -> f64 {
    histogram.quantile(quantile).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
}

impl Quiz {
    /// Has `server` answer every question once, past its cache.
    pub(crate) fn prepare(server: SocketAddr) -> Result<Arc<Self>, Box<dyn Error>> {
        let mut caller = Caller::connect(server)?;
        let mut answers = Vec::new();
        for question in 0..QUESTIONS {
            answers.push(ask(&mut caller, &body(question, false))?);
        }
        let popularity = (1..=QUESTIONS).scan(0.0, |sum, rank| {
            *sum += 1.0 / rank as f64;
            Some(*sum)
        });
        let bodies = (0..QUESTIONS).map(|question| body(question, true)).collect();
        Ok(Arc::new(Self { bodies, answers, popularity: popularity.collect() }))
    }

    fn draw(&self, random: &mut Xoshiro256PlusPlus) -> usize {
        let at = random.random::<f64>() * self.popularity[QUESTIONS - 1];
        self.popularity.partition_point(|&sum| sum < at).min(QUESTIONS - 1)
    }

    /// Asks `caller` one of the questions; whether the answer is the model's.
    pub(crate) fn check(&self, caller: &mut Caller, question: usize) -> Result<bool, Box<dyn Error>> {
        Ok(ask(caller, &self.bodies[question])? == self.answers[question])
    }
}

/// Requests that `server` answers in a second when it has nothing else to do and nothing is cached.
pub(crate) fn capacity(server: SocketAddr) -> Result<f64, Box<dyn Error>> {
    const SECONDS: f64 = 2.0;
    let over = Instant::now() + Duration::from_secs_f64(SECONDS);
    let callers: Vec<_> = (0..CALLERS)
        .map(|number| {
            thread::spawn(move || -> Result<usize, String> {
                let mut caller = Caller::connect(server).map_err(|error| error.to_string())?;
                let body = body(number, false);
                let mut answered = 0;
                while Instant::now() < over {
                    ask(&mut caller, &body).map_err(|error| error.to_string())?;
                    answered += 1;
                }
                Ok(answered)
            })
        })
        .collect();
    let mut answered = 0;
    for caller in callers {
        answered += caller.join().expect("a caller does not panic")?;
    }
    Ok(answered as f64 / SECONDS)
}

/// Load that has begun, and ends by itself.
pub(crate) struct Load(Vec<thread::JoinHandle<Seen>>);

impl Load {
    /// `rate` requests a second for `duration`; Poisson, the same for the same seed.
    pub(crate) fn start(server: SocketAddr, quiz: &Arc<Quiz>, rate: f64, duration: Duration) -> Self {
        let begin = Instant::now();
        let callers = (0..CALLERS).map(|number| {
            let quiz = Arc::clone(quiz);
            thread::spawn(move || call(server, &quiz, number as u64, rate / CALLERS as f64, begin, duration))
        });
        Self(callers.collect())
    }

    pub(crate) fn finish(self) -> Seen {
        let seen = self.0.into_iter().map(|caller| caller.join().expect("a caller does not panic"));
        seen.fold(Seen::default(), Seen::join)
    }
}

/// A latency counts from the moment that a request was due.
fn call(server: SocketAddr, quiz: &Quiz, seed: u64, rate: f64, begin: Instant, duration: Duration) -> Seen {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut seen = Seen::default();
    let mut caller = None;
    let mut due = begin;
    loop {
        // Gaps of a Poisson process are exponential.
        due += Duration::from_secs_f64(-f64::ln(1.0 - random.random::<f64>()) / rate);
        if due > begin + duration {
            return seen;
        }
        if let Some(early) = due.checked_duration_since(Instant::now()) {
            thread::sleep(early);
            seen.wake.record(due.elapsed());
        }
        seen.asked += 1;
        let question = quiz.draw(&mut random);
        let answered = match &mut caller {
            Some(caller) => Ok(caller),
            none => Caller::connect(server).map(|connection| none.insert(connection)),
        }
        .and_then(|caller| quiz.check(caller, question));
        match answered {
            Ok(right) => {
                seen.wrong += usize::from(!right);
                seen.latency.record(due.elapsed());
            }
            Err(error) => {
                seen.failed += 1;
                seen.first_failure.get_or_insert(error.to_string());
                caller = None;
            }
        }
    }
}

/// The JSON's length, and JSON and values together.
fn body(question: usize, cache: bool) -> (usize, Vec<u8>) {
    let json = json!({
        "inputs": [{
            "name": "input", "shape": [1, 50, 60], "datatype": "FP32",
            "parameters": { "binary_data_size": 4 * VALUES }
        }],
        "parameters": { "binary_data_output": true, "cache": cache },
    })
    .to_string();
    let mut random = Xoshiro256PlusPlus::seed_from_u64(question as u64);
    let values = (0..VALUES).flat_map(|_| random.random_range(-1.0_f32..1.0).to_le_bytes());
    (json.len(), json.bytes().chain(values).collect())
}

fn ask(caller: &mut Caller, (json_length, body): &(usize, Vec<u8>)) -> Result<Vec<u8>, Box<dyn Error>> {
    let header = format!("Inference-Header-Content-Length: {json_length}\r\n");
    let answer = caller.post("/v2/models/cnn_lstm/infer", &header, body)?;
    match answer.status {
        200 => Ok(answer.outputs().to_vec()),
        status => Err(format!("{status} {}", answer.text()).into()),
    }
}

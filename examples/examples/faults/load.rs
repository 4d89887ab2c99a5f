//! Callers that ask two models all the while, and check every answer.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use volley_examples::Caller;

use crate::site::{LARGE_BATCH, Site};

/// Between the answer to a caller's request and its next.
const PAUSE: Duration = Duration::from_millis(2);
const CALLERS: usize = 4;

/// What the callers of one model saw.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    pub answered: usize,
    /// Requests with any answer but 200.
    pub lost: usize,
    pub wrong: usize,
    pub longest: Duration,
    pub first_loss: Option<String>,
}

impl Seen {
    pub(crate) fn take(&mut self, took: Duration, loss: Option<String>, right: bool) {
        self.longest = self.longest.max(took);
        match loss {
            None => {
                self.answered += 1;
                self.wrong += usize::from(!right);
            }
            Some(loss) => {
                self.lost += 1;
                self.first_loss.get_or_insert(loss);
            }
        }
    }

    pub(crate) fn join(mut self, other: Self) -> Self {
        self.answered += other.answered;
        self.lost += other.lost;
        self.wrong += other.wrong;
        self.longest = self.longest.max(other.longest);
        self.first_loss = self.first_loss.or(other.first_loss);
        self
    }
}

/// One question and its answer.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub model: &'static str,
    pub input: &'static str,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// Load on two models.
pub(crate) struct Load {
    over: Arc<AtomicBool>,
    callers: [Vec<JoinHandle<Seen>>; 2],
}

impl Load {
    /// On the model that breaks, and on the bundled one.
    pub(crate) fn start(site: &Site) -> Result<Self, Box<dyn Error>> {
        let breaking = |caller: usize| Question {
            model: "breaking",
            input: "x",
            shape: vec![1, 4],
            values: (0..4).map(|i| (caller * 4 + i) as f32).collect(),
        };
        Self::of(site.http(), [&breaking, &|caller| window(caller, 1)])
    }

    /// On the bundled model, in requests of so many rows that two of them fill a batch: only such a batch can find out that
    /// memory suffices again.
    pub(crate) fn of_large_requests(site: &Site) -> Result<Self, Box<dyn Error>> {
        Self::of(site.http(), [&|caller| window(caller, LARGE_BATCH / 2), &|caller| window(caller + CALLERS, 1)])
    }

    fn of(address: SocketAddr, questions: [&dyn Fn(usize) -> Question; 2]) -> Result<Self, Box<dyn Error>> {
        let over = Arc::new(AtomicBool::new(false));
        let mut callers = [Vec::new(), Vec::new()];
        for (callers, question) in callers.iter_mut().zip(questions) {
            for caller in 0..CALLERS {
                let (question, over) = (question(caller), Arc::clone(&over));
                let mut connection = Caller::connect(address)?;
                // What is right is what is answered while nothing is broken.
                let first = ask(&mut connection, &question)?;
                let expected = first.1.map_err(|loss| format!("before any fault: {loss}"))?;
                callers.push(thread::spawn(move || call(address, connection, &question, &expected, &over)));
            }
        }
        Ok(Self { over, callers })
    }

    /// Ends the load; what each model's callers saw.
    pub(crate) fn stop(self) -> (Seen, Seen) {
        self.over.store(true, Ordering::Relaxed);
        let [here, elsewhere] = self.callers.map(|callers| {
            let seen = callers.into_iter().map(|caller| caller.join().expect("a caller does not panic"));
            seen.fold(Seen::default(), Seen::join)
        });
        (here, elsewhere)
    }
}

fn window(seed: usize, rows: usize) -> Question {
    let values = (0..rows * 3000).map(|i| ((seed * 31 + i * 17) % 101) as f32 / 50.0 - 1.0).collect();
    Question { model: "cnn_lstm", input: "input", shape: vec![rows, 50, 60], values }
}

type Asked = (Duration, Result<Vec<u8>, String>);

fn ask(connection: &mut Caller, question: &Question) -> Result<Asked, Box<dyn Error>> {
    let started = Instant::now();
    let answer = connection.infer(question.model, question.input, &question.shape, &question.values)?;
    let result = match answer.status {
        200 => Ok(answer.outputs().to_vec()),
        status => Err(format!("{status} {}", answer.text())),
    };
    Ok((started.elapsed(), result))
}

fn call(address: SocketAddr, mut connection: Caller, question: &Question, expected: &[u8], over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    while !over.load(Ordering::Relaxed) {
        match ask(&mut connection, question) {
            Ok((took, Ok(answer))) => seen.take(took, None, answer == expected),
            Ok((took, Err(loss))) => seen.take(took, Some(loss), true),
            Err(error) => {
                seen.take(Duration::ZERO, Some(error.to_string()), true);
                match Caller::connect(address) {
                    Ok(another) => connection = another,
                    Err(_) => return seen,
                }
            }
        }
        thread::sleep(PAUSE);
    }
    seen
}

//! The server is told to leave while it is asked all the time: does everybody get an answer?

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use serde_json::json;
use tokio::task::LocalSet;
use volley_examples::{Connection, ServerProcess, Spread, message};

use super::SERVER_CORE;

const CALLERS: usize = 32;
/// How long the load runs before the signal; a little longer each time, so that it comes at any moment of a batch.
const BEFORE: Duration = Duration::from_millis(150);

/// What all callers saw.
#[derive(Default)]
pub(crate) struct Departures {
    rounds: usize,
    answered: u64,
    /// Requests that were written whole, on a connection that was opened, and got no answer or not the right one.
    pub lost: u64,
    first_loss: Option<String>,
    /// From the signal to the end of the process, in milliseconds.
    took: Spread,
}

/// Starts and ends a server under load `rounds` times.
pub(crate) async fn run(rounds: usize) -> Result<Departures, Box<dyn Error>> {
    let seen = Rc::new(RefCell::new(Departures { rounds, ..Departures::default() }));
    let parameters = json!({ "cache": false });
    let request: Rc<[u8]> =
        message::inference("cnn_lstm", "input", &[1, 50, 60], &message::window(0), &parameters).into();
    for round in 0..rounds {
        if round % 10 == 0 {
            eprintln!("departures: {round} of {rounds}");
        }
        let mut server = ServerProcess::start(Some(SERVER_CORE), &[("VOLLEY_CACHE__ENABLED", "false")])?;
        let callers = LocalSet::new();
        for _ in 0..CALLERS {
            callers.spawn_local(ask_until_it_is_gone(server.http, Rc::clone(&request), Rc::clone(&seen)));
        }
        let leave = async {
            tokio::time::sleep(BEFORE + Duration::from_micros(370 * round as u64)).await;
            server.terminate()
        };
        let left = callers.run_until(leave).await?;
        callers.await;
        server.wait()?;
        seen.borrow_mut().took.push(left.elapsed().as_secs_f64() * 1e3);
    }
    Ok(Rc::into_inner(seen).ok_or("a caller is still there")?.into_inner())
}

/// Asks over one connection after the other, until none can be opened.
async fn ask_until_it_is_gone(address: SocketAddr, request: Rc<[u8]>, seen: Rc<RefCell<Departures>>) {
    let lose = |loss: String| {
        let mut seen = seen.borrow_mut();
        seen.lost += 1;
        seen.first_loss.get_or_insert(loss);
    };
    while let Ok(mut connection) = Connection::open(address).await {
        let mut asked = 0;
        loop {
            asked += 1;
            match connection.ask(&request).await {
                Ok(reply) => {
                    if reply.status == 200 {
                        seen.borrow_mut().answered += 1;
                    } else {
                        lose(format!("status {}: {}", reply.status, String::from_utf8_lossy(reply.body)));
                    }
                    if reply.closes {
                        break;
                    }
                }
                Err(broken) => {
                    if broken.sent {
                        lose(format!("request {asked} of its connection: {}", broken.error));
                    }
                    break;
                }
            }
        }
    }
}

impl fmt::Display for Departures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "departures, {} of a server that {CALLERS} callers keep busy", self.rounds)?;
        writeln!(f, "  requests                  {} answered, {} lost", self.answered, self.lost)?;
        if let Some(loss) = &self.first_loss {
            writeln!(f, "  the first loss            {loss}")?;
        }
        writeln!(f, "  gone                      {:.0} ms after the signal", self.took)
    }
}

//! The configuration is changed all the time, and every third change is wrong: does anybody notice?

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use volley_examples::{Caller, ServerProcess, Traffic, message};

use super::SERVER_CORE;

const CALLERS: usize = 16;

/// What came of it.
#[derive(Default)]
pub(crate) struct Updates {
    made: usize,
    refused: usize,
    /// Refusals that do not name what is wrong, changes that were refused or made though they should not have been, and
    /// settings that were of two updates at once.
    wrong: usize,
    first_wrong: Option<String>,
    requests: u64,
    failed: u64,
    first_failure: Option<String>,
}

/// Makes `count` updates under load.
pub(crate) async fn run(count: usize) -> Result<Updates, Box<dyn Error>> {
    let server = ServerProcess::start(Some(SERVER_CORE), &[("VOLLEY_CACHE__ENABLED", "false")])?;
    let traffic = Traffic { warmup: Duration::ZERO, ..Traffic::to_bundled_model(server.http, &json!({}))? };
    let admin = server.admin;
    let updater = thread::spawn(move || update(admin, count).map_err(|error| error.to_string()));
    let mut load = Updates::default();
    while !updater.is_finished() {
        let found = traffic.closed(CALLERS).await?;
        load.requests += found.offered;
        load.failed += found.failed;
        load.first_failure = load.first_failure.take().or(found.first_failure);
    }
    let updates = updater.join().map_err(|_| "the updating thread panicked")??;
    Ok(Updates { requests: load.requests, failed: load.failed, first_failure: load.first_failure, ..updates })
}

/// Each update sets two settings that are to change together, and every third a further one that cannot be.
fn update(admin: SocketAddr, count: usize) -> Result<Updates, Box<dyn Error>> {
    let mistakes = [
        (json!({ "limits": { "headers": 0 } }), "limits.headers"),
        (json!({ "log": { "filtr": "info" } }), "filtr"),
        (json!({ "http": { "port": 1 } }), "http.port"),
    ];
    let mut caller = Caller::connect(admin)?;
    let mut updates = Updates::default();
    let mut in_force = Value::Null;
    for number in 1..=count {
        if number % 100 == 0 {
            eprintln!("updates: {number} of {count}");
        }
        let mark = 5000 + number;
        let mut said = json!({ "limits": { "requests": mark, "connections": mark } });
        let mistake = (number % 3 == 0).then(|| &mistakes[number / 3 % mistakes.len()]);
        for (section, settings) in mistake.iter().flat_map(|(wrong, _)| wrong.as_object()).flatten() {
            for (name, value) in settings.as_object().into_iter().flatten() {
                said[section][name] = value.clone();
            }
        }
        let answer = caller.exchange(&message::request("PATCH", "/admin/config", "", said.to_string().as_bytes()))?;
        match mistake {
            None if answer.status == 200 => {
                updates.made += 1;
                in_force = mark.into();
            }
            Some((_, named)) if matches!(answer.status, 400 | 409) && answer.text().contains(named) => {
                updates.refused += 1;
            }
            _ => updates.find(format!("{said} was answered {}: {}", answer.status, answer.text())),
        }
        let settings = caller.get("/admin/config")?.json()?;
        let value = |path: &str| &settings["settings"][path]["value"];
        let pair = [value("limits.requests"), value("limits.connections")];
        if pair.iter().any(|&value| *value != in_force) {
            updates.find(format!("{pair:?} are in force, though {in_force} was said last"));
        }
    }
    Ok(updates)
}

impl Updates {
    fn find(&mut self, wrong: String) {
        self.wrong += 1;
        self.first_wrong.get_or_insert(wrong);
    }

    /// Requests that failed, and updates that did not do what they should.
    pub(crate) fn failures(&self) -> u64 {
        self.failed + self.wrong as u64
    }
}

impl fmt::Display for Updates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.made + self.refused + self.wrong;
        writeln!(f, "updates of the configuration, {total}, while {CALLERS} callers keep the server busy")?;
        writeln!(
            f,
            "  updates                   {} made, {} refused and told why, {} wrong",
            self.made, self.refused, self.wrong
        )?;
        writeln!(f, "  requests                  {}, {} failed", self.requests, self.failed)?;
        if let Some(first) = self.first_wrong.as_ref().or(self.first_failure.as_ref()) {
            writeln!(f, "  the first                 {first}")?;
        }
        Ok(())
    }
}

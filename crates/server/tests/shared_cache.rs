//! Replicas that share results through a real Redis, started by the tests.

mod common;

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Connection, ServerProcess, json_request, window};
use serde_json::{Value, json};

const SECRET: &str = "0707070707070707070707070707070707070707070707070707070707070707";
/// Only what never comes is ever waited for this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A `redis-server` on a free port; ended when dropped.
struct Redis {
    child: Child,
    url: String,
}

impl Redis {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        Self { child: Self::spawn(port), url: format!("redis://127.0.0.1:{port}") }
    }

    fn spawn(port: u16) -> Child {
        let arguments = ["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let command = Command::new("redis-server").args(arguments).stdout(Stdio::null()).spawn();
        command.expect("redis-server is installed by `./setup test`")
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// On the same port.
    fn start_again(&mut self) {
        let (_, port) = self.url.rsplit_once(':').expect("a port");
        let port = port.parse().expect("a number");
        wait_until("Redis listens again", || {
            self.child = Self::spawn(port);
            std::thread::sleep(Duration::from_millis(100));
            self.child.try_wait().is_ok_and(|ended| ended.is_none())
        });
    }

    /// A server that shares its results here.
    fn replica(&self, more: &[(&str, &str)]) -> ServerProcess {
        let settings = [("VOLLEY_CACHE__REDIS__URL", self.url.as_str()), ("VOLLEY_CACHE__SECRET", SECRET)];
        let server = ServerProcess::start(&[&settings, more].concat());
        wait_until("the server has heard of Redis", || {
            server.metric("batch_processing_cache_confirmed_ago_seconds{tier=\"redis\"}") < 0.8
        });
        server
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < give_up, "not so after {PATIENCE:?}: {what}");
        std::thread::yield_now();
    }
}

fn hits(server: &ServerProcess, tier: &str) -> f64 {
    server.metric(&format!("batch_processing_cache_hits_total{{tier=\"{tier}\"}}"))
}

fn ask(connection: &mut Connection, seed: usize) -> Vec<f32> {
    let reply = connection.infer(&json_request(&[window(seed)], &json!({})));
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    reply.values(0)
}

fn invalidate(server: &ServerProcess, body: &Value) -> (u16, Value) {
    let reply = Connection::to(server.admin).send("POST", "/admin/cache/invalidate", &[], body.to_string().as_bytes());
    (reply.status, reply.json())
}

#[test]
fn what_one_replica_computed_another_answers_with_until_it_is_invalidated() {
    let redis = Redis::start();
    // A batch is held back for longer than Redis takes, so that it answers first.
    let patient = [("VOLLEY_SCHEDULER__MAX_WAIT", "2s"), ("VOLLEY_CACHE__REDIS__LOOKUP_BUDGET", "10s")];
    let (a, b) = (redis.replica(&[]), redis.replica(&patient));
    let (mut at_a, mut at_b) = (a.connect(), b.connect());
    let computed = ask(&mut at_a, 1);
    wait_until("the result is in Redis", || {
        a.metric("batch_processing_cache_writes_total{tier=\"redis\",outcome=\"written\"}") >= 1.0
    });
    wait_until("the other replica finds it there", || {
        let answer = ask(&mut at_b, 1);
        assert_eq!(answer, computed);
        hits(&b, "redis") >= 1.0
    });
    let local = hits(&b, "local");
    assert_eq!(ask(&mut at_b, 1), computed);
    assert!(hits(&b, "local") > local, "what was found elsewhere is kept here as well");

    let (status, answer) = invalidate(&a, &json!({ "scopes": ["model/cnn_lstm"] }));
    assert_eq!((status, answer), (200, json!({ "reached": "everywhere" })));
    wait_until("the other replica has heard of it", || {
        let (local, shared) = (hits(&b, "local"), hits(&b, "redis"));
        assert_eq!(ask(&mut at_b, 1), computed);
        (hits(&b, "local"), hits(&b, "redis")) == (local, shared)
    });
}

#[test]
fn a_redis_that_is_not_there_fails_nothing() {
    let settings = [("VOLLEY_CACHE__REDIS__URL", "redis://127.0.0.1:1"), ("VOLLEY_CACHE__SECRET", SECRET)];
    let server = ServerProcess::start(&settings);
    let mut connection = server.connect();
    assert_eq!(ask(&mut connection, 1), ask(&mut connection, 1));
    assert_eq!(server.metric("batch_processing_cache_connected{tier=\"redis\"}"), 0.0);
    let (status, answer) = invalidate(&server, &json!({ "scopes": ["all"] }));
    assert_eq!((status, answer), (200, json!({ "reached": "here_until_redis_is_back" })));
}

#[test]
fn invalidating_reaches_what_it_names_and_nothing_else() {
    let settings = [
        ("VOLLEY_MODELS__CNN_LSTM__CACHE_TAGS", "[\"features\"]"),
        ("VOLLEY_MODELS__CNN_LSTM__VARIANTS", "[\"int8\"]"),
    ];
    let server = ServerProcess::start(&settings);
    let mut connection = server.connect();
    let mut is_kept = |seed| {
        let before = hits(&server, "local");
        ask(&mut connection, seed);
        hits(&server, "local") > before
    };
    for (scope, reaches) in [
        ("model/other", false),
        ("version/cnn_lstm/2", false),
        ("tag/prices", false),
        ("version/cnn_lstm/1", true),
        ("tag/features", true),
        ("tag/int8", true),
        ("model/cnn_lstm", true),
        ("all", true),
    ] {
        is_kept(1);
        assert!(is_kept(1));
        assert_eq!(invalidate(&server, &json!({ "scopes": [scope] })), (200, json!({ "reached": "here" })), "{scope}");
        assert_eq!(is_kept(1), !reaches, "{scope}");
    }
    for (body, complaint) in [
        (json!({ "scopes": ["models/x"] }), "`model/NAME`"),
        (json!({ "scopes": [] }), "expected at least one"),
        (json!({ "scope": ["all"] }), "scopes"),
    ] {
        let (status, answer) = invalidate(&server, &body);
        assert!(status == 400 && answer.to_string().contains(complaint), "{body}: {status} {answer}");
    }
}

#[test]
fn a_model_whose_results_are_not_to_be_kept_is_computed_each_time() {
    let server = ServerProcess::start(&[("VOLLEY_MODELS__CNN_LSTM__CACHE", "false")]);
    let mut connection = server.connect();
    assert_eq!(ask(&mut connection, 1), ask(&mut connection, 1));
    assert_eq!(hits(&server, "local"), 0.0);
}

#[test]
fn what_is_wrong_with_the_shared_tier_s_settings_is_told_before_anything_is_served() {
    let url = ("VOLLEY_CACHE__REDIS__URL", "redis://127.0.0.1:1");
    let secret = ("VOLLEY_CACHE__SECRET", SECRET);
    for (settings, complaint) in [
        (vec![url], "cache.secret"),
        (vec![url, ("VOLLEY_CACHE__SECRET", "seven")], "64 hexadecimal digits"),
        (vec![secret, ("VOLLEY_CACHE__REDIS__URL", "http://127.0.0.1")], "cache.redis.url"),
        (vec![secret, url, ("VOLLEY_CACHE__REDIS__MAX_STALENESS", "10ms")], "cache.redis.max_staleness"),
    ] {
        let message = ServerProcess::refusal(&settings);
        assert!(message.contains(complaint) && !message.contains("seven"), "{settings:?}: {message}");
    }
}

#[test]
fn the_log_says_when_redis_is_lost_and_when_it_answers_again() {
    let mut redis = Redis::start();
    let server = redis.replica(&[("VOLLEY_CACHE__REDIS__MAX_STALENESS", "1s")]);
    let ago = || server.metric("batch_processing_cache_confirmed_ago_seconds{tier=\"redis\"}");
    // Looked at every second, it is lost after three.
    redis.stop();
    wait_until("Redis is missed", || ago() > 6.0);
    redis.start_again();
    wait_until("Redis is back", || ago() < 0.8);
    // For as long as several looks take, it is heard of.
    let heard = Instant::now();
    wait_until("Redis is looked at", || ago() < 0.8 && heard.elapsed() > Duration::from_secs(4));
    server.terminate();
    let (_, log) = server.wait();
    let said =
        |text: &str| log.iter().filter(|line| line["message"].as_str().is_some_and(|m| m.starts_with(text))).count();
    assert_eq!((said("Redis (cache.redis.url) does not answer"), said("Redis answers again")), (1, 1), "{log:?}");
}

//! What breaks under requests, and costs none of them its answer.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::repository::Repository;
use common::{Body, Connection, Reply, ServerProcess, window};
use serde_json::{Value, json};

fn serve(name: &str, settings: &[(&str, &str)]) -> (ServerProcess, Repository) {
    let repository = Repository::new(&format!("recovery-{name}"));
    repository.add_bundled(1, &["model.int8.onnx", "golden.safetensors"]);
    repository.add_breaking();
    let fault = repository.fault_file();
    let mut all = vec![
        ("VOLLEY_MODEL_REPOSITORY", repository.path()),
        ("FAULT_OPERATOR_FILE", fault.to_str().expect("a path in UTF-8")),
        ("VOLLEY_RUNTIME__RUN_LIMIT", "200ms"),
        ("VOLLEY_RUNTIME__WORKERS", "2"),
    ];
    all.extend(settings);
    (ServerProcess::start(&all), repository)
}

/// A request to the model that breaks, whose answer is its question.
fn echo(seed: usize) -> (Vec<f32>, Body) {
    let values: Vec<f32> = (0..4).map(|i| (seed * 4 + i) as f32).collect();
    let body = question(&values, &json!({ "cache": false }));
    (values, body)
}

fn question(values: &[f32], parameters: &Value) -> Body {
    let json = json!({
        "inputs": [{ "name": "x", "shape": [1, 4], "datatype": "FP32", "data": values }],
        "parameters": parameters,
    });
    Body { bytes: json.to_string().into_bytes(), json_length: None }
}

/// Serves `breaking` as an ensemble of a member that breaks and one that does not.
fn serve_ensemble(name: &str, settings: &[(&str, &str)]) -> (ServerProcess, Repository) {
    let (server, repository) = serve(name, settings);
    repository.make_breaking_a_member();
    let reply = server.connect().send("POST", "/v2/repository/models/breaking/load", &[], b"");
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    (server, repository)
}

/// How many members answered, of how many.
fn participation(reply: &Reply) -> (u64, u64) {
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    let parameters = &reply.json()["parameters"];
    let count = |name: &str| parameters[name].as_u64().unwrap_or_else(|| panic!("no {name} in {parameters}"));
    (count("ensemble_members"), count("ensemble_size"))
}

/// Callers that ask the model that breaks, once at least and until told to stop; each answer must come, and be right.
struct Callers {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Callers {
    fn start(server: &ServerProcess) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let start = |caller: usize| {
            let (over, address) = (Arc::clone(&over), server.http);
            std::thread::spawn(move || {
                let mut connection = Connection::to(address);
                for turn in 0.. {
                    let (values, body) = echo(caller * 1000 + turn % 1000);
                    let reply = connection.ask("breaking", &body);
                    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
                    assert_eq!(reply.values(0), values);
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                }
            })
        };
        let threads = (0..6).map(start).collect();
        Self { over, threads }
    }

    fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("every request was answered");
        }
    }
}

fn fault(name: &str) -> String {
    format!(r#"batch_processing_faults_total{{model="breaking",version="1",variant="fp32",fault="{name}"}}"#)
}

/// Waits until the server counts a fault of this kind. A server that never does hangs the test, and only that.
fn until_counted(server: &ServerProcess, name: &str, count: f64) {
    while server.metric(&fault(name)) < count {
        std::thread::yield_now();
    }
}

#[test]
fn a_session_that_fails_is_replaced_and_its_requests_are_tried_again() {
    let (server, repository) = serve("failure", &[]);
    for time in 1..=5 {
        // Stopped in between, so that no request meets two faults.
        let callers = Callers::start(&server);
        repository.fault("fail-once as if the device had gone");
        until_counted(&server, "session_failed", f64::from(time));
        callers.stop();
    }
    assert!(server.metric(r#"batch_processing_retries_total{model="breaking",version="1",variant="fp32"}"#) >= 5.0);
}

#[test]
fn a_run_that_takes_too_long_is_interrupted_and_its_requests_are_tried_again() {
    let (server, repository) = serve("slow", &[]);
    let callers = Callers::start(&server);
    repository.fault("stall-once 250");
    until_counted(&server, "interrupted", 1.0);
    callers.stop();
    assert_eq!(server.metric(&fault("abandoned")), 0.0);
}

#[test]
fn a_worker_that_never_comes_back_is_replaced_and_the_others_go_on() {
    let (server, repository) = serve("hang", &[]);
    let callers = Callers::start(&server);
    repository.fault("hang-once");
    until_counted(&server, "abandoned", 1.0);
    // The other model is served all the while, by both workers once more.
    let mut connection = server.connect();
    for seed in 0..20 {
        let reply = connection.infer(&common::binary_request(&[window(seed)], &json!({ "cache": false })));
        assert_eq!(reply.status, 200);
    }
    callers.stop();
    // It comes back at last, and harms nobody.
    repository.fault("pass");
    let (values, body) = echo(1);
    assert_eq!(connection.ask("breaking", &body).values(0), values);
    server.terminate();
    let (success, log) = server.wait();
    assert!(success, "{log:?}");
}

#[test]
fn a_session_that_hangs_while_it_is_opened_costs_its_worker_and_nobody_else() {
    let (server, repository) = serve("opening", &[("VOLLEY_RUNTIME__RUN_LIMIT", "100ms")]);
    let (_, body) = echo(1);
    // Every run hangs, and so does the warm-up of each session that is opened in place of the last.
    repository.fault("hang");
    let asking: Vec<_> = (0..3)
        .map(|_| {
            let (address, bytes) = (server.http, body.bytes.clone());
            std::thread::spawn(move || {
                Connection::to(address).ask("breaking", &Body { bytes, json_length: None }).status
            })
        })
        .collect();
    until_counted(&server, "abandoned", 3.0);
    let mut connection = server.connect();
    let reply = connection.infer(&common::binary_request(&[window(1)], &json!({ "cache": false })));
    assert_eq!(reply.status, 200, "workers are replaced also where a session is being opened");
    for caller in asking {
        let status = caller.join().expect("it is answered");
        assert!([500, 503].contains(&status), "{status}");
    }
    assert_eq!(connection.send("GET", "/v2/models/breaking/ready", &[], b"").status, 503, "it is taken out");
    repository.fault("pass");
    server.terminate();
    assert!(server.wait().0);
}

#[test]
fn a_member_that_fails_is_left_out_and_the_answer_says_so_and_is_not_kept() {
    let (server, repository) = serve_ensemble("member", &[]);
    let mut connection = server.connect();
    let values = [3.0, 1.0, 4.0, 1.0];
    let body = question(&values, &json!({ "use_ensemble": true }));
    repository.fault("fail-once");
    for members in [1, 2, 2] {
        let reply = connection.ask("breaking", &body);
        assert_eq!(participation(&reply), (members, 2));
        assert_eq!(reply.values(0), values);
    }
    // The second was computed anew, the third came from the cache.
    assert_eq!(server.metric(r#"batch_processing_cache_hits_total{tier="local"}"#), 1.0);
    let series = r#"batch_processing_ensemble_member_failures_total{model="breaking",version="1",member="fp32"}"#;
    assert_eq!(server.metric(series), 1.0);
}

#[test]
fn what_an_ensemble_answers_does_not_depend_on_whose_company_breaks_a_member() {
    let one_worker = [("VOLLEY_RUNTIME__WORKERS", "1"), ("VOLLEY_RUNTIME__RUN_LIMIT", "60s")];
    let (server, repository) = serve_ensemble("company", &one_worker);
    let parameters = json!({ "use_ensemble": true, "cache": false });
    let [good, bad] = [[1.0, 2.0, 3.0, 4.0], [5.0, 666.0, 6.0, 7.0]].map(|values| question(&values, &parameters));
    // The only worker hangs while both come, so that they share the next batch.
    repository.fault("hang-once");
    let (address, first) = (server.http, question(&[0.0; 4], &parameters));
    let first = std::thread::spawn(move || participation(&Connection::to(address).ask("breaking", &first)));
    while repository.fault_file().exists() {
        std::thread::yield_now();
    }
    let mut waiting = [&good, &bad].map(|body| {
        let mut connection = server.connect();
        connection.write("POST", "/v2/models/breaking/infer", &[], &body.bytes);
        connection
    });
    while server.metric(r#"batch_processing_queue_depth{device="cpu",lane="normal"}"#) < 2.0 {
        std::thread::yield_now();
    }
    repository.fault("refuse 666");
    assert_eq!(first.join().expect("it is answered"), (2, 2));
    let together = waiting.each_mut().map(|connection| connection.read().expect("a reply"));
    let retries = r#"batch_processing_retries_total{model="breaking",version="1",variant="ensemble"}"#;
    assert_eq!(server.metric(retries), 2.0, "they shared a batch, which failed");
    let alone = [&good, &bad].map(|body| server.connect().ask("breaking", body));
    for ((together, alone), members) in together.iter().zip(&alone).zip([2, 1]) {
        assert_eq!((participation(together), participation(alone)), ((members, 2), (members, 2)));
        assert_eq!(together.values(0), alone.values(0));
    }
}

#[test]
fn an_ensemble_with_a_member_taken_out_is_ready_and_says_who_answers_until_it_is_whole_again() {
    let (server, repository) = serve_ensemble("member-out", &[]);
    let mut connection = server.connect();
    let body = question(&[3.0, 1.0, 4.0, 1.0], &json!({ "use_ensemble": true, "cache": false }));
    assert_eq!(participation(&connection.ask("breaking", &body)), (2, 2));
    let healthy = r#"batch_processing_model_healthy{model="breaking",version="1",variant="fp32"}"#;
    repository.fault("fail for good");
    while server.metric(healthy) > 0.0 {
        assert_eq!(participation(&connection.ask("breaking", &body)), (1, 2));
    }
    for path in ["/v2/models/breaking/ready", "/v2/health/ready"] {
        assert_eq!(connection.send("GET", path, &[], b"").status, 200, "{path}: what can be asked for is answered");
    }
    let failures = server.metric(&fault("no_session"));
    assert_eq!(participation(&connection.ask("breaking", &body)), (1, 2));
    assert_eq!(server.metric(&fault("no_session")), failures, "who is taken out is not asked");

    repository.fault("pass");
    let patience = Instant::now() + Duration::from_secs(60);
    while participation(&connection.ask("breaking", &body)) != (2, 2) {
        assert!(Instant::now() < patience, "it is tried every second");
    }
    assert_eq!(server.metric(healthy), 1.0);
}

#[test]
fn requests_that_break_their_runs_do_not_take_out_a_model_that_answers_others() {
    let (server, repository) = serve("bad-requests", &[]);
    let mut connection = server.connect();
    let bad = question(&[1.0, 666.0, 2.0, 3.0], &json!({ "cache": false }));
    repository.fault("refuse 666");
    for _ in 0..4 {
        let reply = connection.ask("breaking", &bad);
        assert_eq!(reply.status, 500);
        assert!(reply.error().contains("666 is refused"), "{}", reply.error());
    }
    assert_eq!(server.metric(&fault("session_failed")), 8.0, "each was tried twice, and nothing came in between");
    assert_eq!(connection.send("GET", "/v2/health/ready", &[], b"").status, 200);
    let (values, body) = echo(1);
    assert_eq!(connection.ask("breaking", &body).values(0), values);
}

#[test]
fn a_server_whose_only_worker_hangs_for_good_still_leaves_on_sigterm() {
    let (server, repository) = serve("leave", &[("VOLLEY_RUNTIME__WORKERS", "1"), ("VOLLEY_SHUTDOWN__LINGER", "0s")]);
    let mut connection = server.connect();
    let (_, body) = echo(1);
    repository.fault("hang-once");
    let reply = connection.ask("breaking", &body);
    assert_eq!(reply.status, 200, "the second try is answered: {}", String::from_utf8_lossy(&reply.body));
    assert_eq!(server.metric(&fault("abandoned")), 1.0);
    server.terminate();
    assert!(server.wait().0, "a thread that hangs is not waited for");
}

#[test]
fn a_model_that_keeps_failing_is_taken_out_and_readiness_says_so_until_it_works() {
    let (server, repository) = serve("out", &[]);
    let mut connection = server.connect();
    let (values, body) = echo(1);
    repository.fault("fail for good");
    let mut statuses = Vec::new();
    while statuses.last() != Some(&503) {
        let reply = connection.ask("breaking", &body);
        statuses.push(reply.status);
        assert!(statuses.len() < 10, "{statuses:?}: {}", String::from_utf8_lossy(&reply.body));
    }
    assert!(statuses[..statuses.len() - 1].iter().all(|&status| status == 500), "{statuses:?}");
    let refused = connection.ask("breaking", &body);
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert!(refused.error().contains("taken out"), "{}", refused.error());
    let mut get = |path: &str| connection.send("GET", path, &[], b"").status;
    assert_eq!(get("/v2/models/breaking/ready"), 503);
    assert_eq!(get("/v2/models/cnn_lstm/ready"), 200);
    assert_eq!(get("/v2/health/ready"), 503);
    assert_eq!(get("/v2/health/live"), 200);
    let healthy = r#"batch_processing_model_healthy{model="breaking",version="1",variant="fp32"}"#;
    assert_eq!(server.metric(healthy), 0.0);
    let reply = connection.infer(&common::binary_request(&[window(1)], &json!({})));
    assert_eq!(reply.status, 200, "the other model is not concerned");

    repository.fault("pass");
    let patience = Instant::now() + Duration::from_secs(60);
    while connection.send("GET", "/v2/health/ready", &[], b"").status != 200 {
        assert!(Instant::now() < patience, "it is tried every second");
        std::thread::yield_now();
    }
    assert_eq!(connection.ask("breaking", &body).values(0), values);
    assert_eq!(server.metric(healthy), 1.0);
}

/// Keeps the only worker from its work until [`Repository::fault`] says something else.
fn hang(server: &ServerProcess, repository: &Repository, parameters: &Value) -> JoinHandle<u16> {
    repository.fault("hang-once");
    let (address, body) = (server.http, question(&[9.0; 4], parameters));
    let first = std::thread::spawn(move || Connection::to(address).ask("breaking", &body).status);
    while repository.fault_file().exists() {
        std::thread::yield_now();
    }
    first
}

/// Sends these to the model that breaks, and returns when the server, which has one thread for them, has read all.
fn send_each(server: &ServerProcess, bodies: &[&Body]) -> Vec<Connection> {
    let mut marker = server.connect();
    let mut turn = || assert_eq!(marker.send("GET", "/v2/health/live", &[], b"").status, 200);
    let mut sent = Vec::new();
    for body in bodies {
        let mut connection = server.connect();
        connection.write("POST", "/v2/models/breaking/infer", &[], &body.bytes);
        sent.push(connection);
        turn();
        turn();
    }
    sent
}

const ONE_WORKER: [(&str, &str); 3] =
    [("VOLLEY_RUNTIME__WORKERS", "1"), ("VOLLEY_RUNTIME__RUN_LIMIT", "60s"), ("VOLLEY_HTTP__THREADS", "1")];

#[test]
fn those_who_ask_the_same_of_an_ensemble_at_once_share_an_answer_without_a_member_too() {
    let (server, repository) = serve_ensemble("shared", &ONE_WORKER);
    let first = hang(&server, &repository, &json!({ "use_ensemble": true }));
    let same = question(&[5.0, 666.0, 6.0, 7.0], &json!({ "use_ensemble": true }));
    let waiting = send_each(&server, &[&same; 6]);
    repository.fault("refuse 666");
    assert_eq!(first.join().expect("it is answered"), 200);
    for mut connection in waiting {
        let reply = connection.read().expect("a reply");
        assert_eq!(participation(&reply), (1, 2));
        assert_eq!(reply.values(0), [5.0, 666.0, 6.0, 7.0]);
    }
    let series = r#"batch_processing_ensemble_member_failures_total{model="breaking",version="1",member="fp32"}"#;
    assert_eq!(server.metric(series), 1.0, "it was computed once");
    repository.fault("pass");
    assert_eq!(participation(&server.connect().ask("breaking", &same)), (2, 2), "and not kept");
}

#[test]
fn a_request_that_cannot_be_queued_as_more_urgent_keeps_the_place_it_has() {
    let settings = [&ONE_WORKER[..], &[("VOLLEY_SCHEDULER__LANE_CAPACITY", "1")]].concat();
    let (server, repository) = serve("rank", &settings);
    let first = hang(&server, &repository, &json!({ "cache": false }));
    let asked = |value: f32, priority: &str| question(&[value; 4], &json!({ "priority": priority }));
    let (low, critical, same) = (asked(1.0, "low"), asked(2.0, "critical"), asked(1.0, "critical"));
    let waiting = send_each(&server, &[&low, &critical, &same]);
    repository.fault("pass");
    assert_eq!(first.join().expect("it is answered"), 200);
    for (mut connection, value) in waiting.into_iter().zip([1.0, 2.0, 1.0]) {
        let reply = connection.read().expect("a reply");
        assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
        assert_eq!(reply.values(0), [value; 4]);
    }
    assert_eq!(server.metric(r#"batch_processing_cache_shared_total{tier="local"}"#), 1.0, "the last joined the first");
}

#[test]
fn a_body_counts_until_its_request_is_answered() {
    let settings =
        [&ONE_WORKER[..], &[("VOLLEY_LIMITS__BODY_BYTES", "200"), ("VOLLEY_HTTP__MAX_BODY_BYTES", "200")]].concat();
    let (server, repository) = serve("bodies", &settings);
    let first = hang(&server, &repository, &json!({ "cache": false }));
    let (values, body) = echo(1);
    assert!((101..=200).contains(&body.bytes.len()), "{} bytes: one fits, two do not", body.bytes.len());
    assert_eq!(server.connect().ask("breaking", &body).status, 503);
    repository.fault("pass");
    assert_eq!(first.join().expect("it is answered"), 200);
    assert_eq!(server.connect().ask("breaking", &body).values(0), values);
}

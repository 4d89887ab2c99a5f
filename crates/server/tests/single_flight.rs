//! Many who ask the same at once have it computed once.

mod common;

use common::repository::Repository;
use common::{Connection, ServerProcess, eventually};
use serde_json::json;

/// A server of the model `breaking`, whose only worker hangs in a batch until a test lets it go, so that what is asked meanwhile
/// waits for as long as a test likes.
fn busy(name: &str) -> (ServerProcess, Repository, Connection) {
    let repository = Repository::new(&format!("flight-{name}"));
    repository.add_breaking();
    let fault = repository.fault_file();
    let server = ServerProcess::start(&[
        ("VOLLEY_MODEL_REPOSITORY", repository.path()),
        ("FAULT_OPERATOR_FILE", fault.to_str().expect("a path in UTF-8")),
        ("VOLLEY_RUNTIME__RUN_LIMIT", "600s"),
        ("VOLLEY_RUNTIME__WORKERS", "1"),
    ]);
    repository.fault("hang");
    let blocker = asking(&server, 0.0);
    eventually("the worker's batch", || {
        sum(&server, "batch_processing_cache_misses_total", "local") == 1.0
            && sum(&server, "batch_processing_queue_depth", "") == 0.0
    });
    (server, repository, blocker)
}

/// All series of this name and with these words in their labels, together.
fn sum(server: &ServerProcess, name: &str, words: &str) -> f64 {
    let text = server.metrics();
    let lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(words));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Rows that ran.
fn rows(server: &ServerProcess) -> f64 {
    sum(server, "batch_processing_batch_size_sum", "breaking")
}

/// A connection on which this value is asked for.
fn asking(server: &ServerProcess, value: f32) -> Connection {
    let mut connection = server.connect();
    let input = json!({ "name": "x", "shape": [1, 4], "datatype": "FP32", "data": [value, 1.0, 2.0, 3.0] });
    let body = json!({ "inputs": [input] }).to_string();
    connection.write("POST", "/v2/models/breaking/infer", &[], body.as_bytes());
    connection
}

/// The model's answer is its question.
fn is_answered(mut connection: Connection, value: f32) {
    let reply = connection.read().expect("a reply");
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    assert_eq!(reply.values(0), [value, 1.0, 2.0, 3.0]);
}

/// What was asked before has been read: there is one thread that reads, and it has been round since.
fn let_the_server_read(server: &ServerProcess) {
    for _ in 0..3 {
        assert_eq!(server.connect().send("GET", "/v2/health/live", &[], b"").status, 200);
    }
}

#[test]
fn a_thousand_who_ask_the_same_at_once_have_it_computed_once() {
    let (server, repository, blocker) = busy("thousand");
    let callers: Vec<_> = (0..1000).map(|_| asking(&server, 7.0)).collect();
    let_the_server_read(&server);
    repository.fault("pass");
    is_answered(blocker, 0.0);
    callers.into_iter().for_each(|caller| is_answered(caller, 7.0));
    assert_eq!(rows(&server), 2.0, "the row that kept the worker, and the one row of the thousand");
    let (shared, hits) = (
        sum(&server, "batch_processing_cache_shared_total", "local"),
        sum(&server, "batch_processing_cache_hits_total", "local"),
    );
    assert!(shared + hits == 999.0 && shared > 0.0, "{shared} waited for it, {hits} came after it");
}

#[test]
fn where_the_first_caller_leaves_the_others_are_answered_by_one_computation() {
    let (server, repository, blocker) = busy("first");
    let first = asking(&server, 7.0);
    eventually("the first request in its lane", || sum(&server, "batch_processing_queue_depth", "") == 1.0);
    let others: Vec<_> = (0..50).map(|_| asking(&server, 7.0)).collect();
    let_the_server_read(&server);
    drop(first);
    eventually("the first caller's end", || sum(&server, "batch_processing_failures_total", "cancelled") == 1.0);
    repository.fault("pass");
    is_answered(blocker, 0.0);
    others.into_iter().for_each(|caller| is_answered(caller, 7.0));
    assert_eq!(rows(&server), 2.0, "the row that kept the worker, and the one row of all");
}

#[test]
fn a_computation_that_its_caller_left_when_it_had_begun_serves_those_who_wait_and_those_who_come() {
    let (server, repository, blocker) = busy("begun");
    let others: Vec<_> = (0..3).map(|_| asking(&server, 0.0)).collect();
    let_the_server_read(&server);
    drop(blocker);
    eventually("the first caller's end", || sum(&server, "batch_processing_failures_total", "cancelled") == 1.0);
    repository.fault("pass");
    others.into_iter().for_each(|caller| is_answered(caller, 0.0));
    is_answered(asking(&server, 0.0), 0.0);
    assert_eq!(rows(&server), 1.0, "the row that the first caller began");
}

//! Leaving without losing what was accepted.

mod common;

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use common::{Connection, ServerProcess, binary_request, window};
use serde_json::json;

const CALLERS: usize = 16;

#[test]
fn every_request_sent_before_the_server_says_close_is_answered_after_sigterm() {
    let server = ServerProcess::start(&[]);
    let address = server.http;
    let answered = Arc::new(AtomicUsize::new(0));
    let warm = Arc::new(Barrier::new(CALLERS + 1));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (answered, warm) = (Arc::clone(&answered), Arc::clone(&warm));
            std::thread::spawn(move || {
                let mut connection = Connection::to(address);
                for turn in 0.. {
                    if turn == 3 {
                        warm.wait();
                    }
                    let request = binary_request(&[window(caller * 1000 + turn)], &json!({ "cache": false }));
                    let reply = connection.infer(&request);
                    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
                    answered.fetch_add(1, Ordering::Relaxed);
                    if reply.header("connection") == Some("close") {
                        return turn;
                    }
                }
                unreachable!("the server says close");
            })
        })
        .collect();
    warm.wait();
    server.terminate();
    let turns: Vec<usize> =
        callers.into_iter().map(|caller| caller.join().expect("every request was answered")).collect();
    let (success, log) = server.wait();
    assert!(success, "it ends well: {log:?}");
    assert_eq!(answered.load(Ordering::Relaxed), turns.iter().map(|turn| turn + 1).sum::<usize>());
    assert!(
        log.iter().any(|entry| entry["message"].as_str().is_some_and(|text| text.contains("everything accepted"))),
        "{log:?}"
    );
    assert!(TcpStream::connect(address).is_err(), "nothing listens any more");
}

#[test]
fn an_idle_server_leaves_at_once_and_idle_connections_do_not_keep_it() {
    let server = ServerProcess::start(&[("VOLLEY_SHUTDOWN__LINGER", "0s")]);
    let mut idle = server.connect();
    assert_eq!(idle.send("GET", "/v2/health/live", &[], b"").status, 200);
    server.terminate();
    let (success, _) = server.wait();
    assert!(success);
    assert!(idle.read().is_none(), "the connection was closed");
}

#[test]
fn a_linger_beyond_the_grace_period_still_leaves_time_to_finish_in() {
    let server = ServerProcess::start(&[("VOLLEY_SHUTDOWN__LINGER", "20s"), ("VOLLEY_SHUTDOWN__GRACE", "2s")]);
    let mut idle = server.connect();
    assert_eq!(idle.send("GET", "/v2/health/live", &[], b"").status, 200);
    server.terminate();
    let (success, log) = server.wait();
    assert!(success, "nothing was lost: {log:?}");
}

#[test]
fn half_a_head_does_not_keep_the_server_whatever_was_said_before_it() {
    let server = ServerProcess::start(&[("VOLLEY_SHUTDOWN__LINGER", "0s"), ("VOLLEY_SHUTDOWN__GRACE", "5s")]);
    let mut fresh = server.connect();
    fresh.write_raw(b"POST /v2/mod");
    let mut asked = server.connect();
    assert_eq!(asked.send("GET", "/v2/health/live", &[], b"").status, 200);
    asked.write_raw(b"POST /v2/mod");
    std::thread::sleep(std::time::Duration::from_millis(100));
    server.terminate();
    let (success, log) = server.wait();
    assert!(success, "{log:?}");
}

#[test]
fn a_connection_that_says_half_a_word_and_stays_does_not_keep_the_server() {
    let server = ServerProcess::start(&[]);
    let mut half_open = TcpStream::connect(server.grpc).expect("the listener is there");
    half_open.write_all(b"P").expect("it is connected");
    server.terminate();
    let (success, log) = server.wait();
    assert!(success, "it left only after the grace period: {log:?}");
}

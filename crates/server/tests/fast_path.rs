//! Requests that come in parts, in turns with others, or to a refusal: the connection stays in step, or ends.

mod common;

use std::thread::sleep;
use std::time::Duration;

use common::folder::Folder;
use common::{Body, Connection, ServerProcess, binary_request, eventually, window};
use serde_json::json;
use volley_server::NewKey;

const INFER: &str = "/v2/models/cnn_lstm/infer";
const A_MOMENT: Duration = Duration::from_millis(100);

fn request() -> Body {
    binary_request(&[window(1)], &json!({}))
}

/// The bytes of a request, and how many of them are its head.
fn bytes(body: &Body, more: &str) -> (Vec<u8>, usize) {
    let (length, json) = (body.bytes.len(), body.json_length.expect("it is binary"));
    let head = format!(
        "POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nInference-Header-Content-Length: {json}\r\n{more}\r\n"
    );
    ([head.as_bytes(), &body.bytes].concat(), head.len())
}

fn send_in_parts(connection: &mut Connection, bytes: &[u8], cuts: &[usize]) {
    let mut start = 0;
    for &cut in cuts.iter().chain([&bytes.len()]) {
        connection.write_raw(&bytes[start..cut]);
        start = cut;
        if start < bytes.len() {
            sleep(A_MOMENT);
        }
    }
}

/// Long before the server would close a silent connection.
fn assert_ended(connection: &mut Connection) {
    eventually("the end", || connection.is_answered());
    assert!(connection.read().is_none());
}

#[test]
fn a_request_is_the_same_wherever_it_is_cut() {
    let server = ServerProcess::start(&[]);
    let whole = server.connect().infer(&request());
    assert_eq!(whole.status, 200, "{}", String::from_utf8_lossy(&whole.body));
    let (request, head) = bytes(&request(), "X-Request-Id: mine\r\n");
    let end = request.len();
    // The first goes the short way; within a head, hyper takes over, and has what was read before.
    for cuts in
        [&[][..], &[head], &[head + 1, end - 1], &[head + 5000, head + 5001, head + 9000], &[7], &[head - 1, end - 1]]
    {
        let mut connection = server.connect();
        for _ in 0..2 {
            send_in_parts(&mut connection, &request, cuts);
            let reply = connection.read().expect("a reply");
            assert_eq!((reply.status, &reply.body), (200, &whole.body), "cut at {cuts:?} of {end}");
            assert_eq!(reply.header("x-request-id"), Some("mine"));
            assert!(reply.header("date").is_some_and(|date| date.ends_with(" GMT")));
        }
    }
}

#[test]
fn requests_of_every_kind_take_turns_on_one_connection() {
    let server = ServerProcess::start(&[]);
    let whole = server.connect().infer(&request()).body;
    let mut connection = server.connect();
    let ask = |connection: &mut Connection| {
        assert_eq!(connection.send("GET", "/v2/health/ready", &[], b"").status, 200);
        assert_eq!(connection.infer(&request()).body, whole);
        assert_eq!(connection.send("GET", "/v2/models/none", &[], b"").status, 404);
        assert_eq!(connection.send("POST", INFER, &[], b"{").status, 400);
        let index = connection.send("POST", "/v2/repository/index", &[], b"{}");
        assert_eq!(index.json()[0]["name"], "cnn_lstm");
        assert_eq!(connection.send("PUT", INFER, &[], b"").status, 405);
        assert_eq!(connection.infer(&request()).body, whole);
    };
    ask(&mut connection);
    // Two at once: hyper serves the connection from here on.
    let (request, _) = bytes(&request(), "");
    connection.write_raw(&[&request[..], &request].concat());
    for _ in 0..2 {
        assert_eq!(connection.read().expect("a reply").body, whole);
    }
    ask(&mut connection);
    let mut connection = server.connect();
    assert_eq!(connection.send("GET", "/v2/health/live", &[], b"").status, 200);
    connection.write_raw(
        b"POST /v2/repository/index HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    );
    assert_eq!(connection.read().expect("a reply").json()[0]["name"], "cnn_lstm");
    let reply = connection.send("GET", "/v2/health/live", &[("Connection", "close")], b"");
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    assert_ended(&mut connection);
}

#[test]
fn a_body_that_does_not_come_in_time_is_refused_and_its_connection_closed() {
    let server = ServerProcess::start(&[("VOLLEY_LIMITS__BODY_TIME", "200ms")]);
    let (request, head) = bytes(&request(), "");
    let mut connection = server.connect();
    connection.write_raw(&request[..head + 100]);
    let reply = connection.read().expect("a reply");
    assert_eq!((reply.status, reply.header("connection")), (408, Some("close")), "{}", reply.error());
    assert!(reply.error().contains("limits.body_time"), "{}", reply.error());
    assert_ended(&mut connection);
    let mut connection = server.connect();
    connection.write_raw(&request[..head + 100]);
    connection.finish_sending();
    let reply = connection.read();
    assert!(reply.is_none_or(|reply| reply.status == 400));
    assert_eq!(server.metric("batch_processing_rejections_total{reason=\"malformed\"}") as u64, 2);
}

#[test]
fn a_refusal_comes_at_once_ends_a_connection_that_is_out_of_step_and_keeps_no_room() {
    let settings = [("VOLLEY_LIMITS__BODY_BYTES", "13000"), ("VOLLEY_HTTP__MAX_BODY_BYTES", "13000")];
    let server = ServerProcess::start(&settings);
    let (request, head) = bytes(&request(), "");
    let mut holding = server.connect();
    holding.write_raw(&request[..head + 6000]);
    sleep(A_MOMENT);
    let mut refused = server.connect();
    refused.write_raw(&request[..head + 6500]);
    let reply = refused.read().expect("a reply");
    assert_eq!((reply.status, reply.header("connection")), (503, Some("close")), "{}", reply.error());
    assert!(reply.error().contains("limits.body_bytes") && reply.header("retry-after").is_some());
    // There is room for a small one, which is read, and found wrong.
    let mut small = server.connect();
    assert_eq!(small.send("POST", INFER, &[], &[b'x'; 6000]).status, 400);
    // A whole one that is refused ends nothing.
    small.write_raw(&request);
    assert_eq!(small.read().expect("a reply").status, 503);
    holding.write_raw(&request[head + 6000..]);
    assert_eq!(holding.read().expect("a reply").status, 200);
    small.write_raw(&request);
    assert_eq!(small.read().expect("a reply").status, 200);
    refused.write_raw(&request[head + 6500..]);
    assert_ended(&mut refused);
}

#[test]
fn the_rest_of_a_refused_body_is_no_request() {
    let server = ServerProcess::start(&[("VOLLEY_LIMITS__BODY_TIME", "200ms")]);
    let next = "GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n";
    for header in ["Inference-Header-Content-Length: x", "Origin: http://page"] {
        let mut connection = server.connect();
        let head = format!("POST {INFER} HTTP/1.1\r\nHost: x\r\n{header}\r\nContent-Length: 100\r\n\r\n{{");
        connection.write_raw(head.as_bytes());
        let reply = connection.read().expect("a reply");
        assert_eq!(reply.header("connection"), Some("close"), "{}", reply.error());
        connection.write_raw(next.as_bytes());
        assert_ended(&mut connection);
    }
}

#[test]
fn what_is_plain_does_not_pass_hyper() {
    let server = ServerProcess::start(&[("VOLLEY_LOG__FILTER", "debug")]);
    let mut connection = server.connect();
    assert_eq!(connection.infer(&request()).status, 200);
    assert_eq!(connection.send("GET", "/v2/health/live", &[], b"").status, 200);
    assert_eq!(connection.infer(&request()).status, 200);
    let passes =
        |log: &[serde_json::Value]| log.iter().filter(|entry| entry["message"] == "hyper serves a connection").count();
    server.terminate();
    let (_, log) = server.wait();
    assert_eq!(passes(&log), 0);
    let server = ServerProcess::start(&[("VOLLEY_LOG__FILTER", "debug")]);
    let reply = server.connect().send("GET", "/v2/health/live", &[("Connection", "close")], b"");
    assert_eq!(reply.status, 200);
    server.terminate();
    assert_eq!(passes(&server.wait().1), 1);
}

#[test]
fn who_is_known_is_answered_and_who_is_not_reads_why_at_once() {
    let (folder, key) = (Folder::new("fast-path"), NewKey::make().expect("random numbers"));
    let file = folder.write("volley.toml", &format!("[security.callers.desk]\nkeys = [\"{}\"]\n", key.digest()));
    let server = ServerProcess::start_with(&["--config", &file], &[]);
    let (strange, head) = bytes(&request(), "");
    let (known, _) = bytes(&request(), &format!("X-API-Key: {}\r\n", key.secret()));
    let mut connection = server.connect();
    connection.write_raw(&known);
    assert_eq!(connection.read().expect("a reply").status, 200);
    let (bearer, _) = bytes(&request(), &format!("Authorization: Bearer {}\r\n", key.secret()));
    connection.write_raw(&bearer);
    assert_eq!(connection.read().expect("a reply").status, 200);
    connection.write_raw(&strange[..head + 100]);
    let reply = connection.read().expect("a reply");
    assert_eq!((reply.status, reply.header("connection")), (401, Some("close")), "{}", reply.error());
    assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
    assert_ended(&mut connection);
    let mut connection = server.connect();
    let reply = connection.send("GET", "/v2", &[], b"");
    assert_eq!((reply.status, reply.header("connection")), (401, Some("close")), "{}", reply.error());
    assert_ended(&mut connection);
}

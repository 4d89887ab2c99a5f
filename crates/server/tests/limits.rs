//! What callers may take of what is there for all.

mod common;

use common::grpc::{Client, Nothing};
use common::{Connection, ServerProcess, binary_request, eventually, held, window};
use serde_json::json;

#[test]
fn heads_that_are_too_large_have_too_many_headers_or_drip_are_ended() {
    let server = ServerProcess::start(&[
        ("VOLLEY_LIMITS__HEADER_BYTES", "2000"),
        ("VOLLEY_LIMITS__HEADERS", "10"),
        ("VOLLEY_LIMITS__HEADER_TIME", "300ms"),
    ]);
    let long = "x".repeat(3000);
    assert_eq!(server.connect().send("GET", "/v2/health/live", &[("X-Long", &long)], b"").status, 431);
    let many: Vec<(&str, &str)> = (0..20).map(|_| ("X-One", "1")).collect();
    assert_eq!(server.connect().send("GET", "/v2/health/live", &many, b"").status, 431);
    assert_eq!(server.connect().send("GET", "/v2/health/live", &[], b"").status, 200);
    let mut dripping = server.connect();
    dripping.write_raw(b"GET /v2/health/live HTTP/1.1\r\nHost: vol");
    assert!(dripping.read().is_none(), "the connection is closed without a word");
}

#[test]
fn a_body_that_does_not_come_is_answered_with_what_would_be_right_and_idle_connections_are_closed() {
    let server = ServerProcess::start(&[("VOLLEY_LIMITS__BODY_TIME", "300ms"), ("VOLLEY_LIMITS__IDLE_TIME", "400ms")]);
    let mut slow = server.connect();
    slow.write_raw(b"POST /v2/models/cnn_lstm/infer HTTP/1.1\r\nHost: volley\r\nContent-Length: 100\r\n\r\n{");
    let reply = slow.read().expect("an answer");
    assert_eq!((reply.status, reply.header("connection")), (408, Some("close")));
    assert!(reply.error().contains("limits.body_time"), "{}", reply.error());
    assert!(slow.read().is_none());
    assert!(server.connect().read().is_none(), "silent from the start");
    let mut idle = server.connect();
    assert_eq!(idle.send("GET", "/v2/health/live", &[], b"").status, 200);
    assert!(idle.read().is_none(), "silent after a request");
}

#[test]
fn one_connection_too_many_is_told_so_and_places_are_given_back() {
    let server = ServerProcess::start(&[("VOLLEY_LIMITS__CONNECTIONS_PER_ADDRESS", "2")]);
    let (mut one, mut two) = (server.connect(), server.connect());
    for connection in [&mut one, &mut two] {
        assert_eq!(connection.send("GET", "/v2/health/live", &[], b"").status, 200);
    }
    let mut third = server.connect();
    let reply = third.read().expect("an answer before anything was asked");
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    assert!(reply.error().contains("limits.connections"), "{}", reply.error());
    drop(one);
    eventually("the place of the first", || {
        let mut next = server.connect();
        next.write("GET", "/v2/health/live", &[], b"");
        next.read().is_some_and(|reply| reply.status == 200)
    });
}

#[test]
fn one_request_too_many_is_refused_at_once_and_probes_are_answered_still() {
    let server = ServerProcess::start(&[("VOLLEY_LIMITS__REQUESTS", "1")]);
    let first = || {
        let mut first = server.connect();
        first.write_raw(b"POST /v2/models/cnn_lstm/infer HTTP/1.1\r\nHost: volley\r\nContent-Length: 2\r\n\r\n{");
        first
    };
    let mut holding = held("the first request", first, || {
        let refused = server.connect().send("GET", "/v2", &[], b"");
        refused.status == 503
            && refused.header("retry-after") == Some("1")
            && refused.error().contains("limits.requests")
    });
    assert_eq!(server.connect().send("GET", "/v2/health/live", &[], b"").status, 200);
    holding.write_raw(b"}");
    assert_eq!(holding.read().expect("an answer").status, 400);
    eventually("room", || server.connect().send("GET", "/v2", &[], b"").status == 200);
}

#[test]
fn what_operators_ask_takes_a_place_until_it_is_answered() {
    let server = ServerProcess::start(&[("VOLLEY_LIMITS__REQUESTS", "1")]);
    let change = || {
        let mut change = Connection::to(server.admin);
        change.write_raw(b"PUT /admin/config HTTP/1.1\r\nHost: volley\r\nContent-Length: 2\r\n\r\n{");
        change
    };
    let look = || Connection::to(server.admin).send("GET", "/admin/health", &[], b"").status;
    let mut holding = held("its place", change, || look() == 503);
    assert_eq!(server.connect().send("GET", "/v2", &[], b"").status, 200, "callers have places of their own");
    holding.write_raw(b"}");
    assert_eq!(holding.read().expect("an answer").status, 200);
    eventually("room", || look() == 200);
}

#[test]
fn silent_connections_keep_nobody_from_being_answered() {
    let server = ServerProcess::start(&[]);
    let silent: Vec<Connection> = (0..400).map(|_| server.connect()).collect();
    let mut dripping: Vec<Connection> = (0..100).map(|_| server.connect()).collect();
    for connection in &mut dripping {
        connection.write_raw(b"POST /v2/models/cnn_lstm/infer HTTP/1.1\r\n");
    }
    let mut connection = server.connect();
    for turn in 0..20 {
        assert_eq!(connection.infer(&binary_request(&[window(turn)], &json!({}))).status, 200);
    }
    drop((silent, dripping));
}

const OVERLOADED: &str = r#"batch_processing_rejections_total{reason="overloaded"}"#;

#[test]
fn bodies_for_which_there_is_no_room_are_refused_and_their_callers_are_told_so() {
    let limit = "8000000";
    let server = ServerProcess::start(&[("VOLLEY_LIMITS__BODY_BYTES", limit), ("VOLLEY_HTTP__MAX_BODY_BYTES", limit)]);
    let head = |length: usize| {
        format!("POST /v2/models/cnn_lstm/infer HTTP/1.1\r\nHost: volley\r\nContent-Length: {length}\r\n\r\n")
    };
    let mut announcing = server.connect();
    announcing.write_raw(head(8_000_000).as_bytes());
    let request = binary_request(&[window(1)], &json!({}));
    assert_eq!(server.connect().infer(&request).status, 200, "what is only announced keeps nobody out");

    let first = || {
        let (mut first, most) = (server.connect(), vec![b' '; 7_990_000]);
        first.write_raw(&[head(most.len() + 1).as_bytes(), &most].concat());
        first
    };
    let mut holding = held("the first body", first, || server.connect().infer(&request).status == 503);
    let refused = server.connect().infer(&request);
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert!(refused.error().contains("limits.body_bytes"), "{}", refused.error());
    let before = server.metric(OVERLOADED);
    assert!(before >= 2.0);

    // Larger than what sockets take in by themselves.
    let large = vec![b' '; 7_000_000];
    let mut sending = server.connect();
    assert_eq!(sending.send("POST", "/v2/models/cnn_lstm/infer", &[], &large).status, 503);
    assert_eq!(sending.send("GET", "/v2", &[], b"").status, 200, "all of it was read");
    let mut chunked = server.connect();
    chunked.write_raw(b"POST /v2/models/cnn_lstm/infer HTTP/1.1\r\nHost: volley\r\nTransfer-Encoding: chunked\r\n\r\n");
    chunked.write_raw(&[b"5000\r\n", &vec![b' '; 0x5000][..], b"\r\n0\r\n\r\n"].concat());
    assert_eq!(chunked.read().expect("an answer").status, 503);
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packer, &large[..1_000_000]).expect("memory");
    let packed = packer.finish().expect("memory");
    let gzip = [("Content-Encoding", "gzip")];
    assert_eq!(server.connect().send("POST", "/v2/models/cnn_lstm/infer", &gzip, &packed[..]).status, 503);
    let load = server.connect().send("POST", "/v2/repository/index", &[], &vec![b' '; 20_000]);
    assert_eq!((load.status, load.header("retry-after")), (503, Some("1")));
    assert_eq!(server.metric(OVERLOADED), before + 3.0);
    assert_eq!(server.connect().send("POST", "/v2/repository/index", &[], b"{}").status, 200, "there is room for it");

    holding.write_raw(b" ");
    assert_eq!(holding.read().expect("an answer").status, 400);
    assert_eq!(server.connect().infer(&request).status, 200);
    drop(announcing);
}

#[test]
fn fewer_bytes_of_bodies_than_the_largest_has_are_refused_at_start() {
    let text = ServerProcess::refusal(&[("VOLLEY_LIMITS__BODY_BYTES", "16000000")]);
    assert!(text.contains("limits.body_bytes: 16000000; expected at least http.max_body_bytes"), "{text}");
}

#[test]
fn probes_take_no_place_of_requests_however_long_they_last() {
    let server = ServerProcess::start(&[("VOLLEY_LIMITS__REQUESTS", "1")]);
    let mut client = Client::to(server.grpc);
    client.begin("ServerLive");
    client.begin("ServerReady");
    assert_eq!(client.call("ServerLive", &[], &Nothing {}).code, 0);
    assert_eq!(client.call("ServerMetadata", &[], &Nothing {}).code, 0);
    assert_eq!(server.connect().send("GET", "/v2", &[], b"").status, 200);
}

#[test]
fn operators_get_in_where_callers_take_all_there_is_and_can_undo_any_limit() {
    let server = ServerProcess::start(&[("VOLLEY_LIMITS__CONNECTIONS", "2"), ("VOLLEY_LIMITS__REQUESTS", "1")]);
    let mut callers: Vec<_> = (0..2).map(|_| server.connect()).collect();
    for caller in &mut callers {
        caller.write_raw(b"POST /v2/models/cnn_lstm/infer HTTP/1.1\r\nHost: volley\r\nContent-Length: 100\r\n\r\n{");
    }
    eventually("a third is turned away", || server.connect().read().is_some_and(|reply| reply.status == 503));
    assert!(server.metrics().contains("batch_processing"));
    let say = |settings: serde_json::Value| {
        let headers = [("Content-Type", "application/json"), ("Connection", "close")];
        Connection::to(server.admin).send("PATCH", "/admin/config", &headers, settings.to_string().as_bytes())
    };
    let least = json!({ "http": { "max_body_bytes": 1 }, "limits": { "body_bytes": 1, "headers": 8 } });
    assert_eq!(say(least).status, 200);
    let refused = say(json!({ "limits": { "headers": 7 } }));
    assert_eq!(refused.status, 400);
    assert!(refused.error().contains("limits.headers: 7; expected at least 8"), "{}", refused.error());
    assert_eq!(say(json!({ "http": { "max_body_bytes": null }, "limits": null })).status, 200);
}

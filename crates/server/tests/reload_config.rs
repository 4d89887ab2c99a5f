//! Changing the configuration while requests are answered.

mod common;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::folder::Folder;
use common::{Connection, Reply, ServerProcess, binary_request, eventually, window};
use serde_json::{Value, json};

fn setting(server: &ServerProcess, path: &str) -> Value {
    let config = Connection::to(server.admin).send("GET", "/admin/config", &[], b"").json();
    config["settings"][path]["value"].clone()
}

fn say(server: &ServerProcess, method: &str, settings: &Value) -> Reply {
    Connection::to(server.admin).send(method, "/admin/config", &[], settings.to_string().as_bytes())
}

#[test]
fn a_changed_file_is_in_force_by_itself_or_at_a_signal_and_a_bad_one_changes_nothing() {
    let folder = Folder::new("reload");
    let file = folder.write("volley.toml", "[limits]\nheaders = 40\n");
    let server = ServerProcess::start_with(&["--config", &file], &[]);
    assert_eq!(setting(&server, "limits.headers"), 40);

    folder.write("volley.toml", "[limits]\nheaders = 41\nrequests = 9\n");
    eventually("the new file", || setting(&server, "limits.headers") == 41);
    assert_eq!(setting(&server, "limits.requests"), 9);

    folder.write("volley.toml", "[limits]\nheaders = 42\nrequests = 0\n");
    server.signal("HUP");
    folder.write("volley.toml", "[limits]\nheaders = 43\n[http]\nthreads = 2\n");
    server.signal("HUP");
    folder.write("volley.toml", "[limits]\nheaders = 44\n");
    server.signal("HUP");
    eventually("the last file", || setting(&server, "limits.headers") == 44);
    assert_eq!(setting(&server, "limits.requests"), 8192, "what the file says no more is what it was by default");

    server.terminate();
    let (_, log) = server.wait();
    let changes: Vec<String> = log
        .iter()
        .filter(|entry| entry["message"] == "setting changed" && entry["path"] == "limits.headers")
        .map(|entry| {
            format!("{} -> {}", entry["before"].as_str().expect("text"), entry["after"].as_str().expect("text"))
        })
        .collect();
    assert_eq!(changes, ["40 -> 41", "41 -> 44"], "one line a change, and none for what was refused");
}

#[test]
fn a_file_that_becomes_a_pipe_is_refused_and_not_waited_for() {
    let folder = Folder::new("reload-pipe");
    let file = folder.write("volley.toml", "[limits]\nheaders = 40\n");
    let server = ServerProcess::start_with(&["--config", &file], &[]);
    std::fs::remove_file(&file).expect("it is there");
    assert!(Command::new("mkfifo").arg(&file).status().expect("there is mkfifo").success());
    server.signal("HUP");
    assert_eq!(say(&server, "PATCH", &json!({ "limits": { "requests": 9 } })).status, 200);
    assert_eq!((setting(&server, "limits.headers"), setting(&server, "limits.requests")), (40.into(), 9.into()));
    server.terminate();
    let (_, log) = server.wait();
    let refused = |entry: &&Value| {
        entry["reason"].as_str().is_some_and(|text| text.contains("the configuration file is no file any more"))
    };
    assert!(log.iter().any(|entry| refused(&entry)), "{log:?}");
}

#[test]
fn an_update_is_all_or_nothing_and_a_refusal_says_why() {
    let server = ServerProcess::start(&[]);
    let reply = say(&server, "PATCH", &json!({ "limits": { "headers": 41, "requests": 0 } }));
    assert_eq!(reply.status, 400);
    assert!(
        reply.error().contains("admin API: limits.requests: 0; expected a whole number of at least 1"),
        "{}",
        reply.error()
    );
    let reply = say(&server, "PATCH", &json!({ "limits": { "headers": 41 }, "http": { "port": 9 } }));
    assert_eq!(reply.status, 409);
    assert!(reply.error().contains("restart") && reply.error().contains("http.port: 0 -> 9"), "{}", reply.error());
    let dotted = say(&server, "PATCH", &json!({ "limits.headers": 41 }));
    assert!(dotted.error().contains("a table in a table: { limits = { headers = ... }}"), "{}", dotted.error());
    let absent = json!({ "limits": { "headers": 41 }, "models": { "cnn_lstm": { "variants": ["fp64"] } } });
    let reply = say(&server, "PATCH", &absent);
    assert_eq!(reply.status, 400);
    assert!(reply.error().contains("has no `fp64`"), "{}", reply.error());
    assert_eq!(setting(&server, "limits.headers"), 64, "nothing of any of them was done");

    let reply = say(&server, "PATCH", &json!({ "limits": { "headers": 41 }, "log": { "filter": "debug" } }));
    assert_eq!(reply.status, 200, "{reply:?}");
    let of_headers = json!({ "path": "limits.headers", "before": "64", "after": "41" });
    assert_eq!(reply.json()["changes"][0], of_headers);
    assert_eq!(server.connect().send("POST", "/v2/models/absent/infer", &[], b"{}").status, 400);
    assert_eq!(say(&server, "PATCH", &json!({ "limits": { "headers": null } })).status, 200);
    assert_eq!((setting(&server, "limits.headers"), setting(&server, "log.filter")), (64.into(), "debug".into()));
    assert_eq!(say(&server, "PUT", &json!({})).status, 200);
    assert_eq!(setting(&server, "log.filter"), "info", "what was said before is taken back");
    server.terminate();
    let (_, log) = server.wait();
    assert!(log.iter().any(|entry| entry["level"] == "DEBUG"), "the filter was in force");
    let refusals = log
        .iter()
        .filter(|entry| entry["message"].as_str().is_some_and(|text| text.starts_with("configuration refused")));
    assert_eq!(refusals.count(), 4);
}

#[test]
fn settings_of_a_model_and_limits_are_in_force_for_the_next_request() {
    let server = ServerProcess::start(&[("VOLLEY_MODELS__CNN_LSTM__VARIANTS", "fp32")]);
    let ask = || server.connect().infer(&binary_request(&[window(1)], &json!({ "variant": "int8" })));
    assert_eq!(ask().status, 400);
    let both = json!({ "models": { "cnn_lstm": { "variants": ["fp32", "int8"] } } });
    let reply = say(&server, "PATCH", &both);
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(ask().status, 200);
    assert_eq!(say(&server, "PATCH", &json!({ "http": { "max_body_bytes": 1000 } })).status, 200);
    assert_eq!(ask().status, 413);
}

#[test]
fn updates_under_load_cost_no_request_its_answer() {
    let server = ServerProcess::start(&[]);
    let (address, done) = (server.http, Arc::new(AtomicBool::new(false)));
    let caller = {
        let done = Arc::clone(&done);
        std::thread::spawn(move || {
            let (mut connection, mut answered) = (Connection::to(address), 0);
            while !done.load(Ordering::Relaxed) {
                let reply = connection.infer(&binary_request(&[window(answered)], &json!({})));
                assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
                answered += 1;
            }
            answered
        })
    };
    for turn in 0..60 {
        let reply = match turn % 3 {
            0 => say(
                &server,
                "PATCH",
                &json!({ "limits": { "headers": 40 + turn, "body_time": format!("{}s", 10 + turn) } }),
            ),
            1 => say(&server, "PATCH", &json!({ "security": { "allow_anonymous": turn % 2 == 0 } })),
            _ => say(&server, "PATCH", &json!({ "limits": { "headers": 0 } })),
        };
        assert_eq!(reply.status, if turn % 3 == 2 { 400 } else { 200 }, "{reply:?}");
    }
    done.store(true, Ordering::Relaxed);
    assert!(caller.join().expect("every request was answered") > 0);
}

#[test]
fn everything_that_is_wrong_with_an_update_is_told_however_much_it_is() {
    let server = ServerProcess::start(&[]);
    let wrong: Vec<String> = (0..100).map(|number| format!("no_such_setting_{number}")).collect();
    let wrong: serde_json::Map<String, Value> = wrong.into_iter().map(|name| (name, 1.into())).collect();
    let reply = say(&server, "PATCH", &json!({ "limits": wrong }));
    assert_eq!(reply.status, 400);
    for number in [0, 50, 99] {
        assert!(reply.error().contains(&format!("limits.no_such_setting_{number}:")), "{}", reply.error());
    }
}

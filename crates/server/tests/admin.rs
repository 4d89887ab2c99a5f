//! What operators ask of a running server.

mod common;

use common::{Connection, ServerProcess};

#[test]
fn operators_read_the_configuration_see_health_in_detail_and_load_models() {
    let server = ServerProcess::start(&[("VOLLEY_LIMITS__HEADERS", "50")]);
    let mut admin = Connection::to(server.admin);
    let config = admin.send("GET", "/admin/config", &[], b"").json();
    let setting = &config["settings"]["limits.headers"];
    assert_eq!(*setting, serde_json::json!({ "value": 50, "from": "VOLLEY_LIMITS__HEADERS", "live": true }));
    assert_eq!(config["profile"], "development");

    let health = admin.send("GET", "/admin/health", &[], b"");
    assert_eq!(health.status, 200);
    let health = health.json();
    assert_eq!((&health["phase"], &health["ready"]), (&"serving".into(), &true.into()));
    assert_eq!(health["variants"][0]["model"], "cnn_lstm");
    assert_eq!(health["variants"][0]["takes_requests"], true);

    assert_eq!(admin.send("POST", "/v2/repository/models/cnn_lstm/unload", &[], b"").status, 200);
    assert_eq!(server.connect().send("GET", "/v2/models/cnn_lstm/ready", &[], b"").status, 404);
    assert_eq!(admin.send("POST", "/v2/repository/models/cnn_lstm/load", &[], b"").status, 200);
    assert_eq!(server.connect().send("GET", "/v2/models/cnn_lstm/ready", &[], b"").status, 200);
    assert_eq!(
        server.connect().send("GET", "/admin/config", &[], b"").status,
        404,
        "operators have a listener of their own"
    );
}

#[test]
fn what_the_listeners_for_operators_and_metrics_do_not_answer_they_say_with_what_they_do() {
    let server = ServerProcess::start(&[]);
    let refusal = |address, method: &str, path: &str| {
        let reply = Connection::to(address).send(method, path, &[], b"");
        let error = reply.json()["error"].as_str().expect("a text").to_owned();
        (reply.status, error)
    };
    let (status, error) = refusal(server.admin, "GET", "/v2/health/live");
    assert_eq!(status, 404);
    for path in ["/admin/config", "/admin/health", "/admin/cache/invalidate", "/v2/repository/models/{model}/load"] {
        assert!(error.contains(path), "{error}");
    }
    let elsewhere = "nothing answers GET /; there is /metrics".to_owned();
    assert_eq!(refusal(server.metrics, "GET", "/"), (404, elsewhere));
    assert_eq!(refusal(server.admin, "DELETE", "/admin/config").0, 405);
    assert_eq!(refusal(server.metrics, "POST", "/metrics").0, 405);
}

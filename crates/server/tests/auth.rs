//! Who may do what.

mod common;

use std::process::Command;

use common::folder::Folder;
use common::{Connection, ServerProcess, binary_request, window};
use serde_json::json;
use volley_server::NewKey;

fn config(arguments: &[&str], variables: &[(&str, &str)]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_volley-server"));
    command.arg("config").args(arguments).envs(variables.iter().copied());
    let output = command.current_dir(std::env::temp_dir()).output().expect("the server was built");
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn a_caller_does_what_its_scopes_and_its_rate_allow_and_no_secret_is_shown_anywhere() {
    let [desk, hasty, operator, stranger] = [(); 4].map(|()| NewKey::make().expect("random numbers"));
    let folder = Folder::new("auth");
    let file = folder.write(
        "volley.toml",
        &format!(
            "[log]\nfilter = \"trace\"\n[security.callers.desk]\nkeys = [\"{}\"]\n\
             [security.callers.hasty]\nkeys = [\"{}\"]\nrequests_per_second = 1\nburst = 2\n\
             [security.callers.operator]\nkeys = [\"{}\"]\nscopes = [\"admin\", \"observe\"]\n",
            desk.digest(),
            hasty.digest(),
            operator.digest()
        ),
    );
    let server = ServerProcess::start_with(&["--config", &file], &[]);
    let bearer = |key: &NewKey| format!("Bearer {}", key.secret());
    let status = |address, method, path: &str, headers: &[(&str, &str)]| {
        Connection::to(address).send(method, path, headers, b"").status
    };
    let load = "/v2/repository/models/cnn_lstm/load";

    assert_eq!(status(server.http, "GET", "/v2/health/ready", &[]), 200, "probes have no keys");
    let reply = server.connect().send("GET", "/v2/models/cnn_lstm", &[], b"");
    assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some("Bearer")));
    assert!(reply.error().contains("Authorization: Bearer"), "{}", reply.error());
    let mistaken = bearer(&stranger);
    assert_eq!(status(server.http, "GET", "/v2", &[("Authorization", &mistaken)]), 401);

    let request = binary_request(&[window(1)], &json!({}));
    let length = request.json_length.expect("binary").to_string();
    let ask = |key: &NewKey| {
        let headers = [("x-api-key", key.secret()), ("Inference-Header-Content-Length", length.as_str())];
        server.connect().send("POST", "/v2/models/cnn_lstm/infer", &headers, &request.bytes)
    };
    assert_eq!(ask(&desk).status, 200);
    let refused = ask(&operator);
    assert_eq!(refused.status, 403);
    assert!(refused.error().contains("`operator` has not the scope `infer`"), "{}", refused.error());
    let mut connection = server.connect();
    let many = format!("GET /v2 HTTP/1.1\r\nHost: volley\r\nx-api-key: {}\r\n\r\n", hasty.secret()).repeat(20);
    connection.write_raw(many.as_bytes());
    let replies: Vec<_> = (0..20).map(|_| connection.read().expect("an answer to each")).collect();
    assert_eq!(replies[0].status, 200);
    let too_often =
        replies.iter().find(|reply| reply.status == 429).expect("twenty at once are more than one a second");
    assert_eq!(too_often.header("retry-after"), Some("1"));
    assert!(too_often.error().contains("`hasty` asks more often"), "{}", too_often.error());

    let (of_desk, of_operator) = (bearer(&desk), bearer(&operator));
    assert_eq!(status(server.http, "POST", load, &[("Authorization", &of_desk)]), 403);
    assert_eq!(status(server.http, "POST", load, &[("Authorization", &of_operator)]), 200);
    for (address, path) in [(server.metrics, "/metrics"), (server.admin, "/admin/config")] {
        assert_eq!(status(address, "GET", path, &[]), 401, "{path}");
        assert_eq!(status(address, "GET", path, &[("Authorization", &of_desk)]), 403, "{path}");
        assert_eq!(status(address, "GET", path, &[("Authorization", &of_operator)]), 200, "{path}");
    }

    let mut shown = vec![config(&["show", "--config", &file], &[]).1];
    for (address, path) in [(server.metrics, "/metrics"), (server.admin, "/admin/config")] {
        let reply = Connection::to(address).send("GET", path, &[("Authorization", &of_operator)], b"");
        shown.push(String::from_utf8_lossy(&reply.body).into_owned());
    }
    server.terminate();
    let (_, log) = server.wait();
    shown.extend(log.iter().map(ToString::to_string));
    for key in [&desk, &hasty, &operator, &stranger] {
        let digest = key.digest();
        for text in &shown {
            assert!(!text.contains(key.secret()) && !text.contains(&digest["sha256:".len()..]), "{text}");
        }
    }
    assert!(shown[0].contains("security.callers.desk.keys = (secret)"), "{}", shown[0]);
}

#[test]
fn nobody_from_outside_is_let_in_unasked_and_the_refusal_says_what_to_do() {
    let (content, text) = config(&["check", "--host", "0.0.0.0"], &[]);
    assert!(!content);
    assert!(text.contains("--host: http.host: 0.0.0.0 can be reached from other machines"), "{text}");
    assert!(
        text.contains("volley-server key new NAME") && text.contains("VOLLEY_SECURITY__ALLOW_ANONYMOUS=true"),
        "{text}"
    );
    assert!(config(&["check", "--host", "0.0.0.0"], &[("VOLLEY_SECURITY__ALLOW_ANONYMOUS", "true")]).0);
    let admin = [("VOLLEY_SECURITY__ALLOW_ANONYMOUS", "true"), ("VOLLEY_ADMIN__HOST", "::")];
    let (content, text) = config(&["check"], &admin);
    assert!(!content && text.contains("VOLLEY_ADMIN__HOST: admin.host: ::"), "{text}");
}

#[test]
fn a_new_key_comes_with_the_lines_that_let_it_in() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_volley-server")).args(["key", "new", "desk"]).output().expect("built");
    let [text, said] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("text"));
    let key = said.lines().find(|line| line.starts_with("volley_")).unwrap_or_else(|| panic!("no key in {said}"));
    assert!(!text.contains(key), "{text}");
    let folder = Folder::new("key");
    let appended = folder.write("volley.toml", &format!("[limits]\nheaders = 40{text}"));
    let (content, told) = config(&["check", "--config", &appended, "--host", "0.0.0.0"], &[]);
    assert!(content, "{told}");
}

#[test]
fn what_is_wrong_with_a_caller_is_told_without_its_secrets() {
    let folder = Folder::new("callers");
    let file = folder.write(
        "volley.toml",
        "[security.callers.one]\nkeys = [\"hunter2\"]\nscopes = []\n[security.callers.two]\nkyes = [\"hunter2\"]\n\
         [security.callers.three]\nkeys = \"hunter2\"\n[security.callers.four]\ncertificate = \"desk\"\nburst = 1\n",
    );
    let (content, text) = config(&["check", "--config", &file], &[]);
    assert!(!content && !text.contains("hunter2"), "{text}");
    for line in [
        ":2: security.callers.one.keys: one is no digest",
        ":3: security.callers.one.scopes: empty",
        ":5: security.callers.two.kyes: there is no such setting; did you mean `keys`?",
        ":7: security.callers.three.keys: the value is not shown; expected a list",
        ":9: security.callers.four.certificate: no certificate can be shown",
        ":10: security.callers.four.burst: given without requests_per_second",
    ] {
        assert!(text.contains(line), "no {line:?} in {text}");
    }
}

#[test]
fn a_key_of_two_callers_is_refused_because_it_would_be_known_as_one_of_them() {
    let folder = Folder::new("one-key");
    let digest = "sha256:".to_owned() + &"ab".repeat(32);
    let caller = |name: &str, digest: &str| format!("[security.callers.{name}]\nkeys = [\"{digest}\", \"{digest}\"]\n");
    let upper = digest.replace("ab", "AB");
    let file = folder.write("volley.toml", &[caller("one", &digest), caller("two", &upper)].concat());
    let (content, text) = config(&["check", "--config", &file], &[]);
    assert!(!content && text.contains(":4: security.callers.two.keys: one is a key of `one` as well"), "{text}");
    assert!(!text.contains("abab") && !text.contains("ABAB"), "{text}");
    let file = folder.write("volley.toml", &caller("one", &digest));
    assert!(config(&["check", "--config", &file], &[]).0, "given twice, it is one caller's still");
}

#[test]
fn a_web_page_is_nobody_until_it_shows_a_key() {
    let server = ServerProcess::start(&[]);
    let origin = ("Origin", "http://127.0.0.1:8003");
    let unload = |headers: &[(&str, &str)]| {
        Connection::to(server.admin).send("POST", "/v2/repository/models/cnn_lstm/unload", headers, b"")
    };
    let refused = unload(&[origin]);
    assert_eq!(refused.status, 401);
    assert!(refused.error().starts_with("header Origin: a web page asks"), "{}", refused.error());
    assert_eq!(server.connect().send("GET", "/v2/health/ready", &[origin], b"").status, 200);
    assert_eq!(unload(&[]).status, 200);

    let key = NewKey::make().expect("random numbers");
    let folder = Folder::new("auth-page");
    let caller = format!("[security.callers.page]\nkeys = [\"{}\"]\nscopes = [\"admin\"]\n", key.digest());
    let server = ServerProcess::start_with(&["--config", &folder.write("volley.toml", &caller)], &[]);
    let headers = [origin, ("x-api-key", key.secret())];
    let path = "/v2/repository/models/cnn_lstm/unload";
    assert_eq!(Connection::to(server.admin).send("POST", path, &headers, b"").status, 200);
}

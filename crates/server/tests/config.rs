//! Reading the configuration: its layers, what is wrong with it, and what it comes to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use volley_server::{Override, Settings, changes, json_schema, reference};

/// A file of a test's own; removed when dropped.
struct File(PathBuf);

impl File {
    fn of(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("volley-config-{}-{name}.toml", std::process::id()));
        fs::write(&path, text).expect("the temporary folder is writable");
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn read(file: &Path, profile: Option<&str>) -> Result<Settings, String> {
    Settings::read(Some(file), profile, Vec::new()).map_err(|error| error.to_string())
}

/// Runs `volley-server config ...` with nothing but these variables; what it printed, and whether it was content.
fn config(arguments: &[&str], variables: &[(&str, &str)]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_volley-server"));
    command.arg("config").args(arguments).envs(variables.iter().copied());
    let output = command.current_dir(std::env::temp_dir()).output().expect("the server was built");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).expect("text"))
}

#[test]
fn everything_wrong_is_told_at_once_with_its_place_its_value_and_what_would_be_right() {
    let file = File::of(
        "wrong",
        "[http]\nport = 70000\nprot = 1\n\n[log]\nfilter = \"inof\"\n\n[scheduler]\nmax_wait = 5\n\n[profile.production.runtime]\n\
         providers = [\"gpu\"]\nworkers = 0\n",
    );
    let path = file.0.display().to_string();
    let variables = [("VOLLEY_CACHE__ENABLED", "maybe"), ("VOLLEY_HTPP__PORT", "1")];
    let (content, text) =
        config(&["check", "--config", &path, "--http-port", "x", "--profile", "production"], &variables);
    assert!(!content);
    for line in [
        "wrong in 9 places".to_owned(),
        format!("{path}:2: http.port: 70000; expected a whole number from 0 to 65535"),
        format!("{path}:3: http.prot: there is no such setting; did you mean `port`?"),
        format!("{path}:6: log.filter: log filter \"inof\": \"inof\" is no level"),
        format!("{path}:9: scheduler.max_wait: 5; expected a time with its unit, such as \"500us\""),
        format!("{path}:12: runtime.providers: `gpu` is none; expected tensorrt, cuda or cpu"),
        format!("{path}:13: runtime.workers: 0; expected a whole number of at least 1"),
        "VOLLEY_CACHE__ENABLED: cache.enabled: \"maybe\"; expected true or false".to_owned(),
        "VOLLEY_HTPP__PORT: htpp: there is no such setting; did you mean `http`?".to_owned(),
        "--http-port: http.port: \"x\"; expected a whole number from 0 to 65535".to_owned(),
    ] {
        assert!(text.contains(&line), "no {line:?} in {text}");
    }
    for word in ["u16", "usize", "enum", "struct", "variant", "serde", "NonZero"] {
        assert!(!text.contains(word), "{word:?} in {text}");
    }
}

#[test]
fn what_is_wrong_is_told_line_by_line_then_by_variable_and_option() {
    let file =
        File::of("order", "[scheduler]\nmax_wait = 5\n[log]\nfilter = \"inof\"\n[http]\nport = 70000\nprot = 1\n");
    let path = file.0.display().to_string();
    let (_, text) = config(&["check", "--config", &path, "--workers", "x"], &[("VOLLEY_CACHE__ENABLED", "maybe")]);
    let origins = [":2: scheduler", ":4: log", ":6: http", ":7: http", "VOLLEY_CACHE__ENABLED", "--workers"];
    let places: Vec<_> = origins.iter().map(|origin| text.find(origin).unwrap_or_else(|| panic!("{text}"))).collect();
    assert!(places.is_sorted(), "{text}");
}

#[test]
fn who_has_read_enough_of_what_is_printed_may_stop() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_volley-server"));
    let output = command.args(["config", "schema"]).stdout(writer).output().expect("the server was built");
    assert_eq!((output.status.success(), output.stderr), (true, Vec::new()));
}

#[test]
fn every_place_where_a_file_is_not_toml_is_told_by_line() {
    let file = File::of("torn", "[http]\nport = = 1\n[log]\nfilter = \"info\n");
    let message = read(&file.0, None).expect_err("it is not TOML");
    assert!(message.contains(".toml:2: this is not TOML"), "{message}");
    assert!(message.contains(".toml:4: this is not TOML"), "{message}");
}

#[test]
fn each_layer_goes_before_those_above_it_and_show_says_which_one_spoke() {
    let file = File::of(
        "layers",
        "[http]\nport = 1\nmax_body_bytes = 1000\n[scheduler]\nmax_wait = \"500us\"\n[metrics]\nport = 2\n\
         [profile.staging.metrics]\nport = 3\n[profile.production.metrics]\nport = 4\n[models.net]\nvariants = [\"fp32\"]\n",
    );
    let path = file.0.display().to_string();
    let variables =
        [("VOLLEY_HTTP__MAX_BODY_BYTES", "2000"), ("VOLLEY_HTTP__PORT", "8"), ("VOLLEY_PROFILE", "staging")];
    let (content, text) = config(&["show", "--config", &path, "--http-port", "7"], &variables);
    assert!(content, "{text}");
    let said = |setting: &str, origin: &str| {
        let line = text.lines().find(|line| line.starts_with(setting)).unwrap_or_else(|| panic!("{setting}: {text}"));
        assert_eq!(line.split_once("  # ").map(|(_, origin)| origin), Some(origin), "{line}");
    };
    said("http.port = 7", "--http-port");
    said("http.max_body_bytes = 2000", "VOLLEY_HTTP__MAX_BODY_BYTES");
    said("scheduler.max_wait = \"500us\"", &format!("{path}:5"));
    said("metrics.port = 3", &format!("{path}:9"));
    said("models.net.variants = [\"fp32\"]", &format!("{path}:13"));
    said("log.format = \"json\"", "profile staging");
    said("cache.enabled = true", "default");
}

#[test]
fn a_setting_that_cannot_be_guessed_is_answered_with_those_there_are() {
    let file = File::of("unknown", "[shutdown]\ncompletely_different = \"hush\"\n");
    let message = read(&file.0, None).expect_err("there is no such setting");
    assert!(message.contains("expected one of: grace, linger"), "{message}");
    assert!(!message.contains("hush"), "what is misspelt may be a secret: {message}");
}

#[test]
fn a_value_in_the_place_of_a_table_that_holds_secrets_is_not_shown() {
    for text in [
        "[cache]\nredis = \"redis://:hush@redis.example\"\n",
        "[[cache.redis]]\npassword = \"hush\"\n",
        "[security.callers]\nalice = \"hush\"\n",
        "[[security.callers]]\nkeys = [\"hush\"]\n",
    ] {
        let file = File::of("secrets", text);
        let message = read(&file.0, None).expect_err("a table is expected");
        assert!(message.contains("expected") && !message.contains("hush"), "{message}");
    }
}

#[test]
fn what_other_profiles_say_is_checked_before_it_is_needed() {
    let file = File::of("profiles", "[profile.production.http]\nport = -1\n[profile.canary]\n");
    let message = read(&file.0, None).expect_err("the sections are wrong");
    assert!(message.contains(":2: http.port: -1"), "{message}");
    assert!(message.contains("\"canary\"; expected one of: development, staging, production"), "{message}");
    let (content, text) = config(&["check", "--profile", "prod"], &[]);
    assert!(!content && text.contains("--profile: profile: \"prod\"; expected one of"), "{text}");
}

#[test]
fn a_file_that_is_named_must_exist() {
    let message = read(Path::new("/nowhere/volley.toml"), None).expect_err("it does not exist");
    assert!(message.contains("/nowhere/volley.toml: the configuration file does not exist"), "{message}");
}

#[test]
fn a_section_whose_own_rules_are_broken_is_told_by_the_line_of_its_setting() {
    let file = File::of("model", "[models.net]\nmax_batch = 4\nbatch_sizes = [1, 8]\n");
    let message = read(&file.0, None).expect_err("a size is beyond the largest batch");
    assert!(message.contains("models.net: batch_sizes: the largest is 8; expected it to be max_batch, 4"), "{message}");
}

#[test]
fn changes_between_two_readings_are_told_by_setting_and_an_unchanged_file_has_none() {
    let file = File::of("changes", "[http]\nport = 1\n[models.net]\nmax_batch = 4\n");
    let port = Override { option: "--http-port", path: "http.port", text: "9".into() };
    let before = Settings::read(Some(&file.0), None, vec![port]).expect("it is right");
    assert_eq!(changes(&before, &before.reread().expect("it is right")), []);
    fs::write(&file.0, "[http]\nport = 2\nmax_body_bytes = 5\n[models.net]\nvariants = [\"fp32\"]\n")
        .expect("writable");
    let after = before.reread().expect("it is right");
    let told: Vec<(String, bool)> =
        changes(&before, &after).iter().map(|change| (change.to_string(), change.live)).collect();
    assert_eq!(
        told,
        [
            ("http.max_body_bytes: 16777216 -> 5".into(), true),
            ("models.net.max_batch: 4 -> unset".into(), true),
            ("models.net.variants: unset -> [\"fp32\"]".into(), true),
        ]
    );
}

#[test]
fn the_reference_page_is_what_the_program_prints() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let kept = fs::read_to_string(page).unwrap_or_default();
    assert!(kept == reference(), "docs/configuration.md is old; write it anew with `volley-server config reference`");
}

#[test]
fn the_schema_describes_every_setting_and_the_profiles() {
    let schema: serde_json::Value = serde_json::from_str(&json_schema()).expect("JSON");
    let port = &schema["properties"]["http"]["properties"]["port"];
    assert_eq!((&port["type"], &port["maximum"]), (&"integer".into(), &65535.into()));
    let of_profile = &schema["properties"]["profile"]["properties"]["production"]["properties"];
    assert_eq!(of_profile["http"]["properties"]["port"], *port);
}

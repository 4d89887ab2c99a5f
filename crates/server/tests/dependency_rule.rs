//! Who may know whom: the rule that ARCHITECTURE.md states, held.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Each workspace package with the packages its manifest names, whatever for.
fn manifests() -> BTreeMap<String, BTreeSet<String>> {
    dependencies(|_kind| true)
}

/// Each workspace package with the packages that whoever uses it gets.
fn shipped() -> BTreeMap<String, BTreeSet<String>> {
    dependencies(Value::is_null)
}

/// Each workspace package with its dependencies of some kinds; null is the normal one.
fn dependencies(is_meant: impl Fn(&Value) -> bool) -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let text = |value: &Value| value.as_str().expect("a name").to_owned();
    let packages = metadata["packages"].as_array().expect("packages");
    let named = |package: &Value| {
        let all = package["dependencies"].as_array().expect("dependencies").iter();
        all.filter(|dependency| is_meant(&dependency["kind"])).map(|dependency| text(&dependency["name"])).collect()
    };
    packages.iter().map(|package| (text(&package["name"]), named(package))).collect()
}

fn workspace_dependencies(manifests: &BTreeMap<String, BTreeSet<String>>, package: &str) -> Vec<String> {
    manifests[package].iter().filter(|name| manifests.contains_key(*name)).cloned().collect()
}

#[test]
fn the_server_composes_four_libraries_that_know_nothing_of_each_other() {
    let manifests = manifests();
    let leaves = ["volley-cache", "volley-gpu-runtime", "volley-scheduler", "volley-telemetry"];
    assert_eq!(workspace_dependencies(&manifests, "volley-server"), leaves);
    for leaf in leaves.into_iter().chain(["volley-validate"]) {
        assert_eq!(workspace_dependencies(&manifests, leaf), [""; 0], "{leaf} stands alone");
    }
}

#[test]
fn each_heavy_dependency_has_one_home() {
    let manifests = manifests();
    let homes = [
        ("ort", &["volley-gpu-runtime"][..]),
        ("quick_cache", &["volley-cache"]),
        ("fred", &["volley-cache"]),
        ("axum", &["volley-server"]),
        // A bare server of theirs is what Volley is measured against.
        ("tonic", &["volley-server", "volley-examples"]),
        ("hyper", &["volley-server", "volley-validate", "volley-examples"]),
        ("tokio-rustls", &["volley-server"]),
    ];
    for (dependency, allowed) in homes {
        for (package, named) in &manifests {
            let at_home = allowed.contains(&package.as_str());
            assert!(at_home || !named.contains(dependency), "{package} names {dependency}; only {allowed:?} may");
        }
    }
}

#[test]
fn the_scheduler_has_no_async_runtime() {
    let named = &shipped()["volley-scheduler"];
    for runtime in ["tokio", "async-std", "smol", "futures", "async-executor"] {
        assert!(!named.contains(runtime), "volley-scheduler names {runtime}");
    }
}

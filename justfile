# Recipes of this project. `./setup NAME` installs what is missing first; with everything there, `just NAME` does.

python := ".volley/venv/bin/python"
target := env("CARGO_TARGET_DIR", "target")

[private]
default:
    @just --list --unsorted

# Install all that a fresh machine lacks
setup:
    ./setup

# Serve the bundled model (arguments go to volley-server; try --help)
serve *args:
    cargo build --release --locked --bin volley-server
    exec {{target}}/release/volley-server {{args}}

# Run every test
test:
    cargo build --locked --workspace --bins
    cargo test --locked --workspace
    {{python}} -m unittest discover --start-directory tests/clients
    {{python}} -m unittest discover --start-directory models/tests --top-level-directory models

# All that CI checks besides the tests: format, lints, docs
check:
    cargo fmt --all --check
    cargo clippy --locked --workspace --all-targets -- --deny warnings
    RUSTDOCFLAGS="--deny warnings" cargo doc --locked --workspace --no-deps --quiet

# Run a benchmark: path, sla, accuracy, scheduler, leadership, overload or soak-scheduler
bench name *args:
    @just _bench-{{name}} {{args}}

# The whole path over HTTP against raw ONNX Runtime, same run, one core each
_bench-path *args:
    cargo build --release --locked --bins --examples -p volley-server -p volley-gpu-runtime -p volley-examples
    {{target}}/release/examples/path {{args}}

# The validator at 200 requests/s Poisson for 60 s against a server of its own
_bench-sla *args:
    cargo build --release --locked --bins --examples -p volley-server -p volley-validate -p volley-examples
    {{target}}/release/examples/sla {{args}}

# Accuracy of each variant on held-out data, and how far answers move with their batch mates
_bench-accuracy *args:
    cd models && ../{{python}} -m volley_models accuracy {{args}}

# The scheduler alone against what else there is, and what a submit costs
_bench-scheduler *args:
    cargo build --release --locked -p volley-examples --example scheduler
    {{target}}/release/examples/scheduler {{args}}

# The scheduler's workers, which take turns leading, against a plain dispatcher thread
_bench-leadership *args:
    cargo build --release --locked -p volley-examples --example leadership
    {{target}}/release/examples/leadership {{args}}

# The scheduler's own code at 1.5 times the load it can serve, in virtual time
_bench-overload *args:
    cargo build --release --locked -p volley-scheduler --example simulate
    {{target}}/release/examples/simulate overload {{args}}

# A hundred million requests with withdrawals, panics, deadlines and drains: none lost, none doubled
_bench-soak-scheduler *args:
    cargo build --release --locked -p volley-scheduler --example soak
    {{target}}/release/examples/soak {{args}}

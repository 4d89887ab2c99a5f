//! Writes docs/metrics.md: `cargo run -p volley-telemetry --example metrics_reference > docs/metrics.md`.
#![expect(clippy::print_stdout, reason = "its output is the example's purpose")]

fn main() {
    print!("{}", volley_telemetry::names::reference());
}

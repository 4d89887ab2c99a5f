#![allow(missing_docs, dead_code, clippy::all)]
mod rivals;
mod window;
fn main() {
    let p: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let d = std::time::Duration::from_secs(2);
    eprintln!("volley {:.0}", window::requests_per_second(&rivals::Volley::start(p * 1024), p, d));
}

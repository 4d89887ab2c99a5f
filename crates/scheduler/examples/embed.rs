//! Group commit: many writers, one `fsync` for all that wait. Nothing here has to do with models.
//!
//! Each writer needs its record to be on disk before it goes on. Alone, each pays a write and an `fsync`; through the
//! scheduler, the records that arrive while one `fsync` runs share the next. Run it with
//! `cargo run --release -p volley-scheduler --example embed`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use volley_scheduler::{Batch, Config, Executor, GroupConfig, Request, Scheduler};

const WRITERS: usize = 32;
const RUN_FOR: Duration = Duration::from_millis(1_500);

/// The log, owned by the one worker: no lock around the file.
struct Log {
    file: File,
    buffer: Vec<u8>,
    commits: u64,
}

impl Executor<String, io::Result<()>> for &mut Log {
    fn execute(&mut self, batch: &mut Batch<String, io::Result<()>>) {
        self.buffer.clear();
        for record in batch.payloads() {
            self.buffer.extend_from_slice(record.as_bytes());
        }
        let written = self.file.write_all(&self.buffer).and_then(|()| self.file.sync_data());
        self.commits += 1;
        for i in 0..batch.len() {
            // An `io::Error` cannot be cloned; its kind can.
            batch.complete(i, written.as_ref().map(|&()| ()).map_err(|error| error.kind().into()));
        }
    }
}

/// A file of its own in the temporary directory, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("volley-embed-{}-{name}.log", std::process::id())))
    }

    fn open(&self) -> io::Result<File> {
        let path: &Path = &self.0;
        OpenOptions::new().create(true).append(true).open(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Best effort: a file left behind in the temporary directory harms nobody.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Has every writer commit records until the time is up; returns how many were committed.
fn write_records(commit: impl Fn(String) -> io::Result<()> + Sync) -> io::Result<u64> {
    let end = Instant::now() + RUN_FOR;
    let writer = |writer: usize| {
        let mut records = 0;
        while Instant::now() < end {
            commit(format!("writer {writer} record {records}\n"))?;
            records += 1;
        }
        Ok(records)
    };
    let writer = &writer;
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS).map(|number| scope.spawn(move || writer(number))).collect();
        writers.into_iter().map(|writer| writer.join().expect("a writer does not panic")).sum()
    })
}

fn alone() -> io::Result<u64> {
    let scratch = Scratch::new("alone");
    let file = Mutex::new(scratch.open()?);
    write_records(|record| {
        let mut file = file.lock().expect("no writer panics");
        file.write_all(record.as_bytes())?;
        file.sync_data()
    })
}

/// Returns the records and the commits.
fn together() -> io::Result<(u64, u64)> {
    let scratch = Scratch::new("together");
    let mut log = Log { file: scratch.open()?, buffer: Vec::new(), commits: 0 };
    let (scheduler, mut workers) = Scheduler::new(Config::default(), NonZeroUsize::MIN);
    let group = scheduler.add_group(GroupConfig::up_to(NonZeroUsize::new(1_024).expect("positive")));
    let worker = workers.pop().expect("one worker was asked for");
    let records = thread::scope(|scope| {
        scope.spawn(|| worker.run(&mut log));
        let records = write_records(|record| {
            let ticket = scheduler.submit(Request::new(group, record)).map_err(io::Error::other)?;
            ticket.wait().result.map_err(io::Error::other)?
        });
        scheduler.close();
        records
    })?;
    Ok((records, log.commits))
}

#[expect(clippy::print_stdout, reason = "an example reports to the terminal")]
fn main() -> io::Result<()> {
    let seconds = RUN_FOR.as_secs_f64();
    let single = alone()?;
    println!("one fsync per record:  {:>9.0} records/s from {WRITERS} writers", single as f64 / seconds);
    let (records, commits) = together()?;
    println!(
        "grouped by scheduler:  {:>9.0} records/s, {:.1} records per fsync: {} of {records} fsyncs saved",
        records as f64 / seconds,
        records as f64 / commits as f64,
        records - commits,
    );
    println!("that is {:.1} times the throughput", records as f64 / single as f64);
    Ok(())
}

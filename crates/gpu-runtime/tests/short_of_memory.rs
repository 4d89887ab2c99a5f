//! Real failures to allocate, in processes of their own whose address space is limited.
#![cfg(target_os = "linux")]

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Command;

use volley_gpu_runtime::{Library, Model, ModelOptions, Repository, Session};

const ROWS: usize = 256;
const ROW: usize = 50 * 60;
const MEBIBYTE: usize = 1 << 20;
/// In the environment of the process that is to run out of memory.
const LIMITED: &str = "VOLLEY_TEST_SHORT_OF_MEMORY";

/// Runs `test`, of the name `name`, in another process, where memory that is given back leaves the address space.
fn in_another_process(name: &str, test: impl FnOnce()) {
    if std::env::var_os(LIMITED).is_some() {
        return test();
    }
    let output = Command::new(std::env::current_exe().expect("tests run from a file"))
        .args(["--exact", name, "--nocapture"])
        .env(LIMITED, "1")
        .envs([("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "65536"), ("MALLOC_TRIM_THRESHOLD_", "65536")])
        .output()
        .expect("this program starts again");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&said));
}

/// Lets the address space grow by so many bytes and no more; `None` lifts the limit.
fn limit_memory(more: Option<usize>) {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages: usize = statm.split(' ').next().and_then(|pages| pages.parse().ok()).expect("the first number");
    // SAFETY: asks for a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is there to be written.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) }, 0);
    limit.rlim_cur = more.map_or(limit.rlim_max, |more| (pages * page + more) as libc::rlim_t);
    // SAFETY: `limit` was filled in.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
}

fn load(variant: &str) -> Model {
    let library = Library::load(None).unwrap_or_else(|error| panic!("{error}"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/repository");
    let repository = Repository::open(&folder).expect("the repository ships with the project");
    let mut version = repository.models.iter().find(|model| model.name == "cnn_lstm").expect("it").latest().clone();
    version.golden = None;
    let file = version.variants.iter().find(|file| file.name == variant).expect("the variant ships");
    let max_batch = NonZeroUsize::new(ROWS).expect("not zero");
    let options = ModelOptions { max_batch, ..Default::default() };
    Model::load(&library, &version, file, options).unwrap_or_else(|error| panic!("{error}"))
}

fn write(session: &mut Session) {
    for row in 0..ROWS {
        let value = |i| ((row * 31 + i * 17) % 101) as f32 / 50.0 - 1.0;
        let bytes: Vec<u8> = (0..ROW).flat_map(|i| value(i).to_le_bytes()).collect();
        session.write(0, row, [&bytes[..]]);
    }
}

fn run(session: &mut Session) -> Vec<u8> {
    session.run(ROWS).expect("it runs, in parts if need be").rows(0..ROWS).to_joined().to_vec()
}

fn answers_are_the_same_when_short_of(variant: &str, headroom: usize) {
    let model = load(variant);
    let plentiful = {
        let mut session = model.open_session().expect("it opens");
        write(&mut session);
        run(&mut session)
    };
    let mut session = model.open_session().expect("it opens");
    write(&mut session);
    limit_memory(Some(headroom));
    let short = session.run(ROWS).expect("it runs in parts").rows(0..ROWS);
    let learned = session.row_limit();
    let again = session.run(ROWS).expect("it runs in parts").rows(0..ROWS);
    limit_memory(None);
    assert!((1..ROWS).contains(&learned), "the whole batch fitted: {learned} rows");
    assert!(short.to_joined() == plentiful && again.to_joined() == plentiful, "{variant}: answers moved");
    drop((short, again));
    // Each probe comes a second or more after the last, and what goes by meanwhile is batches.
    let tries = 0..5_000;
    let mut limits = tries.map_while(|_| {
        let before = session.row_limit();
        assert!(run(&mut session) == plentiful, "{variant}: answers moved");
        (before < ROWS).then_some(before)
    });
    assert!(limits.by_ref().is_sorted(), "the limit rises while memory suffices");
    assert_eq!(session.row_limit(), ROWS);
}

#[test]
fn fp32_answers_the_same_when_memory_is_short_and_recovers() {
    in_another_process("fp32_answers_the_same_when_memory_is_short_and_recovers", || {
        answers_are_the_same_when_short_of("fp32", 8 * MEBIBYTE);
    });
}

#[test]
fn int8_answers_the_same_when_memory_is_short_and_recovers() {
    in_another_process("int8_answers_the_same_when_memory_is_short_and_recovers", || {
        answers_are_the_same_when_short_of("int8", 8 * MEBIBYTE);
    });
}

#[test]
fn a_session_that_there_is_no_memory_for_is_an_error_and_opens_when_there_is() {
    in_another_process("a_session_that_there_is_no_memory_for_is_an_error_and_opens_when_there_is", || {
        let model = load("int8");
        // The input buffer alone takes 3 MB.
        for headroom in [MEBIBYTE, 2 * MEBIBYTE] {
            limit_memory(Some(headroom));
            let opened = model.open_session().map(|_| ());
            limit_memory(None);
            assert!(opened.is_err(), "{headroom} bytes sufficed");
        }
        drop(model.open_session().expect("there is memory again"));
    });
}

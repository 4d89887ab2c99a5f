//! Real failures to allocate, in processes of their own whose address space is limited.
#![cfg(target_os = "linux")]

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Command;

use volley_gpu_runtime::{Instances, Library, Model, ModelOptions, Outputs, Repository, Session};

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

/// What a server does: a session that memory does not suffice for is not used again, and another has its chance with the
/// memory that the first gives back.
fn run_leased(instances: &Instances) -> (Outputs, usize) {
    for _ in 0..3 {
        let mut session = instances.lease(0).expect("memory suffices for a session");
        write(&mut session);
        let outputs = session.run(ROWS).map(|batch| batch.rows(0..ROWS));
        match outputs {
            Ok(outputs) => return (outputs, session.row_limit()),
            Err(error) => {
                assert!(error.is_out_of_memory(), "{error}");
                session.discard();
            }
        }
    }
    panic!("three fresh sessions did not find memory for a row");
}

fn answers_are_the_same_when_short_of(variant: &str, headroom: usize) {
    let model = load(variant);
    let plentiful = {
        let mut session = model.open_session().expect("it opens");
        write(&mut session);
        run(&mut session)
    };
    limit_memory(Some(headroom));
    let instances = Instances::open(model, NonZeroUsize::MIN).expect("memory suffices for a session");
    let (short, _) = run_leased(&instances);
    let (again, learned) = run_leased(&instances);
    limit_memory(None);
    assert!((1..ROWS).contains(&learned), "the whole batch fitted: {learned} rows");
    assert!(short.to_joined() == plentiful && again.to_joined() == plentiful, "{variant}: answers moved");
    drop((short, again));
    // A second passes until more is tried, and batches meanwhile.
    let rising = (0..100_000).map(|_| run_leased(&instances)).find(|(outputs, limit)| {
        assert!(outputs.to_joined() == plentiful, "{variant}: answers moved");
        *limit > learned
    });
    assert!(rising.is_some(), "the limit rises while memory suffices");
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
        // The input buffer alone takes 3 MB; the weights are laid out anew before it is made.
        for headroom in (0..=2 * MEBIBYTE).step_by(MEBIBYTE / 8) {
            limit_memory(Some(headroom));
            let opened = model.open_session().map(|_| ());
            limit_memory(None);
            assert!(opened.is_err(), "{headroom} bytes sufficed");
        }
        drop(model.open_session().expect("there is memory again"));
    });
}

/// Memory of this process that is in use, in bytes.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("the second number");
    // SAFETY: asks for a number.
    pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize
}

#[test]
fn a_session_that_rests_gives_back_what_its_largest_batch_took() {
    in_another_process("a_session_that_rests_gives_back_what_its_largest_batch_took", || {
        let instances = Instances::open(load("fp32"), NonZeroUsize::MIN).expect("it opens");
        let large = || {
            let mut session = instances.lease(0).expect("it is there");
            write(&mut session);
            run(&mut session)
        };
        let answer = large();
        let before = resident();
        instances.trim_idle();
        assert_eq!(resident() / MEBIBYTE, before / MEBIBYTE, "it may not rest yet");
        instances.trim_idle();
        let given_back = before.saturating_sub(resident());
        assert!(given_back > ROWS * ROW * size_of::<f32>(), "{given_back} bytes of {before}");
        assert_eq!(large(), answer, "and takes it again");
        instances.trim_idle();
        assert!(resident() > before - given_back / 2, "a session in use keeps its memory");
    });
}

//! What fails, stalls and hangs inside a run, through the real ONNX Runtime and an operator that does what it is told.

use std::fs;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use volley_gpu_runtime::{Instances, Library, LoadError, Model, ModelOptions, Session, VariantFile, VersionFolder};

const ROWS: usize = 4;
const WORKERS: usize = 2;

/// The file that tells the operator what to do. One test at a time has it.
struct Orders {
    file: PathBuf,
    _one_at_a_time: MutexGuard<'static, ()>,
}

impl Orders {
    fn take() -> Self {
        static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
            let file = std::env::temp_dir().join(format!("volley-fault-{}", std::process::id()));
            // SAFETY: every test comes by here before it calls what is not Rust's and may read the environment.
            unsafe { std::env::set_var("FAULT_OPERATOR_FILE", &file) };
            file
        });
        static LOCK: Mutex<()> = Mutex::new(());
        let one_at_a_time = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        Self { file: FILE.clone(), _one_at_a_time: one_at_a_time }
    }

    fn give(&self, order: &str) {
        let draft = self.file.with_extension("draft");
        fs::write(&draft, order).expect("the temporary folder is writable");
        fs::rename(draft, &self.file).expect("the temporary folder is writable");
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

fn operators() -> PathBuf {
    let program = std::env::current_exe().expect("tests run from a file");
    let target = program.parent().and_then(Path::parent).expect("it lies in deps/");
    target.join("examples").join(format!(
        "{}faulty_operators{}",
        std::env::consts::DLL_PREFIX,
        std::env::consts::DLL_SUFFIX
    ))
}

fn load(operator_libraries: Vec<PathBuf>) -> Result<Model, LoadError> {
    let library = Library::load(None).unwrap_or_else(|error| panic!("{error}"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    let file = VariantFile { name: "fp32".to_owned(), path: folder.join("fault.onnx") };
    let version = VersionFolder { number: 1, path: folder, variants: vec![file.clone()], golden: None };
    let max_batch = NonZeroUsize::new(ROWS).expect("not zero");
    Model::load(&library, &version, &file, ModelOptions { max_batch, operator_libraries, ..Default::default() })
}

fn model() -> Model {
    load(vec![operators()]).unwrap_or_else(|error| panic!("{error} (`cargo test` makes the library of operators)"))
}

fn instances() -> Instances {
    Instances::open(model(), NonZeroUsize::new(WORKERS).expect("not zero")).expect("they open")
}

/// Writes a batch in which every row says `value` and its own number.
fn write(session: &mut Session, value: f32) {
    for row in 0..ROWS {
        let bytes: Vec<u8> = [value, row as f32, -value, 0.5].iter().flat_map(|x| x.to_le_bytes()).collect();
        session.write(0, row, [&bytes[..]]);
    }
}

/// Runs what was written, and tells the value that its rows say.
fn run(session: &mut Session) -> f32 {
    let outputs = session.run(ROWS).expect("it runs").rows(0..ROWS).tensor(0);
    let values: Vec<f32> = outputs.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    let value = values[0];
    if value != 0.0 {
        for (row, values) in values.chunks(4).enumerate() {
            assert_eq!(values, [value, row as f32, -value, 0.5], "row {row}");
        }
    }
    value
}

/// Runs until the operator hangs, does `meanwhile`, lets it go on, and waits until it has ended.
fn hang<R: Send>(orders: &Orders, run: impl FnOnce() -> R + Send, meanwhile: impl FnOnce()) -> R {
    orders.give("hang-once");
    thread::scope(|scope| {
        let running = scope.spawn(run);
        while orders.file.exists() && !running.is_finished() {
            thread::yield_now();
        }
        let done = catch_unwind(AssertUnwindSafe(meanwhile));
        orders.give("pass");
        done.unwrap_or_else(|panic| resume_unwind(panic));
        running.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

#[test]
fn a_run_that_is_interrupted_fails_and_the_next_is_as_any_other() {
    let orders = Orders::take();
    let mut session = model().open_session().expect("it opens");
    write(&mut session, 3.0);
    let interrupter = session.interrupter();
    let error = hang(&orders, || session.run(ROWS).map(|_| ()), || interrupter.interrupt()).expect_err("it was ended");
    assert!(error.is_interrupted() && !error.is_out_of_memory(), "{error}");
    assert_eq!(run(&mut session), 3.0);
}

#[test]
fn an_interrupter_is_for_one_run_and_touches_no_other() {
    let orders = Orders::take();
    let mut session = model().open_session().expect("it opens");
    write(&mut session, 3.0);
    let early = session.interrupter();
    early.interrupt();
    assert_eq!(run(&mut session), 3.0, "the run had not begun");
    let next = session.interrupter();
    early.interrupt();
    assert_eq!(hang(&orders, || run(&mut session), || early.interrupt()), 3.0, "its run was over");
    next.interrupt();
    assert_eq!(run(&mut session), 3.0, "so is this one's");
}

#[test]
fn an_operator_that_fails_is_told_with_its_own_words() {
    let orders = Orders::take();
    let mut session = model().open_session().expect("it opens");
    write(&mut session, 3.0);
    orders.give("fail-once the grid is down");
    let error = session.run(ROWS).map(|_| ()).expect_err("it was told to fail");
    assert!(!error.is_interrupted() && !error.is_out_of_memory(), "{error}");
    assert!(error.to_string().contains("the grid is down"), "{error}");
    assert_eq!(run(&mut session), 3.0);
}

#[test]
fn memory_that_ran_out_once_halves_the_rows_of_that_session_and_changes_no_answer() {
    let orders = Orders::take();
    let instances = instances();
    let mut lease = instances.lease(0).expect("it is open");
    write(&mut lease, 3.0);
    assert_eq!((lease.row_limit(), instances.row_limit()), (ROWS, ROWS));
    orders.give("fail-once Failed to allocate memory for requested buffer of size 1");
    assert_eq!(run(&mut lease), 3.0);
    assert_eq!(lease.row_limit(), ROWS / 2);
    drop(lease);
    assert_eq!(instances.lease(1).expect("it is open").row_limit(), ROWS, "another session learned nothing");
    assert_eq!(instances.row_limit(), ROWS / 2);
    instances.lease(0).expect("it is open").discard();
    drop(instances.lease(0).expect("it opens"));
    assert_eq!(instances.row_limit(), ROWS, "what a lost session learned is lost");
}

#[test]
fn a_learned_limit_goes_though_no_large_batch_comes_and_though_none_comes_at_all() {
    let orders = Orders::take();
    let instances = instances();
    let learn = |worker| {
        let mut lease = instances.lease(worker).expect("it is open");
        write(&mut lease, 3.0);
        orders.give("fail-once Failed to allocate memory for requested buffer of size 1");
        assert_eq!(run(&mut lease), 3.0);
        assert_eq!(lease.row_limit(), ROWS / 2);
    };
    // A second passes until more is tried.
    let patience = Instant::now() + Duration::from_secs(60);
    learn(0);
    loop {
        let mut lease = instances.lease(0).expect("it is open");
        let outputs = lease.run(1).expect("it runs").rows(0..1).tensor(0);
        assert_eq!(outputs[..4], 3.0_f32.to_le_bytes());
        if lease.row_limit() == ROWS {
            break;
        }
        assert!(Instant::now() < patience, "small batches leave it as it is");
    }
    learn(1);
    while instances.row_limit() < ROWS {
        instances.trim_idle();
        assert!(Instant::now() < patience, "resting leaves it as it is");
    }
}

#[test]
fn one_row_that_memory_does_not_suffice_for_is_an_error_that_says_so() {
    let orders = Orders::take();
    let mut session = model().open_session().expect("it opens");
    write(&mut session, 3.0);
    orders.give("fail Failed to allocate memory for requested buffer of size 1");
    let error = session.run(ROWS).map(|_| ()).expect_err("nothing fits");
    assert!(error.is_out_of_memory() && !error.is_interrupted(), "{error}");
    assert_eq!(session.row_limit(), 1);
    orders.give("pass");
    assert_eq!(run(&mut session), 3.0, "when there is memory again");
}

#[test]
fn a_session_is_kept_from_lease_to_lease_unless_it_is_discarded_or_its_worker_panics() {
    let _orders = Orders::take();
    let instances = instances();
    let said = |worker| run(&mut instances.lease(worker).expect("it opens"));
    let write = |worker, value| write(&mut instances.lease(worker).expect("it opens"), value);
    write(0, 5.0);
    write(1, 6.0);
    assert_eq!((said(0), said(1)), (5.0, 6.0), "each worker has its own");
    instances.lease(0).expect("it is open").discard();
    assert_eq!(said(0), 0.0, "a new one has nothing written");
    write(0, 7.0);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _lease = instances.lease(0);
        panic!("the batch was bad");
    }));
    assert!(panicked.is_err());
    assert_eq!((said(0), said(1)), (0.0, 6.0), "what a panic left is not used");
}

#[test]
fn a_worker_that_hangs_is_replaced_meanwhile_and_what_it_had_does_not_come_back() {
    let orders = Orders::take();
    let instances = instances();
    let hung = || {
        let mut lease = instances.lease(0).expect("it is open");
        write(&mut lease, 5.0);
        run(&mut lease)
    };
    let replaced = || {
        let mut lease = instances.lease(0).expect("it opens");
        assert_eq!(run(&mut lease), 0.0, "a session of its own");
        write(&mut lease, 6.0);
    };
    assert_eq!(hang(&orders, hung, replaced), 5.0);
    assert_eq!(run(&mut instances.lease(0).expect("it is open")), 6.0);
}

#[test]
fn a_session_that_cannot_be_opened_anew_is_an_error_until_it_can() {
    let orders = Orders::take();
    let instances = instances();
    instances.lease(0).expect("it is open").discard();
    orders.give("fail the grid is down");
    let error = instances.lease(0).map(|_| ()).expect_err("its first run fails");
    assert!(error.to_string().contains("the grid is down"), "{error}");
    orders.give("pass");
    assert_eq!(run(&mut instances.lease(0).expect("it opens")), 0.0);
}

#[test]
fn more_sessions_than_there_is_memory_for_are_refused_before_one_is_opened() {
    let _orders = Orders::take();
    let error = Instances::open(model(), NonZeroUsize::MAX).expect_err("no machine has that");
    assert!(error.reason() == "memory" && error.to_string().contains("memory does not suffice: about "), "{error}");
}

#[test]
fn a_library_of_operators_that_cannot_be_used_is_refused_with_the_reason() {
    let _orders = Orders::take();
    let missing = load(vec!["nowhere/liboperators.so".into()]).expect_err("there is none");
    let text = missing.to_string();
    assert!(missing.reason() == "no_operators" && text.contains("nowhere/liboperators.so cannot be read"), "{text}");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/fault.onnx");
    let no_library = load(vec![model]).expect_err("it is none").to_string();
    assert!(no_library.contains("fault.onnx"), "{no_library}");
    let without = load(Vec::new()).expect_err("the graph needs it").to_string();
    assert!(without.contains("volley.test"), "{without}");
}

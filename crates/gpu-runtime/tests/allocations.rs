//! How often a batch allocates, counted by the allocator of this program.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::num::NonZeroUsize;
use std::path::Path;

use volley_gpu_runtime::{Library, Model, ModelOptions, Outputs, Repository, Session};

const ROWS: usize = 32;

/// Counts what each thread allocates; memory of ONNX Runtime, which is not Rust's, is not counted.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn allocations<R>(work: impl FnOnce() -> R) -> (usize, R) {
    let before = ALLOCATIONS.get();
    let result = work();
    (ALLOCATIONS.get() - before, result)
}

fn session(variant: &str) -> Session {
    let library = Library::load(None).unwrap_or_else(|error| panic!("{error}"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/repository");
    let repository = Repository::open(&folder).expect("the repository ships with the project");
    let version = repository.models.iter().find(|model| model.name == "cnn_lstm").expect("the bundled model").latest();
    let file = version.variants.iter().find(|file| file.name == variant).expect("the variant ships");
    let max_batch = NonZeroUsize::new(ROWS).expect("not zero");
    let options = ModelOptions { max_batch, ..Default::default() };
    let model = Model::load(&library, version, file, options).unwrap_or_else(|error| panic!("{error}"));
    model.open_session().expect("it opens")
}

/// A batch of requests of `each` rows, `count` of them. The answers are put into `answers`, which has room.
fn batch(session: &mut Session, row: &[u8], count: usize, each: usize, answers: &mut Vec<Outputs>) {
    for first in 0..count * each {
        session.write(0, first, [row]);
    }
    let outputs = session.run(count * each).expect("it runs");
    answers.extend((0..count).map(|request| outputs.rows(request * each..(request + 1) * each)));
}

#[test]
fn a_batch_that_was_seen_before_allocates_nothing_but_a_piece_for_the_outputs_of_each_request() {
    // An operator of this crate costs two: `ort` makes a handle for its input and one for its output.
    for (variant, of_operators) in [("fp32", 0), ("int8", 2)] {
        let mut session = session(variant);
        let row = vec![0; 50 * 60 * 4];
        let mut answers = Vec::with_capacity(ROWS);
        for count in [1, 2, 7, 16, ROWS] {
            batch(&mut session, &row, count, 1, &mut answers);
            answers.clear();
            let (made, ()) = allocations(|| batch(&mut session, &row, count, 1, &mut answers));
            answers.clear();
            assert_eq!(made, of_operators + count, "{variant}: a batch of {count} requests");
        }
    }
}

#[test]
fn outputs_that_are_shared_cost_a_request_the_same_however_many_rows_it_has() {
    let mut session = session("fp32");
    let row = vec![0; 50 * 60 * 4];
    let mut answers = Vec::with_capacity(ROWS);
    // 8 rows of 131 values are more than the 4 kB that are copied.
    let mut made_for = |count, each| {
        batch(&mut session, &row, count, each, &mut answers);
        answers.clear();
        let (made, ()) = allocations(|| batch(&mut session, &row, count, each, &mut answers));
        answers.clear();
        made
    };
    let of_one = made_for(1, 8);
    assert_eq!(of_one, 3, "one that holds each of the two tensors, and a list of them");
    assert_eq!((made_for(1, ROWS), made_for(4, 8)), (of_one, 4 * of_one));
}

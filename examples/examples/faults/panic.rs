//! An executor that panics, in a scheduler over the real runtime: what the server does, without the server, whose own
//! executor cannot be made to.

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use volley_gpu_runtime::{Instances, Library, Model, ModelConfig, ModelFolder, ModelOptions, Outputs};
use volley_scheduler::{Batch, Config, Failure, GroupConfig, Request, Scheduler};

use crate::load::Seen;

const REQUESTS: usize = 200;
const CALLERS: usize = 4;
/// One batch in so many panics.
const EVERY: usize = 20;

/// Runs requests, and how many batches panicked.
pub(crate) fn run() -> Result<(Seen, usize), Box<dyn Error>> {
    let library = Library::load(None)?;
    let folder = ModelFolder::read(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/repository/cnn_lstm"),
        ModelConfig::default(),
    )?;
    let version = folder.latest();
    let file = version.variants.iter().find(|file| file.name == "int8").ok_or("no int8 variant")?;
    let model = Model::load(&library, version, file, ModelOptions::default())?;
    let max = model.max_batch();
    let instances = Instances::open(model, NonZeroUsize::MIN)?;
    let window: Bytes = (0..3000_u32).flat_map(|i| ((i % 101) as f32 / 50.0 - 1.0).to_le_bytes()).collect();
    let expected = {
        let mut session = instances.lease(0)?;
        session.write(0, 0, [&window[..]]);
        session.run(1)?.rows(0..1).to_joined()
    };

    // The panics are meant.
    std::panic::set_hook(Box::new(|_| {}));
    let (scheduler, mut workers) = Scheduler::<Bytes, Outputs>::new(Config::default(), NonZeroUsize::MIN);
    let group = scheduler.add_group(GroupConfig::up_to(max));
    let (mut batches, mut panics) = (0_usize, 0_usize);
    let mut seen = Seen::default();
    thread::scope(|scope| {
        if let Some(worker) = workers.pop() {
            let (instances, batches, panics) = (&instances, &mut batches, &mut panics);
            scope.spawn(move || {
                worker.run(|batch: &mut Batch<Bytes, Outputs>| {
                    let mut session = instances.lease(0).expect("a session can be opened");
                    *batches += 1;
                    if (*batches).is_multiple_of(EVERY) {
                        *panics += 1;
                        panic!("as if by a defect");
                    }
                    for (row, window) in batch.payloads().enumerate() {
                        session.write(0, row, [&window[..]]);
                    }
                    let outputs = session.run(batch.len()).expect("nothing is wrong with the session");
                    for index in 0..batch.len() {
                        batch.complete(index, outputs.rows(index..index + 1));
                    }
                });
            });
        }
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                let (scheduler, window, expected) = (scheduler.clone(), window.clone(), expected.clone());
                scope.spawn(move || {
                    let mut seen = Seen::default();
                    for _ in 0..REQUESTS {
                        let started = Instant::now();
                        let ask =
                            || scheduler.submit(Request::new(group, window.clone())).expect("there is room").wait();
                        let mut outcome = ask();
                        if matches!(outcome.result, Err(Failure::WorkerPanicked)) {
                            outcome = ask();
                        }
                        let loss = outcome.result.as_ref().err().map(ToString::to_string);
                        let right = outcome.result.is_ok_and(|outputs| outputs.to_joined() == expected);
                        seen.take(started.elapsed(), loss, right);
                        thread::sleep(Duration::from_micros(200));
                    }
                    seen
                })
            })
            .collect();
        for caller in callers {
            seen = std::mem::take(&mut seen).join(caller.join().expect("a caller does not panic"));
        }
        scheduler.close();
    });
    let _ = std::panic::take_hook();
    Ok((seen, panics))
}

//! Models whose answer to a row depends on the others, or on chance: nobody is answered with what others asked.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Barrier;
use std::thread;

use common::repository::Repository;
use common::{Body, ServerProcess};
use serde_json::json;

const CALLERS: usize = 8;
const ROUNDS: usize = 20;

fn repository(name: &str, model: &str, config: &str) -> Repository {
    let repository = Repository::new(&format!("company-{name}"));
    let folder = repository.0.join(model).join("1");
    fs::create_dir_all(&folder).expect("the temporary folder is writable");
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gpu-runtime/tests/models");
    fs::copy(models.join(format!("{model}.onnx")), folder.join("model.onnx")).expect("the model is there");
    fs::write(repository.0.join(model).join("config.pbtxt"), config).expect("the temporary folder is writable");
    repository
}

fn serve(repository: &Repository) -> ServerProcess {
    ServerProcess::start(&[("VOLLEY_MODEL_REPOSITORY", repository.path()), ("VOLLEY_RUNTIME__WORKERS", "1")])
}

fn rows(values: &[f32]) -> Body {
    let input = json!({ "name": "x", "shape": [values.len() / 4, 4], "datatype": "FP32", "data": values });
    Body { bytes: json!({ "inputs": [input] }).to_string().into_bytes(), json_length: None }
}

#[test]
fn who_asks_at_the_same_moment_is_answered_as_if_alone() {
    // One that takes the mean of its batch from each row: of three rows that are 4 apart, -4, 0 and 4 are left.
    let repository =
        repository("mean", "mean", "max_batch_size: 0 input { name: \"x\" data_type: TYPE_FP32 dims: [-1, 4] }");
    let server = serve(&repository);
    let together = Barrier::new(CALLERS);
    let wrong: usize = thread::scope(|scope| {
        let callers = (0..CALLERS).map(|caller| {
            let (server, together) = (&server, &together);
            scope.spawn(move || {
                let mut connection = server.connect();
                let is_wrong = |round: usize| {
                    let first = (100 * caller + round) as f32;
                    let asked: Vec<f32> = (0..12).map(|index| first + 4.0 * (index / 4) as f32).collect();
                    together.wait();
                    let reply = connection.ask("mean", &rows(&asked));
                    reply.status != 200 || reply.values(0) != [[-4.0; 4], [0.0; 4], [4.0; 4]].concat()
                };
                (0..ROUNDS).map(is_wrong).filter(|&is_wrong| is_wrong).count()
            })
        });
        let callers: Vec<_> = callers.collect();
        callers.into_iter().map(|caller| caller.join().expect("it ends")).sum()
    });
    assert_eq!(wrong, 0, "of {} answers", CALLERS * ROUNDS);
    server.terminate();
    let (_, log) = server.wait();
    assert!(log.iter().any(|line| line["message"].as_str().is_some_and(|text| text.contains("full_batch"))), "{log:?}");
}

#[test]
fn chance_is_not_kept() {
    let repository = repository("chance", "chance", "max_batch_size: 4");
    let server = serve(&repository);
    let mut connection = server.connect();
    let mut ask = || connection.ask("chance", &rows(&[0.0; 4])).values(0);
    let answers = [ask(), ask(), ask()];
    assert!(answers[0] != answers[1] && answers[1] != answers[2], "{answers:?}");
}

//! Models whose answer to a row depends on the others, or on chance: nobody is answered with what others asked.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Barrier;
use std::thread;

use common::repository::Repository;
use common::{Body, ServerProcess};
use serde_json::{Value, json};

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

fn serve(repository: &Repository, settings: &[(&str, &str)]) -> ServerProcess {
    let always = [("VOLLEY_MODEL_REPOSITORY", repository.path()), ("VOLLEY_RUNTIME__WORKERS", "1")];
    ServerProcess::start(&[&always, settings].concat())
}

fn rows(values: &[f32]) -> Body {
    let input = json!({ "name": "x", "shape": [values.len() / 4, 4], "datatype": "FP32", "data": values });
    Body {
        bytes: json!({ "inputs": [input], "parameters": { "cache": false } }).to_string().into_bytes(),
        json_length: None,
    }
}

/// The number of answers that are not what each caller is answered alone.
fn wrong(server: &ServerProcess) -> usize {
    let asked = |caller: usize, round: usize| {
        let first = (100 * caller + round) as f32;
        rows(&(0..12).map(|index| first + 4.0 * (index / 4) as f32).collect::<Vec<_>>())
    };
    let mut alone = server.connect();
    let mut right = |caller: usize| -> Vec<_> {
        (0..ROUNDS).map(|round| alone.ask("mean", &asked(caller, round)).values(0)).collect()
    };
    let right: Vec<_> = (0..CALLERS).map(&mut right).collect();
    // What more rows leave behind is nobody's company either.
    alone.ask("mean", &rows(&[1e6; 16]));
    let together = Barrier::new(CALLERS);
    thread::scope(|scope| {
        let callers = right.iter().enumerate().map(|(caller, right)| {
            let (together, mut connection) = (&together, server.connect());
            scope.spawn(move || {
                let is_wrong = |(round, right): (usize, &Vec<f32>)| {
                    together.wait();
                    connection.ask("mean", &asked(caller, round)).values(0) != *right
                };
                right.iter().enumerate().map(is_wrong).filter(|&is_wrong| is_wrong).count()
            })
        });
        let callers: Vec<_> = callers.collect();
        callers.into_iter().map(|caller| caller.join().expect("it ends")).sum()
    })
}

#[test]
fn who_asks_at_the_same_moment_is_answered_as_if_alone() {
    // One that takes the mean of its batch from each row.
    let config = "max_batch_size: 0 input { name: \"x\" data_type: TYPE_FP32 dims: [-1, 4] }";
    let repository = repository("mean", "mean", config);
    let server = serve(&repository, &[]);
    let reply = server.connect().ask("mean", &rows(&[1.0, 1.0, 1.0, 1.0, 9.0, 9.0, 9.0, 9.0]));
    assert_eq!(reply.values(0), [[-4.0; 4], [4.0; 4]].concat(), "what one caller sends is one question");
    assert_eq!(wrong(&server), 0, "of {} answers", CALLERS * ROUNDS);
    server.terminate();
    let (_, log) = server.wait();
    let said = |log: &[Value], part: &str| {
        log.iter().any(|line| line["message"].as_str().is_some_and(|text| text.contains(part)))
    };
    assert!(said(&log, "requests are not computed together"), "{log:?}");

    // Nor do those keep company that pad batches of given sizes.
    let server = serve(&repository, &[("VOLLEY_MODELS__MEAN__BATCH_SIZES", "[4, 32]")]);
    assert_eq!(wrong(&server), 0, "of {} answers", CALLERS * ROUNDS);

    let server = serve(&repository, &[("VOLLEY_MODELS__MEAN__FULL_BATCH", "32")]);
    assert!((0..10).any(|_| wrong(&server) > 0), "it was told to, and this test asks at the same moment");
    server.terminate();
    let (_, log) = server.wait();
    assert!(said(&log, "computed together nevertheless"), "{log:?}");
}

#[test]
fn chance_is_not_kept() {
    let repository = repository("chance", "chance", "max_batch_size: 4");
    let server = serve(&repository, &[]);
    let mut connection = server.connect();
    let input = json!({ "name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0, 0, 0, 0] });
    let asked = Body { bytes: json!({ "inputs": [input] }).to_string().into_bytes(), json_length: None };
    let mut ask = || connection.ask("chance", &asked).values(0);
    let answers = [ask(), ask(), ask()];
    assert!(answers[0] != answers[1] && answers[1] != answers[2], "{answers:?}");
}

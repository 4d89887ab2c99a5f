//! Requests that ask an ensemble, and how sure it is.

mod common;

use common::repository::Repository;
use common::{ServerProcess, binary_request, json_request, window};
use serde_json::{Value, json};

const FILES: [&str; 3] = ["model.onnx", "model.int8.onnx", "golden.safetensors"];

/// The bundled model, whose two precisions are the members of an ensemble.
fn serve(name: &str) -> (ServerProcess, Repository) {
    let repository = Repository::new(&format!("ensemble-{name}"));
    repository.add_bundled(1, &FILES);
    repository.configure("cnn_lstm", "variants = [\"fp32\", \"int8\"]\n[ensemble]\nmembers = [\"fp32\", \"int8\"]\n");
    let server = ServerProcess::start(&[("VOLLEY_MODEL_REPOSITORY", repository.path())]);
    (server, repository)
}

fn names(reply: &common::Reply) -> Vec<String> {
    let outputs = reply.json()["outputs"].as_array().expect("outputs").clone();
    outputs.iter().map(|output| output["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn the_answer_is_the_mean_of_the_members_and_the_uncertainty_their_deviation_from_it() {
    let (server, _repository) = serve("mean");
    let mut connection = server.connect();
    let mut ask = |parameters: Value| connection.infer(&json_request(&[window(5)], &parameters));
    let of = |reply: &common::Reply, output| reply.values(output);
    let [fp32, int8] = ["fp32", "int8"].map(|variant| ask(json!({ "variant": variant })));

    let plain = ask(json!({ "use_ensemble": true }));
    assert_eq!(names(&plain), ["features", "prediction"]);
    assert_eq!(plain.json()["parameters"], json!({ "ensemble_members": 2, "ensemble_size": 2 }));
    let with = ask(json!({ "return_uncertainty": true }));
    assert_eq!(names(&with), ["features", "prediction", "features_uncertainty", "prediction_uncertainty"]);
    for output in 0..2 {
        let (a, b) = (of(&fp32, output), of(&int8, output));
        let (mean, deviation) = (of(&with, output), of(&with, output + 2));
        assert_eq!(mean, of(&plain, output));
        assert!(a != b, "the members must differ for this to show anything");
        for i in 0..a.len() {
            let (wanted_mean, wanted_deviation) = ((a[i] + b[i]) / 2.0, (a[i] - b[i]).abs() / 2.0);
            assert!((mean[i] - wanted_mean).abs() <= 1e-6, "{} of {} and {}", mean[i], a[i], b[i]);
            assert!((deviation[i] - wanted_deviation).abs() <= 1e-6, "{} of {} and {}", deviation[i], a[i], b[i]);
        }
    }
}

#[test]
fn an_answer_of_the_ensemble_does_not_depend_on_its_batch_nor_on_the_cache() {
    let (server, _repository) = serve("company");
    let mut connection = server.connect();
    let mut ask = |windows: &[Vec<f32>], cache: bool| {
        let parameters = json!({ "return_uncertainty": true, "cache": cache });
        let reply = connection.infer(&binary_request(windows, &parameters));
        assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
        (reply.values(1), reply.values(3))
    };
    let windows: Vec<Vec<f32>> = (0..7).map(window).collect();
    let (together, together_uncertainty) = ask(&windows, false);
    for (row, of_row) in windows.iter().enumerate() {
        let alone = ask(std::slice::from_ref(of_row), true);
        assert_eq!(alone.0, together[row * 3..][..3]);
        assert_eq!(alone.1, together_uncertainty[row * 3..][..3]);
        assert_eq!(ask(std::slice::from_ref(of_row), true), alone, "from the cache");
    }
    // What the ensemble says is kept apart from what its members say.
    let member = connection.infer(&binary_request(&windows[..1], &json!({ "variant": "int8" }))).values(1);
    assert_ne!(member, together[..3]);
}

#[test]
fn what_an_ensemble_cannot_do_is_refused_by_name() {
    let (server, _repository) = serve("refusals");
    let mut connection = server.connect();
    for (parameters, words) in [
        (json!({ "use_ensemble": true, "variant": "int8" }), ["parameters.use_ensemble", "beside variant `int8`"]),
        (json!({ "return_uncertainty": true, "use_ensemble": false }), ["parameters.return_uncertainty", "is false"]),
    ] {
        let reply = connection.infer(&json_request(&[window(1)], &parameters));
        assert_eq!(reply.status, 400);
        assert!(words.iter().all(|word| reply.error().contains(word)), "{}", reply.error());
    }
    let mut body: Value = serde_json::from_slice(&json_request(&[window(1)], &json!({ "use_ensemble": true })).bytes)
        .expect("it was written as JSON");
    body["outputs"] = json!([{ "name": "prediction_uncertainty" }]);
    let body = common::Body { bytes: body.to_string().into_bytes(), json_length: None };
    let reply = connection.infer(&body);
    assert_eq!(reply.status, 400, "it was not asked for by return_uncertainty");
    assert!(reply.error().contains("outputs[0].name"), "{}", reply.error());
}

#[test]
fn a_variant_that_would_be_taken_for_the_ensemble_is_refused_by_its_file() {
    let repository = Repository::new("ensemble-named");
    let folder = repository.add_bundled(1, &FILES);
    std::fs::copy(folder.join("model.onnx"), folder.join("model.ensemble.onnx")).expect("the folder is writable");
    let text = ServerProcess::refusal(&[("VOLLEY_MODEL_REPOSITORY", repository.path())]);
    assert!(text.contains("model.ensemble.onnx: an ensemble is counted as `ensemble`"), "{text}");
}

#[test]
fn members_that_do_not_exist_keep_the_model_from_being_served() {
    let repository = Repository::new("ensemble-missing");
    repository.add_bundled(1, &FILES);
    repository.configure("cnn_lstm", "[ensemble]\nmembers = [\"int8\", \"int9\"]\n");
    let text = ServerProcess::refusal(&[("VOLLEY_MODEL_REPOSITORY", repository.path())]);
    assert!(text.contains("ensemble.members") && text.contains("`int9`") && text.contains("fp32, int8"), "{text}");
}

#[test]
fn the_bundled_model_answers_with_three_members_and_tells_where_they_differ() {
    // Which is fastest, and so served by name if nothing is said, is the machine's to tell.
    let variants = "[\"fp32\", \"int8\", \"int8-b\", \"int8-c\"]";
    let server = ServerProcess::start(&[("VOLLEY_MODELS__CNN_LSTM__VARIANTS", variants)]);
    let mut connection = server.connect();
    let mut ask = |seed, parameters: Value| {
        let reply = connection.infer(&json_request(&[window(seed)], &parameters));
        assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
        reply
    };
    let with = ask(5, json!({ "return_uncertainty": true }));
    assert_eq!(with.json()["parameters"], json!({ "ensemble_members": 3, "ensemble_size": 3 }));
    let members = ["int8", "int8-b", "int8-c"].map(|variant| ask(5, json!({ "variant": variant })).values(1));
    let (mean, uncertainty) = (with.values(1), with.values(3));
    for class in 0..3 {
        let of_members = members.each_ref().map(|probabilities| f64::from(probabilities[class]));
        let wanted = of_members.iter().sum::<f64>() / 3.0;
        let variance = of_members.iter().map(|value| (value - wanted).powi(2)).sum::<f64>() / 3.0;
        assert!((f64::from(mean[class]) - wanted).abs() < 1e-6);
        assert!((f64::from(uncertainty[class]) - variance.sqrt()).abs() < 1e-6);
    }
    assert!(uncertainty.iter().any(|&deviation| deviation > 1e-4), "the members do not differ: {uncertainty:?}");
    // Who does not ask for it does not pay for it.
    assert_eq!(ask(5, json!({})).json()["parameters"], Value::Null);
}

#[test]
fn a_model_without_an_ensemble_refuses_what_only_an_ensemble_can_do() {
    let repository = Repository::new("ensemble-none");
    repository.add_bundled(1, &["model.onnx", "golden.safetensors"]);
    let server = ServerProcess::start(&[("VOLLEY_MODEL_REPOSITORY", repository.path())]);
    let mut connection = server.connect();
    for parameter in ["use_ensemble", "return_uncertainty"] {
        let reply = connection.infer(&json_request(&[window(5)], &json!({ parameter: true })));
        let error = reply.json()["error"].as_str().expect("a refusal").to_owned();
        assert!(reply.status == 400 && error.starts_with(&format!("parameters.{parameter}")), "{error}");
    }
}

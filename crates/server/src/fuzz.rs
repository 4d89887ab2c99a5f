//! Every parser of what callers send, and that of the configuration, on input that is wrong in ways nobody thought of.
//!
//! Half of the input is structured: a good request with a few of its values replaced, doubled or left out. The other half
//! are the bytes of such requests and of a kept corpus, altered without regard to what they mean. Nothing may panic; what
//! is not refused as the caller's fault must be a request that the runtime can take, and must have an answer. Nor may memory
//! grow with what was read.
//!
//! `FUZZ_ITERATIONS` and `FUZZ_SEED` make a run longer or another. (`VOLLEY_...` would be settings of the server.)

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use volley_gpu_runtime::{DataType, Outputs, TensorSpec};

use crate::codec::{
    Answerer, Envelope, InferRequest, Interface, Message, ModelInferRequest, Pieces, Prediction, Unbound, encode,
    predict, respond, split,
};
use crate::config::Settings;
use crate::error::ApiError;
use crate::http::is_taken_and_read_as_hyper_reads_it;
use crate::memory::resident;

type Random = Xoshiro256PlusPlus;

const MAX_ROWS: usize = 4;

/// What the process may grow by after the first tenth of a run, in bytes. The smallest piece of
/// memory that can be lost has 32: in a run of two and a half million, one request in four would have to lose one.
const MOST_GROWTH: usize = 16 << 20;

/// What requests are bound to.
struct Model {
    inputs: Vec<TensorSpec>,
    outputs: Arc<[TensorSpec]>,
}

fn models() -> Vec<Model> {
    let spec =
        |name: &str, dtype, row_shape: &[usize]| TensorSpec { name: name.into(), dtype, row_shape: row_shape.to_vec() };
    let outputs = |dtype| -> Arc<[TensorSpec]> { [spec("y", dtype, &[2]), spec("z", DataType::Int64, &[])].into() };
    let mut models: Vec<Model> = [DataType::Fp32, DataType::Fp16, DataType::Uint64, DataType::Bool]
        .map(|dtype| Model { inputs: vec![spec("x", dtype, &[3])], outputs: outputs(DataType::Fp32) })
        .into();
    let two = vec![spec("x", DataType::Fp32, &[3]), spec("n", DataType::Int8, &[])];
    models.push(Model { inputs: two, outputs: outputs(DataType::Bf16) });
    models
}

/// What came of the input: how much was accepted, and each refusal by its words without numbers.
#[derive(Default)]
struct Tally {
    accepted: usize,
    refusals: BTreeMap<String, usize>,
}

impl Tally {
    fn refused(&mut self, error: &ApiError) {
        assert!((400..500).contains(&error.status().as_u16()), "{error:?}");
        assert!(!error.message.is_empty());
        // A field and the first words after it.
        let words = error.message.split([':', ';', '`']).take(2).collect::<String>();
        let words: String =
            words.chars().filter(|c| c.is_ascii_alphabetic() || " ._[]".contains(*c)).take(48).collect();
        *self.refusals.entry(words).or_default() += 1;
    }

    /// A request that was accepted fits its model, and has an answer in the form in which it was asked.
    fn take(
        &mut self,
        bound: Result<InferRequest, ApiError>,
        model: &Model,
        answer: impl Fn(Answerer<'_>, &InferRequest, &Outputs),
    ) {
        let request = match bound {
            Ok(request) => request,
            Err(error) => return self.refused(&error),
        };
        self.accepted += 1;
        assert!((1..=MAX_ROWS).contains(&request.rows));
        for (values, spec) in request.inputs.iter().zip(&model.inputs) {
            assert_eq!(values.len(), request.rows * spec.row_bytes());
        }
        assert_eq!(request.inputs.len(), model.inputs.len());
        let bytes: usize = model.outputs.iter().map(|spec| spec.row_bytes() * request.rows).sum();
        let outputs = Outputs::from_joined(vec![0; bytes].into(), &model.outputs, request.rows).expect("they fit");
        let answerer = Answerer { model: "net", version: "1", outputs: &model.outputs, participation: None };
        answer(answerer, &request, &outputs);
    }
}

struct Fuzz {
    random: Random,
    models: Vec<Model>,
    tally: Tally,
}

/// A number of the environment.
fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Whether this process runs no other test than `test`, so that its memory tells something. If not, one is started that
/// does, and waited for.
fn alone(test: &str) -> bool {
    const ALONE: &str = "FUZZ_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let program = std::env::current_exe().expect("this program has a path");
    let arguments = [&format!("fuzz::{test}"), "--exact", "--nocapture"];
    let ended = Command::new(program).args(arguments).env(ALONE, "1").output().expect("it can be started");
    let said = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
    eprintln!("{said}");
    assert!(ended.status.success() && said.contains("1 passed"), "{test} failed in a process of its own");
    false
}

/// How often each parser of requests is tried.
fn iterations() -> usize {
    number("FUZZ_ITERATIONS", 20_000)
}

impl Fuzz {
    /// Runs so many iterations, and checks that they were not all in vain.
    fn run(name: &str, iterations: usize, mut iterate: impl FnMut(&mut Self, bool)) -> Self {
        let random = Random::seed_from_u64(number("FUZZ_SEED", 1) as u64);
        let mut fuzz = Self { random, models: models(), tally: Tally::default() };
        let mut settled = 0;
        for iteration in 0..iterations {
            if iteration == iterations / 10 {
                settled = resident();
            }
            iterate(&mut fuzz, iteration % 2 == 0);
        }
        let grown = resident().saturating_sub(settled);
        let Tally { accepted, refusals } = &fuzz.tally;
        eprintln!(
            "{name}: {iterations} iterations, {accepted} accepted, {} different refusals; {:.1} MB resident after a tenth, \
             {:.1} MB more at the end",
            refusals.len(),
            settled as f64 / 1e6,
            grown as f64 / 1e6
        );
        assert!(*accepted * 500 > iterations, "only {accepted} of {iterations} were accepted");
        assert!(grown < MOST_GROWTH, "the process grew by {grown} bytes");
        fuzz
    }

    fn below(&mut self, count: usize) -> usize {
        self.random.random_range(0..count)
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// A value that a careless caller might send anywhere.
    fn odd(&mut self) -> Value {
        let all = [
            json!(null),
            json!(true),
            json!(0),
            json!(-1),
            json!(1),
            json!(3),
            json!(u64::MAX),
            json!(i64::MIN),
            json!(1.5),
            json!(1e300),
            json!(""),
            json!("x"),
            json!("critical"),
            json!("INT8"),
            json!([]),
            json!([[]]),
            json!([1, 2, 3]),
            json!({}),
            json!({ "x": [1, 2, 3] }),
            json!({ "priority": 9, "binary_data_size": 12 }),
        ];
        all[self.below(all.len())].clone()
    }

    /// Alters something in it, or something in that.
    fn spoil(&mut self, value: &mut Value) {
        match value {
            Value::Object(members) if !members.is_empty() && !self.one_in(6) => {
                let name = members.keys().nth(self.below(members.len())).expect("it has some").clone();
                match self.below(8) {
                    0 => drop(members.remove(&name)),
                    1 => drop(members.insert("further".into(), self.odd())),
                    _ => self.spoil(&mut members[&name]),
                }
            }
            Value::Array(elements) if !elements.is_empty() && !self.one_in(6) => {
                let at = self.below(elements.len());
                match self.below(8) {
                    0 => drop(elements.remove(at)),
                    1 => elements.push(elements[at].clone()),
                    _ => self.spoil(&mut elements[at]),
                }
            }
            _ => *value = self.odd(),
        }
    }

    /// Alters bytes without regard to what they mean.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        const TOKENS: [&[u8]; 8] = [b"{", b"[[", b"]", b"\"", b"1e999", b"null", b"\xff\xff\xff\xff\x0f", b"\\ud800"];
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(5) {
                0 => bytes.truncate(at),
                1 => drop(bytes.splice(at..at, TOKENS[self.below(TOKENS.len())].iter().copied())),
                2 => {
                    let end = (at + self.below(16)).min(bytes.len());
                    drop(bytes.drain(at..end));
                }
                3 => {
                    let from = self.below(bytes.len() + 1);
                    let piece = bytes[from..(from + self.below(32)).min(bytes.len())].to_vec();
                    drop(bytes.splice(at..at, piece));
                }
                _ => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << self.random.random_range(0..8);
                    }
                }
            }
        }
    }

    /// A good request in JSON for one of the models, which it names.
    fn good(&mut self, binary: bool) -> (usize, Value, Vec<u8>) {
        let index = self.below(self.models.len());
        let rows = 1 + self.below(MAX_ROWS);
        let mut raw = Vec::new();
        let mut inputs = Vec::new();
        for spec in self.models[index].inputs.clone() {
            let count = rows * spec.row_elements();
            let shape: Vec<usize> = std::iter::once(rows).chain(spec.row_shape.iter().copied()).collect();
            let mut input = json!({ "name": spec.name, "shape": shape, "datatype": spec.dtype.name() });
            if binary {
                input["parameters"] = json!({ "binary_data_size": count * spec.dtype.size() });
                raw.resize(raw.len() + count * spec.dtype.size(), 1);
            } else {
                input["data"] = vec![json!(1); count].into();
            }
            inputs.push(input);
        }
        let mut request = json!({ "inputs": inputs, "parameters": { "binary_data_output": true } });
        if self.one_in(2) {
            request["outputs"] = json!([{ "name": "z", "parameters": { "binary_data": self.one_in(2) } }]);
        }
        (index, request, raw)
    }

    /// The bytes of a file of the corpus, or of something good, damaged.
    fn damaged(&mut self, corpus: &[Vec<u8>], good: &Value) -> Vec<u8> {
        let mut bytes = if self.one_in(2) || corpus.is_empty() {
            good.to_string().into_bytes()
        } else {
            corpus[self.below(corpus.len())].clone()
        };
        self.damage(&mut bytes);
        bytes
    }

    fn interface(model: &Model) -> Interface<'_> {
        Interface { inputs: &model.inputs, outputs: &model.outputs, max_rows: MAX_ROWS, allow_non_finite: false }
    }
}

fn corpus(folder: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder);
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("the corpus is kept").map(|file| file.expect("a file").path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("a file")).collect()
}

/// Cuts a body into pieces as reads from a socket might.
fn pieces(random: &mut Random, body: &Bytes) -> Pieces {
    let mut pieces = Pieces::default();
    let mut at = 0;
    while at < body.len() {
        let end = (at + random.random_range(1..=body.len())).min(body.len());
        pieces.push(body.slice(at..end));
        at = end;
    }
    pieces
}

fn v2(name: &str, folder: &str, binary: bool) {
    let corpus = corpus(folder);
    Fuzz::run(name, iterations(), |fuzz, structured| {
        let (index, mut request, mut raw) = fuzz.good(binary);
        let json = if structured {
            if !fuzz.one_in(8) {
                fuzz.spoil(&mut request);
            }
            request.to_string().into_bytes()
        } else {
            fuzz.damaged(&corpus, &request)
        };
        if fuzz.one_in(16) {
            fuzz.damage(&mut raw);
        }
        let mut length = binary.then_some(json.len());
        if binary && fuzz.one_in(16) {
            length = Some(fuzz.below(2 * json.len() + 1));
        }
        let body = pieces(&mut fuzz.random, &[json, raw].concat().into());
        let Fuzz { models, tally, .. } = fuzz;
        let model = &models[index];
        let bound =
            split(body, length).and_then(|(json, binary)| Envelope::read(&json, binary)?.bind(Fuzz::interface(model)));
        tally.take(bound, model, |answerer, request, outputs| {
            let encoded = encode(answerer, request, outputs);
            let json = &encoded.body[..encoded.json_length.unwrap_or(encoded.body.len())];
            serde_json::from_slice::<Value>(json).expect("the answer is JSON");
        });
    });
}

#[test]
fn no_json_body_breaks_the_codec() {
    if !alone("no_json_body_breaks_the_codec") {
        return;
    }
    v2("json", "v2", false);
}

#[test]
fn no_binary_body_breaks_the_codec() {
    if !alone("no_binary_body_breaks_the_codec") {
        return;
    }
    v2("binary", "binary", true);
}

#[test]
fn no_v1_body_breaks_the_codec() {
    if !alone("no_v1_body_breaks_the_codec") {
        return;
    }
    let corpus = corpus("v1");
    Fuzz::run("v1", iterations(), |fuzz, structured| {
        let index = fuzz.below(fuzz.models.len());
        let rows = 1 + fuzz.below(MAX_ROWS);
        let of_row: serde_json::Map<String, Value> = fuzz.models[index]
            .inputs
            .iter()
            .map(|spec| (spec.name.clone(), if spec.row_shape.is_empty() { json!(1) } else { json!([1, 0, 1]) }))
            .collect();
        let mut request = match fuzz.below(2) {
            0 => json!({ "instances": vec![of_row; rows] }),
            _ => {
                let whole = of_row.into_iter().map(|(name, row)| (name, vec![row; rows].into()));
                json!({ "inputs": whole.collect::<serde_json::Map<String, Value>>() })
            }
        };
        let body = if structured {
            if !fuzz.one_in(8) {
                fuzz.spoil(&mut request);
            }
            request.to_string().into_bytes()
        } else {
            fuzz.damaged(&corpus, &request)
        };
        let Fuzz { models, tally, .. } = fuzz;
        let model = &models[index];
        let read = Prediction::read(&body);
        let by_row = read.as_ref().is_ok_and(Prediction::by_row);
        let bound = read.and_then(|prediction| prediction.bind(Fuzz::interface(model)));
        tally.take(bound, model, |answerer, request, outputs| {
            let body = predict(answerer, request, outputs, by_row);
            serde_json::from_slice::<Value>(&body).expect("the answer is JSON");
        });
    });
}

#[test]
fn no_message_breaks_the_codec() {
    if !alone("no_message_breaks_the_codec") {
        return;
    }
    Fuzz::run("message", iterations(), |fuzz, structured| {
        let (index, request, _) = fuzz.good(true);
        let mut message = written(&request, fuzz);
        let random = &mut fuzz.random;
        if !structured || random.random_range(0..8) == 0 {
            let bytes = &mut message;
            fuzz.damage(bytes);
        }
        let Ok(message) = ModelInferRequest::decode(&message[..]) else { return };
        let Fuzz { models, tally, .. } = fuzz;
        let model = &models[index];
        let bound = Message::read(message).and_then(|message| message.bind(Fuzz::interface(model)));
        tally.take(bound, model, |answerer, request, outputs| {
            let response = respond(answerer, request, outputs).encode_to_vec();
            assert!(!response.is_empty());
        });
    });
}

/// A request as a message, field by field, with a few of the fields' values odd.
fn written(request: &Value, fuzz: &mut Fuzz) -> Vec<u8> {
    fn field(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
        prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, out);
        prost::encoding::encode_varint(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    }
    let mut message = Vec::new();
    field(&mut message, 1, b"net");
    let inputs = request["inputs"].as_array().cloned().unwrap_or_default();
    let typed = fuzz.one_in(4);
    for input in &inputs {
        let mut tensor = Vec::new();
        let text = |value: &Value| value.as_str().unwrap_or_default().as_bytes().to_vec();
        let name = if fuzz.one_in(32) { b"other".to_vec() } else { text(&input["name"]) };
        field(&mut tensor, 1, &name);
        field(&mut tensor, 2, &text(&input["datatype"]));
        let axes = input["shape"].as_array().cloned().unwrap_or_default();
        for axis in axes {
            let odd = fuzz.one_in(32);
            prost::encoding::int64::encode(3, &if odd { -1 } else { axis.as_i64().unwrap_or(0) }, &mut tensor);
        }
        let size = input["parameters"]["binary_data_size"].as_u64().unwrap_or(0) as usize;
        let size = if fuzz.one_in(16) { fuzz.below(64) } else { size };
        if typed {
            let mut contents = Vec::new();
            match fuzz.below(3) {
                0 => prost::encoding::float::encode_packed(6, &vec![1.0; size / 4], &mut contents),
                1 => prost::encoding::uint64::encode_packed(5, &vec![1; size / 8], &mut contents),
                _ => prost::encoding::int32::encode_packed(2, &vec![fuzz.below(200) as i32; size], &mut contents),
            }
            field(&mut tensor, 5, &contents);
        } else {
            field(&mut message, 7, &vec![1; size]);
        }
        field(&mut message, 5, &tensor);
    }
    if fuzz.one_in(4) {
        let mut entry = Vec::new();
        field(&mut entry, 1, [&b"priority"[..], b"timeout", b"cache", b"variant"][fuzz.below(4)]);
        let mut value = Vec::new();
        match fuzz.below(4) {
            0 => prost::encoding::bool::encode(1, &true, &mut value),
            1 => prost::encoding::int64::encode(2, &(fuzz.below(8) as i64 - 2), &mut value),
            2 => field(&mut value, 3, b"low"),
            _ => prost::encoding::double::encode(4, &1.5, &mut value),
        }
        field(&mut entry, 2, &value);
        field(&mut message, 4, &entry);
    }
    message
}

/// The bytes of a request by HTTP, with a few things odd.
fn head(fuzz: &mut Fuzz, structured: bool) -> Vec<u8> {
    const METHODS: [&str; 3] = ["GET", "post", "POST "];
    const PATHS: [&str; 8] = [
        "/v2/models/a%20b/versions/3/infer",
        "/v1/models/net:predict",
        "/v2/models/net/infer?a",
        "/v2/models/../infer",
        "http://x/v2/models/net/infer",
        "*",
        "/v2/models/net/infer#a",
        "/v2/models//infer",
    ];
    const NAMES: [&str; 16] = [
        "Host",
        "Content-Type",
        "Inference-Header-Content-Length",
        "X-Request-Id",
        "traceparent",
        "Accept-Encoding",
        "AUTHORIZATION",
        "x-api-key",
        "Origin",
        "Connection",
        "Transfer-Encoding",
        "Content-Encoding",
        "Expect",
        "Content-Length",
        "Upgrade",
        "X",
    ];
    const VALUES: [&str; 12] =
        ["x", "", "keep-alive", "close", "chunked", "gzip", " 3 ", "3", "\u{e9}", "a, b", "0", "100-continue"];
    let mut pick = |odd: usize, usual: &'static str, others: &[&'static str]| {
        if fuzz.one_in(odd) { others[fuzz.below(others.len())] } else { usual }
    };
    let mut text = format!(
        "{} {} {}\r\n",
        pick(16, "POST", &METHODS),
        pick(4, "/v2/models/net/infer", &PATHS),
        pick(16, "HTTP/1.1", &["HTTP/1.0", "HTTP/2.0", "http/1.1", ""])
    );
    let body = fuzz.below(40);
    let length = if fuzz.one_in(8) { fuzz.below(80) } else { body };
    text += &format!("Content-Length: {length}\r\n");
    for _ in 0..fuzz.below(5) {
        // Those at the front are harmless.
        let count = if fuzz.one_in(4) { NAMES.len() } else { 9 };
        text += &format!("{}: {}\r\n", NAMES[fuzz.below(count)], VALUES[fuzz.below(VALUES.len())]);
    }
    text += "\r\n";
    let mut bytes = text.into_bytes();
    bytes.resize(bytes.len() + body, b'x');
    if !structured {
        fuzz.damage(&mut bytes);
    }
    bytes
}

#[test]
fn no_head_is_read_in_two_ways() {
    if !alone("no_head_is_read_in_two_ways") {
        return;
    }
    Fuzz::run("head", iterations() / 4, |fuzz, structured| {
        let bytes = head(fuzz, structured);
        fuzz.tally.accepted += usize::from(is_taken_and_read_as_hyper_reads_it(&bytes));
    });
}

#[test]
fn no_configuration_file_breaks_the_server() {
    if !alone("no_configuration_file_breaks_the_server") {
        return;
    }
    let corpus = corpus("config");
    let file = std::env::temp_dir().join(format!("volley-fuzz-{}.toml", std::process::id()));
    Fuzz::run("config", iterations() / 20, |fuzz, _| {
        let mut bytes = corpus[fuzz.below(corpus.len())].clone();
        fuzz.damage(&mut bytes);
        fs::write(&file, &bytes).expect("the temporary folder is writable");
        match Settings::read(Some(&file), None, Vec::new()) {
            Ok(_) => fuzz.tally.accepted += 1,
            Err(errors) => assert!(!errors.to_string().is_empty()),
        }
    });
    fs::remove_file(file).expect("it was made above");
}

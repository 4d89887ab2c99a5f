//! Whole journeys over gRPC through the real program.

mod common;

use std::io::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::grpc::{
    Client, Contents, InferRequest, InferResponse, Input, Named, Nothing, Output, Parameter, SERVICE, StreamResponse,
    framed, raw_request,
};
use common::{Connection, ServerProcess, binary_request, eventually, held, window};
use prost::Message;
use serde_json::json;

const INVALID: u32 = 3;
const DEADLINE: u32 = 4;
const NOT_FOUND: u32 = 5;
const EXHAUSTED: u32 = 8;
const UNIMPLEMENTED: u32 = 12;
const UNAVAILABLE: u32 = 14;

#[derive(Clone, PartialEq, Message)]
struct Yes {
    #[prost(bool, tag = "1")]
    yes: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Index {
    #[prost(message, repeated, tag = "1")]
    models: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
    #[prost(string, tag = "3")]
    state: String,
}

#[derive(Clone, PartialEq, Message)]
struct ModelName {
    #[prost(string, tag = "2")]
    model: String,
}

fn cnn_lstm() -> Named {
    Named { name: "cnn_lstm".into(), version: String::new() }
}

#[test]
fn health_is_told_and_what_is_not_offered_is_said_to_be_so() {
    let server = ServerProcess::start(&[]);
    let mut client = Client::to(server.grpc);
    assert!(client.call("ServerLive", &[], &Nothing {}).read::<Yes>().yes);
    assert!(client.call("ServerReady", &[], &Nothing {}).read::<Yes>().yes);
    assert!(client.call("ModelReady", &[], &cnn_lstm()).read::<Yes>().yes);
    let serving = client.call_raw("/grpc.health.v1.Health/Check", &[], vec![framed(&[], false)]);
    assert_eq!(serving.messages[0][..], [8, 1], "field 1 is 1: serving");

    let missing = client.call("ModelMetadata", &[], &Named { name: "other".into(), version: String::new() });
    assert_eq!(missing.code, NOT_FOUND);
    assert!(missing.message.contains("`other` is not served; served: cnn_lstm"), "{}", missing.message);
    // Callers wait in a loop for a model to be ready: that it is not there is no error.
    for other in [Named { version: "9".into(), ..cnn_lstm() }, Named { name: "other".into(), version: String::new() }] {
        assert!(!client.call("ModelReady", &[], &other).read::<Yes>().yes, "{other:?}");
    }
    assert_eq!(client.call("TraceSetting", &[], &Nothing {}).code, UNIMPLEMENTED);
    assert_eq!(client.call_raw("/elsewhere.Service/Method", &[], vec![framed(&[], false)]).code, UNIMPLEMENTED);
    let shared = client.call("SystemSharedMemoryRegister", &[], &Nothing {});
    assert_eq!(shared.code, UNIMPLEMENTED);
    assert!(shared.message.contains("shared memory is not offered"), "{}", shared.message);
}

#[test]
fn raw_and_typed_values_are_answered_as_over_http() {
    let server = ServerProcess::start(&[]);
    let windows: Vec<_> = (0..7).map(window).collect();
    let over_http = server.connect().infer(&binary_request(&windows, &json!({ "cache": false })));
    let mut client = Client::to(server.grpc);
    let raw = InferRequest { id: "order 66".into(), ..raw_request(&windows) };
    let headers = [("x-request-id", "edge-42"), ("traceparent", "00-1-2-01")];
    let ended = client.call("ModelInfer", &headers, &raw);
    for (name, value) in headers {
        assert_eq!(ended.headers[name], value);
    }
    let answer: InferResponse = ended.read();
    assert_eq!(
        (answer.id.as_str(), answer.model_name.as_str(), answer.model_version.as_str()),
        ("order 66", "cnn_lstm", "1")
    );
    assert_eq!((answer.outputs[0].shape.as_slice(), answer.outputs[0].datatype.as_str()), (&[7, 128][..], "FP32"));
    for output in [0, 1] {
        assert_eq!(answer.values(output), over_http.values(output), "output {output}");
    }
    let mut typed = InferRequest { raw: Vec::new(), ..raw };
    typed.inputs[0].contents = Some(Contents { floats: windows.concat(), ..Default::default() });
    typed.outputs = vec![Output { name: "prediction".into(), ..Default::default() }];
    let answer: InferResponse = client.call("ModelInfer", &[], &typed).read();
    assert_eq!(answer.raw.len(), 1);
    assert_eq!(answer.values(0), over_http.values(1));
}

#[test]
fn every_malformed_call_is_told_what_is_wrong_and_the_connection_goes_on() {
    let server = ServerProcess::start(&[]);
    let mut client = Client::to(server.grpc);
    let good = || raw_request(&[window(1)]);
    let parameter = |name: &str, value: Parameter| {
        let mut request = good();
        request.parameters.insert(name.into(), value);
        request
    };
    let input = |spoil: fn(&mut Input)| {
        let mut request = good();
        spoil(&mut request.inputs[0]);
        request
    };
    let typed = |contents: Contents| {
        let mut request = InferRequest { raw: Vec::new(), ..good() };
        request.inputs[0].contents = Some(contents);
        request
    };
    let output = |name: &str, parameter: Option<&str>| {
        let parameters = parameter.map(|name| (name.to_owned(), Parameter { int64: Some(1), ..Default::default() }));
        InferRequest {
            outputs: vec![Output { name: name.into(), parameters: parameters.into_iter().collect() }],
            ..good()
        }
    };
    let number = |value| Parameter { int64: Some(value), ..Default::default() };
    let text = |value: &str| Parameter { string: Some(value.into()), ..Default::default() };
    let mut nan = window(1);
    nan[7] = f32::NAN;
    let cases = [
        ("no model", InferRequest { model_name: String::new(), ..good() }, NOT_FOUND, "model ``"),
        ("another version", InferRequest { model_version: "2".into(), ..good() }, NOT_FOUND, "version `2`"),
        (
            "no inputs",
            InferRequest { inputs: vec![], raw: vec![], ..good() },
            INVALID,
            "inputs: input `input` is missing",
        ),
        ("no values", InferRequest { raw: vec![], ..good() }, INVALID, "inputs[0].contents: missing"),
        ("a tensor too many", InferRequest { raw: vec![vec![], vec![]], ..good() }, INVALID, "raw_input_contents: 2"),
        (
            "values cut short",
            InferRequest { raw: vec![vec![0; 11_999]], ..good() },
            INVALID,
            "raw_input_contents[0]: 11999",
        ),
        ("a NaN", raw_request(&[nan]), INVALID, "inputs[0].data: holds a NaN"),
        ("another name", input(|input| input.name = "window".into()), INVALID, "inputs[0].name"),
        ("another datatype", input(|input| input.datatype = "FP64".into()), INVALID, "inputs[0].datatype"),
        ("no shape", input(|input| input.shape.clear()), INVALID, "inputs[0].shape"),
        ("a negative axis", input(|input| input.shape[0] = -1), INVALID, "inputs[0].shape[0]: -1"),
        ("too many rows", input(|input| input.shape[0] = i64::MAX), INVALID, "inputs[0].shape"),
        (
            "values twice",
            input(|input| input.contents = Some(Contents::default())),
            INVALID,
            "inputs[0].contents: given",
        ),
        (
            "shared memory",
            input(|input| drop(input.parameters.insert("shared_memory_region".into(), Parameter::default()))),
            INVALID,
            "inputs[0].parameters.shared_memory_region",
        ),
        (
            "too few values",
            typed(Contents { floats: vec![0.5], ints: vec![] }),
            INVALID,
            "inputs[0].contents.fp32_contents: 1",
        ),
        (
            "values of another type",
            typed(Contents { ints: vec![1; 3000], floats: vec![] }),
            INVALID,
            "inputs[0].contents.int_contents: given for an input of FP32",
        ),
        ("another output", output("logits", None), INVALID, "outputs[0].name"),
        (
            "classification",
            output("prediction", Some("classification")),
            INVALID,
            "outputs[0].parameters.classification",
        ),
        ("a priority out of range", parameter("priority", number(9)), INVALID, "parameters.priority"),
        ("a negative priority", parameter("priority", number(-1)), INVALID, "parameters.priority"),
        ("an unknown lane", parameter("priority", text("urgent")), INVALID, "parameters.priority"),
        ("a timeout of text", parameter("timeout", text("5ms")), INVALID, "parameters.timeout"),
        ("an unknown variant", parameter("variant", text("fp4")), INVALID, "parameters.variant"),
        ("a timeout that is too short", parameter("timeout", number(1)), DEADLINE, "parameters.timeout"),
    ];
    for (name, request, code, field) in &cases {
        let ended = client.call("ModelInfer", &[], request);
        assert_eq!(ended.code, *code, "{name}: {}", ended.message);
        assert!(ended.message.contains(field), "{name}: {:?} does not name {field}", ended.message);
    }
    assert_eq!(client.call("ModelInfer", &[("grpc-timeout", "1u")], &good()).code, DEADLINE);
    let garbage = client.call_raw(&format!("{SERVICE}ModelInfer"), &[], vec![framed(&[0xff; 64], false)]);
    assert_eq!(garbage.code, INVALID, "{}", garbage.message);
    let cut = client.call_raw(&format!("{SERVICE}ModelInfer"), &[], vec![framed(&[8; 64], false).slice(..20)]);
    assert_ne!(cut.code, 0);
    let answer: InferResponse = client.call("ModelInfer", &[("grpc-timeout", "50S")], &good()).read();
    assert_eq!(answer.values(1).len(), 3, "the connection serves on");
}

#[test]
fn a_stream_is_answered_in_order_and_goes_on_after_a_refusal() {
    let server = ServerProcess::start(&[]);
    let mut client = Client::to(server.grpc);
    let alone: Vec<InferResponse> =
        (0..4).map(|seed| client.call("ModelInfer", &[], &raw_request(&[window(seed)])).read()).collect();
    let mut stream = client.open("ModelStreamInfer");
    for turn in 0..200 {
        let mut request = InferRequest { id: turn.to_string(), ..raw_request(&[window(turn % 4)]) };
        if turn % 10 == 9 {
            request.inputs[0].name = "window".into();
        }
        stream.send(&request);
    }
    for turn in 0..200 {
        let StreamResponse { error_message, response } = stream.next();
        let response = response.expect("an id at least");
        assert_eq!(response.id, turn.to_string());
        // What Triton's callers wait for.
        let is_last = response.parameters.get("triton_final_response").and_then(|parameter| parameter.bool);
        assert_eq!(is_last, Some(true));
        if turn % 10 == 9 {
            assert!(error_message.contains("inputs[0].name"), "{error_message}");
        } else {
            assert_eq!(error_message, "");
            let difference = response.values(0).into_iter().zip(alone[turn % 4].values(0)).map(|(a, b)| (a - b).abs());
            assert!(difference.fold(0.0_f32, f32::max) <= 1e-6, "answer {turn}");
        }
    }
    let ended = stream.finish();
    assert_eq!((ended.code, ended.messages.len()), (0, 0));
}

#[test]
fn a_compressed_message_is_read_and_answered_compressed_and_a_bomb_is_refused() {
    let server = ServerProcess::start(&[]);
    let mut client = Client::to(server.grpc);
    let message = raw_request(&[window(1), window(2)]).encode_to_vec();
    let path = format!("{SERVICE}ModelInfer");
    let plain: InferResponse = client.call_raw(&path, &[], vec![framed(&message, false)]).read();
    for encoding in ["gzip", "deflate"] {
        let packed = |bytes: &[u8]| {
            if encoding == "gzip" {
                let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                packer.write_all(bytes).expect("memory");
                packer.finish().expect("memory")
            } else {
                let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
                packer.write_all(bytes).expect("memory");
                packer.finish().expect("memory")
            }
        };
        let quiet = [("grpc-encoding", encoding)];
        let headers = [quiet[0], ("grpc-accept-encoding", "identity,deflate,gzip")];
        let ended = client.call_raw(&path, &headers, vec![framed(&packed(&message), true)]);
        assert_eq!((ended.code, &ended.compressed[..]), (0, &[true][..]), "{}", ended.message);
        let uncompressed: InferResponse = client.call_raw(&path, &quiet, vec![framed(&packed(&message), true)]).read();
        assert_eq!(uncompressed, plain);
        let bomb = client.call_raw(&path, &headers, vec![framed(&packed(&vec![0; 64 << 20]), true)]);
        assert_eq!(bomb.code, EXHAUSTED, "{}", bomb.message);
        let large = client.call_raw(&path, &quiet, vec![framed(&vec![0; 17 << 20], true).slice(..1000)]);
        assert_eq!(large.code, EXHAUSTED, "{}", large.message);
        assert!(large.message.contains("http.max_body_bytes"), "{}", large.message);
    }
    let asked = [("grpc-accept-encoding", "identity,deflate,gzip")];
    assert_eq!(client.call_raw(&path, &asked, vec![framed(&message, false)]).compressed, [false]);
    let large = client.call_raw(&path, &[], vec![framed(&vec![0; 17 << 20], false).slice(..1000)]);
    assert_eq!(large.code, EXHAUSTED, "{}", large.message);
    assert!(large.message.contains("http.max_body_bytes"), "{}", large.message);
}

#[test]
fn a_call_that_its_caller_gives_up_is_counted_as_cancelled() {
    let server = ServerProcess::start(&[("VOLLEY_RUNTIME__WORKERS", "1")]);
    // Whether a call was read, and not yet answered, when its caller left is for the system to say: some soon are, if
    // callers have more patience and less.
    let until = Instant::now() + Duration::from_secs(60);
    let mut patience = [1, 2, 4, 8, 16, 32, 64].map(|ms| Duration::from_micros(500 * ms)).into_iter().cycle();
    loop {
        let patience = patience.next().expect("it goes round");
        Client::to(server.grpc).call_and_leave("ModelInfer", &raw_request(&vec![window(9); 8]), 32, patience);
        let text = server.metrics();
        let mut cancelled = text.lines().filter(|line| line.contains(r#"reason="cancelled""#));
        if cancelled.any(|line| !line.ends_with(" 0")) {
            break;
        }
        assert!(Instant::now() < until, "none was counted\n{text}");
    }
}

#[test]
fn models_come_and_go_by_calls() {
    let server = ServerProcess::start(&[]);
    let mut client = Client::to(server.grpc);
    let entry =
        |version: &str, state: &str| Entry { name: "cnn_lstm".into(), version: version.into(), state: state.into() };
    assert_eq!(client.call("RepositoryIndex", &[], &Nothing {}).read::<Index>().models, [entry("1", "READY")]);
    let model = ModelName { model: "cnn_lstm".into() };
    assert_eq!(client.call("RepositoryModelUnload", &[], &model).code, 0);
    assert_eq!(client.call("RepositoryIndex", &[], &Nothing {}).read::<Index>().models, [entry("", "UNAVAILABLE")]);
    assert_eq!(client.call("ModelInfer", &[], &raw_request(&[window(1)])).code, NOT_FOUND);
    assert_eq!(client.call("RepositoryModelLoad", &[], &model).code, 0);
    assert_eq!(client.call("ModelInfer", &[], &raw_request(&[window(1)])).code, 0);
    let other = client.call("RepositoryModelLoad", &[], &ModelName { model: "other".into() });
    assert_eq!(other.code, NOT_FOUND, "{}", other.message);
}

#[test]
fn what_was_sent_is_answered_after_sigterm_and_an_open_stream_is_told_to_go_elsewhere() {
    let server = ServerProcess::start(&[("VOLLEY_SHUTDOWN__LINGER", "0s")]);
    let mut client = Client::to(server.grpc);
    let mut stream = client.open("ModelStreamInfer");
    for _ in 0..20 {
        stream.send(&raw_request(&vec![window(3); 8]));
    }
    let first: StreamResponse = stream.next();
    assert_eq!(first.error_message, "");
    server.terminate();
    let ended = stream.wait();
    assert_eq!(ended.code, UNAVAILABLE, "{}", ended.message);
    let errors: Vec<String> = ended
        .messages
        .iter()
        .map(|message| StreamResponse::decode(&message[..]).expect("a message").error_message)
        .filter(|error| !error.is_empty())
        .collect();
    assert_eq!(errors, [""; 0]);
    let (success, log) = server.wait();
    assert!(success, "it ends well: {log:?}");
}

/// Takes so many bytes of a body over HTTP, and leaves the last one out.
fn hold(server: &ServerProcess, bytes: usize) -> Connection {
    let mut holding = server.connect();
    let head =
        format!("POST /v2/models/cnn_lstm/infer HTTP/1.1\r\nHost: volley\r\nContent-Length: {}\r\n\r\n", bytes + 1);
    holding.write_raw(&[head.as_bytes(), &vec![b' '; bytes]].concat());
    holding
}

fn let_go(mut holding: Connection) {
    holding.write_raw(b" ");
    assert_eq!(holding.read().expect("an answer").status, 400);
}

#[test]
fn messages_for_which_there_is_no_room_are_refused_as_over_http() {
    let server =
        ServerProcess::start(&[("VOLLEY_LIMITS__BODY_BYTES", "40000"), ("VOLLEY_HTTP__MAX_BODY_BYTES", "40000")]);
    let mut client = Client::to(server.grpc);
    let asked = raw_request(&vec![vec![0.0; 3000]; 2]);
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(&asked.encode_to_vec()).expect("memory");
    let packed = framed(&packer.finish().expect("memory"), true);
    let path = format!("{SERVICE}ModelInfer");
    let gzip = [("grpc-encoding", "gzip")];
    let in_stream = |client: &mut Client, frame: &Bytes| {
        client.call_raw(&format!("{SERVICE}ModelStreamInfer"), &gzip, vec![frame.clone()])
    };
    let plain = framed(&asked.encode_to_vec(), false);
    let holding =
        held("the other body", || hold(&server, 30_000), || client.call("ModelInfer", &[], &asked).code == EXHAUSTED);
    let refused = client.call("ModelInfer", &[], &asked);
    assert_eq!((refused.code, refused.headers.get("retry-after").map(String::as_str)), (EXHAUSTED, Some("1")));
    assert!(refused.message.contains("limits.body_bytes"), "{}", refused.message);
    let overloaded = r#"batch_processing_rejections_total{reason="overloaded"}"#;
    let before = server.metric(overloaded);
    assert_eq!(client.call_raw(&path, &gzip, vec![packed.clone()]).code, EXHAUSTED, "it counts as it is inflated");
    assert_eq!(in_stream(&mut client, &plain).code, EXHAUSTED, "a stream with it ends");
    let answered = in_stream(&mut client, &packed);
    let answer = StreamResponse::decode(&answered.messages[0][..]).expect("a message");
    assert_eq!(answered.code, 0);
    assert!(answer.error_message.contains("limits.body_bytes"), "{}", answer.error_message);
    assert_eq!(server.metric(overloaded), before + 3.0);

    let_go(holding);
    for frame in [&plain, &packed] {
        assert_eq!(client.call_raw(&path, &gzip, vec![frame.clone()]).code, 0);
    }
    let mut stream = client.open("ModelStreamInfer");
    for _ in 0..10 {
        stream.send(&asked);
        let answer: StreamResponse = stream.next();
        assert_eq!(answer.error_message, "", "what was answered counts no more");
    }
    assert_eq!(stream.finish().code, 0);
}

#[test]
fn each_message_of_a_stream_is_let_in_for_itself() {
    let server = ServerProcess::start(&[("VOLLEY_LIMITS__REQUESTS", "1")]);
    let mut client = Client::to(server.grpc);
    let mut stream = client.open("ModelStreamInfer");
    let mut ask = || {
        stream.send(&raw_request(&[window(1)]));
        stream.next::<StreamResponse>().error_message
    };
    assert_eq!(ask(), "");
    let holding = held(
        "the other request",
        || hold(&server, 100),
        || server.connect().send("GET", "/v2", &[], b"").status == 503,
    );
    let refused = ask();
    assert!(refused.contains("limits.requests"), "the stream has no place of its own: {refused:?}");
    let_go(holding);
    eventually("room", || server.connect().send("GET", "/v2", &[], b"").status == 200);
    assert_eq!(ask(), "");
}

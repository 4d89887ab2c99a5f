//! The requests that everything else is made from.

use serde_json::{Value, json};
use volley_examples::message;

use crate::frames;

/// Good requests for the bundled model, in parts that can be spoilt.
#[derive(Debug)]
pub(crate) struct Good {
    /// The input: 50 features by 60 steps.
    pub window: Vec<f32>,
    /// The same as raw bytes.
    pub raw: Vec<u8>,
    /// V2 with all values in JSON.
    pub json: Value,
    /// V2 with the values as raw bytes behind it.
    pub binary: Value,
    /// V1, by row and by input.
    pub v1: [Value; 2],
    /// A message of `ModelInfer` with its prefix.
    pub message: Vec<u8>,
    /// Whole connections over HTTP/1.1, for those who alter bytes without regard to what they mean.
    pub http: Vec<Vec<u8>>,
    /// One over HTTP/2.
    pub http2: Vec<u8>,
}

impl Good {
    pub(crate) fn new() -> Self {
        // Whole numbers: as JSON they are short.
        let window: Vec<f32> = (0..3000).map(|at| f32::from((at % 7) as i8 - 3)).collect();
        let parameters = json!({ "cache": false, "priority": 2, "timeout": 500_000, "return_uncertainty": false });
        let raw = message::little_endian(&window);
        let rows: Vec<&[f32]> = window.chunks(60).collect();
        let json = json!({
            "id": "42",
            "parameters": parameters,
            "inputs": [{ "name": "input", "shape": [1, 50, 60], "datatype": "FP32", "data": window }],
            "outputs": [{ "name": "prediction", "parameters": { "binary_data": true } }],
        });
        let mut binary = json.clone();
        binary["inputs"][0] = json!({
            "name": "input", "shape": [1, 50, 60], "datatype": "FP32",
            "parameters": { "binary_data_size": raw.len() }
        });
        let v1 = [json!({ "instances": [{ "input": rows }] }), json!({ "inputs": { "input": [rows] } })];
        let message = message::grpc_inference("cnn_lstm", "input", &[1, 50, 60], &window);
        let http = vec![
            message::post("/v2/models/cnn_lstm/infer", "", json.to_string().as_bytes()),
            message::inference("cnn_lstm", "input", &[1, 50, 60], &window, &parameters),
            message::post("/v1/models/cnn_lstm:predict", "", v1[0].to_string().as_bytes()),
            message::request("GET", "/v2/models/cnn_lstm", "", b""),
            message::request("GET", "/v2/health/ready", "Connection: keep-alive\r\n", b""),
            message::request("POST", "/v2/repository/index", "Expect: 100-continue\r\n", b"{\"ready\": true}"),
        ];
        let http2 = frames::good(&message);
        Self { window, raw, json, binary, v1, message, http, http2 }
    }
}

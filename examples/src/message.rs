//! Requests as bytes, encoded once and sent as often as one likes.

use serde_json::{Value, json};

/// A whole HTTP/1.1 request; `headers` are whole lines.
#[must_use]
pub fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: volley\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A whole inference request for the binary32 `values` of the one input of `model`, with raw tensors both ways.
/// `parameters` are those of the request, an object.
#[must_use]
pub fn inference(model: &str, input: &str, shape: &[usize], values: &[f32], parameters: &Value) -> Vec<u8> {
    let mut parameters = parameters.clone();
    parameters["binary_data_output"] = true.into();
    let json = json!({
        "inputs": [{
            "name": input, "shape": shape, "datatype": "FP32",
            "parameters": { "binary_data_size": size_of_val(values) }
        }],
        "parameters": parameters,
    })
    .to_string();
    let header = format!("Inference-Header-Content-Length: {}\r\n", json.len());
    let body = [json.as_bytes(), &little_endian(values)].concat();
    post(&format!("/v2/models/{model}/infer"), &header, &body)
}

/// The bytes of `values` as the protocol has them.
#[must_use]
pub fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The values of one window of the bundled model, 50 features by 60 steps; others for another `seed`, all in [-1, 1].
#[must_use]
pub fn window(seed: usize) -> Vec<f32> {
    let scattered = |index: usize| (index as u32).wrapping_mul(2_654_435_761);
    (0..3000).map(|i| scattered(seed * 3000 + i) as f32 / 2_f32.powi(31) - 1.0).collect()
}

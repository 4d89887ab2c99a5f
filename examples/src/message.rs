//! Requests as bytes, encoded once and sent as often as one likes.

use serde_json::{Value, json};

/// A whole HTTP/1.1 `POST`; `headers` are whole lines.
#[must_use]
pub fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    request("POST", path, headers, body)
}

/// A whole HTTP/1.1 request; `headers` are whole lines.
#[must_use]
pub fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: volley\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
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

/// A message of `ModelInfer` with the prefix that gRPC gives it, for the binary32 `values` of the one input of `model`,
/// raw. Written by the numbers that the protocol publishes for its fields.
///
/// # Panics
/// If it had more than the four gigabytes that the prefix can say.
#[must_use]
pub fn grpc_inference(model: &str, input: &str, shape: &[usize], values: &[f32]) -> Vec<u8> {
    let shape: Vec<u8> = shape.iter().flat_map(|&size| varint(size)).collect();
    let input = [field(1, input.as_bytes()), field(2, b"FP32"), field(3, &shape)].concat();
    let message = [field(1, model.as_bytes()), field(5, &input), field(7, &little_endian(values))].concat();
    let length = u32::try_from(message.len()).expect("a request is smaller than four gigabytes");
    // Not compressed, so many bytes.
    [&[0][..], &length.to_be_bytes(), &message].concat()
}

/// A field of bytes in a protobuf message.
#[must_use]
pub fn field(number: usize, bytes: &[u8]) -> Vec<u8> {
    const LENGTH_DELIMITED: usize = 2;
    [&varint(number << 3 | LENGTH_DELIMITED), &varint(bytes.len()), bytes].concat()
}

/// A number of a protobuf message: seven bits a byte, the lowest first; all but the last have the highest bit set.
#[must_use]
pub fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_message_are_written_seven_bits_a_byte() {
        assert_eq!(varint(0), [0]);
        assert_eq!(varint(127), [0x7f]);
        assert_eq!(varint(300), [0xac, 0x02]);
        assert_eq!(field(7, b"ab"), [0x3a, 2, b'a', b'b']);
    }
}

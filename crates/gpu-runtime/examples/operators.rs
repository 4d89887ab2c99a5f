//! The operators of the domain `volley` as a library for a host with an ONNX Runtime of its own:
//!
//! ```sh
//! cargo build --release -p volley-gpu-runtime --example operators
//! ```
//!
//! ```python
//! options = onnxruntime.SessionOptions()
//! options.register_custom_ops_library("target/release/examples/liboperators.so")
//! session = onnxruntime.InferenceSession("models/repository/cnn_lstm/1/model.int8.onnx", options)
//! ```

use std::ffi::c_void;

/// The function that ONNX Runtime looks for in a custom-operator library.
///
/// # Safety
/// To be called by ONNX Runtime.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RegisterCustomOps(options: *mut c_void, api_base: *const c_void) -> *mut c_void {
    // SAFETY: the pointers are ONNX Runtime's, passed on.
    unsafe { volley_gpu_runtime::register_custom_ops(options, api_base) }
}

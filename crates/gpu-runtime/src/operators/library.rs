//! The operators for a host that has an ONNX Runtime of its own.

use std::ffi::{CString, c_void};

use ort::{AsPointer, ortsys, sys};

use super::domain;

/// Adds this crate's operators to a session of somebody else's ONNX Runtime: what a custom-operator library does in the
/// function `RegisterCustomOps` that it exports. The example `operators` is such a library.
///
/// `options` is the session's `OrtSessionOptions`, `api_base` the library's `OrtApiBase`; returned is null, or an
/// `OrtStatus` that says what went wrong. In a process that calls this, [`crate::Library`] cannot be loaded.
///
/// # Safety
/// Both pointers are those that ONNX Runtime, 1.24 or newer, passes to `RegisterCustomOps`.
#[must_use]
pub unsafe fn register_custom_ops(options: *mut c_void, api_base: *const c_void) -> *mut c_void {
    // SAFETY: the caller vouches for the pointer; the interface it leads to is static.
    let api = unsafe { ((*api_base.cast::<sys::OrtApiBase>()).GetApi)(sys::ORT_API_VERSION) };
    if api.is_null() {
        // It is too old for this interface, so there is no way to say so but its own log, where it has complained.
        return std::ptr::null_mut();
    }
    // SAFETY: not null, and a plain table of functions. Set once: later calls find the first in place.
    ort::set_api(unsafe { std::ptr::read(api) });
    let added = domain().and_then(|domain| {
        // ONNX Runtime uses it for as long as any session lives, and tells nobody how long that is.
        let domain = Box::leak(Box::new(domain));
        ortsys![unsafe AddCustomOpDomain(options.cast(), domain.ptr().cast_mut())?];
        Ok(())
    });
    added.map_or_else(|error| status(&error), |()| std::ptr::null_mut())
}

fn status(error: &ort::Error) -> *mut c_void {
    let message = CString::new(error.to_string()).unwrap_or_default();
    ortsys![unsafe CreateStatus(sys::OrtErrorCode::ORT_FAIL, message.as_ptr())].0.cast()
}

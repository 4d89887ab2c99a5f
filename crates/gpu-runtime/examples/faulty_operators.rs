//! An operator that fails, stalls or hangs when told to, for tests of what serves models: a custom-operator library.
//!
//! ```sh
//! cargo build -p volley-gpu-runtime --example faulty_operators
//! ```
//!
//! `Fault` (domain `volley.test`, float to float) hands its input on. At each run it reads the file that the
//! environment variable `FAULT_OPERATOR_FILE` names, and does first what is written there:
//!
//! | word | what it does |
//! |---|---|
//! | `pass`, or no file | nothing |
//! | `fail TEXT` | fails with the error TEXT |
//! | `refuse VALUE` | fails if VALUE is among its input |
//! | `stall MILLISECONDS` | sleeps for so long |
//! | `hang` | waits until the file says something else |
//!
//! `fail-once`, `stall-once` and `hang-once` are done by a single run, which takes the file away. `hang-once` waits
//! until there is a file again. A writer that must not be read halfway writes another file and renames it.
//! `tests/models/fault.onnx` is a model with this operator.

use std::ffi::{CString, c_void};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput};
use ort::value::TensorElementType;
use ort::{AsPointer, ortsys, sys};

/// How often a run that hangs looks whether it may go on.
const LOOK: Duration = Duration::from_millis(1);

struct Fault;

impl Operator for Fault {
    type Kernel<'attr> = FaultKernel;

    fn name(&self) -> &str {
        "Fault"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [OperatorInput::required(TensorElementType::Float32)]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, _: &KernelContext<'attr>) -> ort::Result<FaultKernel> {
        Ok(FaultKernel)
    }
}

struct FaultKernel;

impl Kernel for FaultKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let missing = || ort::Error::new("Fault: its input or its output is missing");
        let input = context.input(0)?.ok_or_else(missing)?;
        let (shape, input) = input.try_extract_tensor::<f32>()?;
        if let Some(file) = std::env::var_os("FAULT_OPERATOR_FILE") {
            obey(Path::new(&file), input).map_err(ort::Error::new)?;
        }
        let mut output = context.output(0, shape.to_vec())?.ok_or_else(missing)?;
        output.try_extract_tensor_mut::<f32>()?.1.copy_from_slice(input);
        Ok(())
    }
}

/// Does what the file says; an error is what it says to fail with, or what of it is not understood.
fn obey(file: &Path, input: &[f32]) -> Result<(), String> {
    let Some(order) = read(file) else { return Ok(()) };
    let (word, rest) = order.trim().split_once(char::is_whitespace).unwrap_or((order.trim(), ""));
    let (word, once) = word.strip_suffix("-once").map_or((word, false), |word| (word, true));
    if once && !take(file) {
        return Ok(());
    }
    match word {
        "pass" | "" => Ok(()),
        "fail" => Err(format!("Fault: {}", if rest.is_empty() { "told to fail" } else { rest })),
        "refuse" => {
            let value: f32 = rest.trim().parse().map_err(|_| format!("Fault: refuse {rest}: not a number"))?;
            if input.contains(&value) { Err(format!("Fault: {value} is refused")) } else { Ok(()) }
        }
        "stall" => {
            let milliseconds = rest.trim().parse().map_err(|_| format!("Fault: stall {rest}: not milliseconds"))?;
            thread::sleep(Duration::from_millis(milliseconds));
            Ok(())
        }
        "hang" => {
            let meanwhile = if once { None } else { Some(order) };
            while read(file) == meanwhile {
                thread::sleep(LOOK);
            }
            Ok(())
        }
        other => Err(format!("Fault: {other}: expected pass, fail, refuse, stall or hang")),
    }
}

/// `None` if there is no file.
fn read(file: &Path) -> Option<String> {
    std::fs::read_to_string(file).ok()
}

/// Takes the file away. Of several runs at once one does; for the others there is none.
fn take(file: &Path) -> bool {
    static TAKEN: AtomicU64 = AtomicU64::new(0);
    let number = TAKEN.fetch_add(1, Ordering::Relaxed);
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{}.{number}", std::process::id()));
    let taken = PathBuf::from(name);
    // Renamed, because of two that remove a file, both may be told that they did where a new one came in between.
    std::fs::rename(file, &taken).is_ok() && std::fs::remove_file(taken).is_ok()
}

/// The function that ONNX Runtime looks for in a custom-operator library.
///
/// # Safety
/// To be called by ONNX Runtime, 1.24 or newer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RegisterCustomOps(options: *mut c_void, api_base: *const c_void) -> *mut c_void {
    // SAFETY: the caller vouches for the pointer; the interface it leads to is static.
    let api = unsafe { ((*api_base.cast::<sys::OrtApiBase>()).GetApi)(sys::ORT_API_VERSION) };
    if api.is_null() {
        // It is too old for this interface, so there is no way to say so but its own log, where it has complained.
        return std::ptr::null_mut();
    }
    // SAFETY: not null, and a plain table of functions. Set once: later calls find the first in place.
    ort::set_api(unsafe { std::ptr::read(api) });
    let added = OperatorDomain::new("volley.test").and_then(|domain| domain.add(Fault)).and_then(|domain| {
        // ONNX Runtime uses it for as long as any session lives, and tells nobody how long that is.
        let domain = Box::leak(Box::new(domain));
        ortsys![unsafe AddCustomOpDomain(options.cast(), domain.ptr().cast_mut())?];
        Ok(())
    });
    let Err(error) = added else { return std::ptr::null_mut() };
    let message = CString::new(error.to_string()).unwrap_or_default();
    ortsys![unsafe CreateStatus(sys::OrtErrorCode::ORT_FAIL, message.as_ptr())].0.cast()
}

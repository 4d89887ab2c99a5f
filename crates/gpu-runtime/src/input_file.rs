//! Rows for a model out of a file, read one at a time.
//!
//! The file is in the safetensors format. Each model input is stored under its own name, `[N, ...row shape]`, with its rows
//! along the first axis, as many as the others. Other tensors may lie beside them: a golden file is such a file.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use crate::tensor::{DataType, TensorSpec};

/// Bytes of the longest description of tensors, as the format bounds it.
const LONGEST_HEADER: u64 = 100_000_000;

/// An open file of rows. Only its description is in memory, whatever its length.
#[derive(Debug)]
pub struct InputFile {
    path: PathBuf,
    file: File,
    rows: usize,
    inputs: Vec<Stored>,
}

/// An input's rows in the file.
#[derive(Debug)]
struct Stored {
    start: u64,
    row_bytes: usize,
}

impl InputFile {
    /// Opens the file at `path` for a model of these inputs.
    ///
    /// # Errors
    /// [`InputFileError`] when it cannot be read, is malformed, or lacks rows of one of the inputs.
    pub fn open(path: &Path, inputs: &[TensorSpec]) -> Result<Self, InputFileError> {
        let fail = |text: String| InputFileError { path: path.into(), text };
        let mut file = File::open(path).map_err(|error| fail(error.to_string()))?;
        let (tensors, data) = describe(&mut file).map_err(fail)?;
        let mut rows = None;
        let find = |spec: &TensorSpec| {
            let name = &spec.name;
            let tensor = tensors.info(name).ok_or_else(|| fail(format!("it holds no tensor `{name}`")))?;
            let fits = is_type(tensor.dtype, spec.dtype) && tensor.shape.get(1..) == Some(&spec.row_shape[..]);
            if !fits {
                let (dtype, shape) = (tensor.dtype, &tensor.shape);
                return Err(fail(format!("tensor `{name}` is {dtype:?} {shape:?}; expected {spec}")));
            }
            let of_it = tensor.shape[0];
            if of_it == 0 || *rows.get_or_insert(of_it) != of_it {
                return Err(fail(format!(
                    "tensor `{name}` has {of_it} rows; expected as many as the others, and some"
                )));
            }
            Ok(Stored { start: data + tensor.data_offsets.0 as u64, row_bytes: spec.row_bytes() })
        };
        let inputs = inputs.iter().map(find).collect::<Result<_, _>>()?;
        Ok(Self { path: path.into(), file, rows: rows.unwrap_or(0), inputs })
    }

    /// How many rows it has.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Reads a row: the values of each input, in the order of the model's inputs, little-endian.
    ///
    /// # Errors
    /// [`InputFileError`] when the file can no longer be read.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn read(&mut self, row: usize) -> Result<Vec<Vec<u8>>, InputFileError> {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        let Self { path, file, inputs, .. } = self;
        let read = |stored: &Stored| -> io::Result<Vec<u8>> {
            let mut values = vec![0; stored.row_bytes];
            file.seek(SeekFrom::Start(stored.start + row as u64 * stored.row_bytes as u64))?;
            file.read_exact(&mut values)?;
            Ok(values)
        };
        let fail = |error: io::Error| InputFileError { path: path.clone(), text: format!("row {row}: {error}") };
        inputs.iter().map(read).collect::<io::Result<_>>().map_err(fail)
    }
}

/// The file's tensors, and where their data begins.
fn describe(file: &mut File) -> Result<(Metadata, u64), String> {
    let plain = |error: io::Error| error.to_string();
    let length = file.metadata().map_err(plain)?.len();
    let mut header_length = [0; 8];
    file.read_exact(&mut header_length).map_err(|_| "it is too short for a safetensors file".to_owned())?;
    let header_length = u64::from_le_bytes(header_length);
    if header_length > LONGEST_HEADER || header_length > length - 8 {
        return Err(format!("it is no safetensors file: a header of {header_length} bytes in a file of {length}"));
    }
    let mut header = vec![0; header_length as usize];
    file.read_exact(&mut header).map_err(plain)?;
    let tensors: Metadata =
        serde_json::from_slice(&header).map_err(|error| format!("its header is malformed: {error}"))?;
    let (data, needed) = (8 + header_length, tensors.data_len() as u64);
    if length - data != needed {
        return Err(format!("it has {} bytes of values; its header says {needed}", length - data));
    }
    Ok((tensors, data))
}

/// Whether values stored as `stored` are those of `expected`.
pub(crate) fn is_type(stored: Dtype, expected: DataType) -> bool {
    matches!(
        (stored, expected),
        (Dtype::BOOL, DataType::Bool)
            | (Dtype::U8, DataType::Uint8)
            | (Dtype::U16, DataType::Uint16)
            | (Dtype::U32, DataType::Uint32)
            | (Dtype::U64, DataType::Uint64)
            | (Dtype::I8, DataType::Int8)
            | (Dtype::I16, DataType::Int16)
            | (Dtype::I32, DataType::Int32)
            | (Dtype::I64, DataType::Int64)
            | (Dtype::F16, DataType::Fp16)
            | (Dtype::F32, DataType::Fp32)
            | (Dtype::F64, DataType::Fp64)
            | (Dtype::BF16, DataType::Bf16)
    )
}

/// A file gives no rows: which, and why.
#[derive(Debug)]
pub struct InputFileError {
    path: PathBuf,
    text: String,
}

impl fmt::Display for InputFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be used: {}", self.path.display(), self.text)
    }
}

impl std::error::Error for InputFileError {}

#[cfg(test)]
mod tests {
    use std::fs;

    use safetensors::tensor::TensorView;

    use super::*;
    use crate::scratch::Scratch;

    fn specs() -> [TensorSpec; 2] {
        let spec = |name: &str, dtype, row_shape: &[usize]| TensorSpec {
            name: name.into(),
            dtype,
            row_shape: row_shape.into(),
        };
        [spec("x", DataType::Fp32, &[2]), spec("y", DataType::Int8, &[])]
    }

    fn file(tensors: &[(&str, Dtype, &[usize], &[u8])]) -> Vec<u8> {
        let views = tensors.iter().map(|&(name, dtype, shape, data)| {
            (name.to_owned(), TensorView::new(dtype, shape.to_vec(), data).expect("the bytes fit the shape"))
        });
        safetensors::serialize(views.collect::<Vec<_>>(), None).expect("they can be written")
    }

    const X: (&str, Dtype, &[usize], &[u8]) =
        ("x", Dtype::F32, &[2, 2], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
    const Y: (&str, Dtype, &[usize], &[u8]) = ("y", Dtype::I8, &[2], &[100, 101]);

    fn open(bytes: &[u8]) -> Result<InputFile, String> {
        let scratch = Scratch::new();
        scratch.write("rows", bytes);
        InputFile::open(&scratch.path().join("rows"), &specs()).map_err(|error| error.to_string())
    }

    #[test]
    fn rows_are_read_in_any_order_as_the_model_s_inputs_are_ordered() {
        let mut rows = open(&file(&[Y, ("int8.out", Dtype::U8, &[3], &[7; 3]), X])).expect("a good file");
        assert_eq!(rows.rows(), 2);
        assert_eq!(rows.read(1).expect("a row"), [(8..16).collect(), vec![101]]);
        assert_eq!(rows.read(0).expect("a row"), [(0..8).collect(), vec![100]]);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told() {
        let whole = file(&[X, Y]);
        let longer = [&whole[..], &[0]].concat();
        for (bytes, complaint) in [
            (&b"seven"[..], "too short"),
            (&[0xff; 20], "no safetensors file"),
            (&[2, 0, 0, 0, 0, 0, 0, 0, b'{', b'x'], "its header is malformed"),
            (&whole[..whole.len() - 1], "17 bytes of values; its header says 18"),
            (&longer, "19 bytes of values; its header says 18"),
            (&file(&[X]), "no tensor `y`"),
            (&file(&[X, ("y", Dtype::U8, &[2], &[0; 2])]), "`y` is U8 [2]; expected y INT8[N]"),
            (&file(&[X, ("y", Dtype::I8, &[2, 1], &[0; 2])]), "`y` is I8 [2, 1]"),
            (&file(&[X, ("y", Dtype::I8, &[], &[0])]), "`y` is I8 []"),
            (&file(&[X, ("y", Dtype::I8, &[3], &[0; 3])]), "`y` has 3 rows"),
            (&file(&[("x", Dtype::F32, &[0, 2], &[]), Y]), "`x` has 0 rows"),
        ] {
            let message = open(bytes).expect_err(complaint);
            assert!(message.contains("/rows cannot be used: ") && message.contains(complaint), "{message}");
        }
    }

    #[test]
    fn a_file_that_was_cut_short_meanwhile_names_the_row() {
        let scratch = Scratch::new();
        scratch.write("rows", &file(&[X, Y]));
        let path = scratch.path().join("rows");
        let mut rows = InputFile::open(&path, &specs()).expect("a good file");
        let short = fs::metadata(&path).expect("it is there").len() - 1;
        File::options().write(true).open(&path).and_then(|file| file.set_len(short)).expect("it can be cut");
        assert!(rows.read(0).is_ok());
        assert!(rows.read(1).expect_err("a part is missing").to_string().contains("row 1: "));
    }
}

//! A model file, and the files beside it that tensors of it are in, each read once.
//!
//! Large models keep their weights apart ("external data"): ONNX Runtime, given a model's bytes, would look for those
//! files in the working directory and read them anew for each session. Here they are found by a walk over the encoded
//! model, which knows the few fields of `onnx.proto` that lead to a tensor and passes over all others.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::{Component, Path};
use std::sync::Arc;

use crate::error::LoadReason;
use crate::headroom;

/// Messages in messages deeper than this are refused by ONNX Runtime's own reader.
const DEEPEST: usize = 100;
/// How often its bytes are in memory when the first session is opened: as they are here, as ONNX Runtime reads them, and
/// as the weights of the session.
const COPIES: u64 = 3;
/// How deep a tensor of the main graph lies: the model, its graph, the tensor.
const MAIN_GRAPH: usize = 2;

/// What of a model is on the disk. A clone shares the bytes.
#[derive(Debug, Clone)]
pub(crate) struct ModelFile {
    /// The model file's.
    pub(crate) bytes: Arc<[u8]>,
    /// Those of the files that it names, by their names in it.
    pub(crate) external: Arc<BTreeMap<String, Arc<[u8]>>>,
}

impl ModelFile {
    /// Reads the model file at `path` and what it names.
    pub(crate) fn read(path: &Path) -> Result<Self, LoadReason> {
        let bytes = read(path)?;
        let mut external = BTreeMap::<String, Arc<[u8]>>::new();
        for tensor in external_tensors(&bytes) {
            let fail = |expected: &str| {
                let ExternalTensor { name, location, .. } = &tensor;
                LoadReason::External(format!(
                    "the tensor `{name}` is in another file, `{location}`; expected {expected}"
                ))
            };
            if tensor.depth != MAIN_GRAPH {
                return Err(fail("it in the model file, as it is no initializer of the main graph"));
            }
            let location = Path::new(&tensor.location);
            let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
            if tensor.location.is_empty() || !location.components().all(inside) {
                return Err(fail("a file in the folder of the model file"));
            }
            let bytes: &Arc<[u8]> = match external.entry(tensor.location.clone()) {
                Entry::Occupied(read) => read.into_mut(),
                Entry::Vacant(unread) => {
                    let beside = path.with_file_name(location);
                    unread.insert(read(&beside).map_err(|reason| match reason {
                        LoadReason::Unreadable(error) => {
                            fail(&format!("a file that can be read at {}: {error}", beside.display()))
                        }
                        other => other,
                    })?)
                }
            };
            if tensor.end > bytes.len() as u64 {
                return Err(fail(&format!("{} bytes there at least, not {}", tensor.end, bytes.len())));
            }
        }
        Ok(Self { bytes, external: external.into() })
    }

    /// The bytes of each file, the model file's first.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(&*self.bytes).chain(self.external.values().map(|bytes| &**bytes))
    }
}

/// Reads a file that there is memory for.
fn read(path: &Path) -> Result<Arc<[u8]>, LoadReason> {
    let bytes = fs::metadata(path).map_err(LoadReason::Unreadable)?.len();
    headroom::check(bytes.saturating_mul(COPIES))?;
    Ok(fs::read(path).map_err(LoadReason::Unreadable)?.into())
}

/// A tensor whose values are in another file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct ExternalTensor {
    name: String,
    location: String,
    /// The byte after its last in that file; where nothing is said of its length, its first.
    end: u64,
    /// In how many messages it lies.
    depth: usize,
}

/// The messages that lead to tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    Model,
    Graph,
    Function,
    Node,
    Attribute,
    Sparse,
    Tensor,
}

impl Message {
    /// What field `number` of it holds, if that leads to tensors.
    fn inner(self, number: u64) -> Option<Self> {
        match (self, number) {
            (Self::Model, 7) | (Self::Attribute, 6 | 11) => Some(Self::Graph),
            (Self::Model, 25) => Some(Self::Function),
            (Self::Graph, 1) | (Self::Function, 7) => Some(Self::Node),
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::Sparse, 1 | 2) => Some(Self::Tensor),
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Some(Self::Sparse),
            (Self::Node, 5) => Some(Self::Attribute),
            _ => None,
        }
    }
}

/// The tensors of `model` that are in other files. What cannot be read ends the walk: that it is no model is for ONNX
/// Runtime to say.
fn external_tensors(model: &[u8]) -> Vec<ExternalTensor> {
    let mut found = Vec::new();
    let mut unread = vec![(Message::Model, model, 0)];
    while let Some((kind, bytes, depth)) = unread.pop() {
        if kind == Message::Tensor {
            found.extend(external(bytes, depth));
        } else if depth < DEEPEST {
            let inner = Fields(bytes).filter_map(|(number, content)| match content {
                Content::Bytes(bytes) => Some((kind.inner(number)?, bytes, depth + 1)),
                Content::Number(_) => None,
            });
            unread.extend(inner);
        }
    }
    found
}

/// What a `TensorProto` says of another file, if it does.
fn external(tensor: &[u8], depth: usize) -> Option<ExternalTensor> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut found = ExternalTensor { depth, ..ExternalTensor::default() };
    let mut elsewhere = false;
    for field in Fields(tensor) {
        match field {
            (8, Content::Bytes(name)) => found.name = text(name),
            (13, Content::Bytes(entry)) => {
                let part = |wanted| {
                    Fields(entry).find_map(|(number, content)| match content {
                        Content::Bytes(bytes) if number == wanted => Some(text(bytes)),
                        _ => None,
                    })
                };
                let (key, value) = (part(1).unwrap_or_default(), part(2).unwrap_or_default());
                match key.as_str() {
                    "location" => found.location = value,
                    "offset" | "length" => found.end = found.end.saturating_add(value.parse().unwrap_or_default()),
                    _ => {}
                }
            }
            (14, Content::Number(location)) => elsewhere = location == 1,
            _ => {}
        }
    }
    elsewhere.then_some(found)
}

/// The fields of an encoded message, by their numbers, up to what cannot be read.
struct Fields<'a>(&'a [u8]);

enum Content<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Content<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let tag = self.number()?;
        let content = match tag & 7 {
            0 => Content::Number(self.number()?),
            1 => Content::Bytes(self.bytes(8)?),
            2 => {
                let length = self.number()?;
                Content::Bytes(self.bytes(length)?)
            }
            5 => Content::Bytes(self.bytes(4)?),
            _ => return None,
        };
        Some((tag >> 3, content))
    }
}

impl<'a> Fields<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn bytes(&mut self, length: u64) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scratch::Scratch;

    /// Field `number` with bytes.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u8::try_from(bytes.len()).expect("a short one");
        assert!(length < 0x80 && number < 16, "one byte each");
        [&[number << 3 | 2, length], bytes].concat()
    }

    fn tensor(location: &str) -> Vec<u8> {
        let entry = [field(1, b"location"), field(2, location.as_bytes())].concat();
        [field(8, b"w"), field(13, &entry), vec![14 << 3, 1]].concat()
    }

    fn model(location: &str) -> Vec<u8> {
        field(7, &field(5, &tensor(location)))
    }

    #[test]
    fn files_that_tensors_are_in_are_read_with_the_model_file() {
        let scratch = Scratch::new();
        let bytes = [model("weights/a.bin"), field(7, &field(5, &field(8, b"of its own")))].concat();
        scratch.write("model.onnx", &bytes);
        scratch.write("weights/a.bin", b"values");
        let file = ModelFile::read(&scratch.path().join("model.onnx")).expect("both are there");
        assert_eq!(file.parts().collect::<Vec<_>>(), [&bytes[..], b"values"]);
    }

    #[test]
    fn a_file_that_is_missing_or_elsewhere_is_refused_by_its_name_and_its_tensors() {
        let scratch = Scratch::new();
        let in_a_node = field(7, &field(1, &field(5, &field(5, &tensor("a.bin")))));
        for (bytes, expected) in [
            (model("a.bin"), "`w` is in another file, `a.bin`; expected a file that can be read at "),
            (model("../a.bin"), "`../a.bin`; expected a file in the folder of the model file"),
            (model("/etc/passwd"), "`/etc/passwd`; expected a file in the folder"),
            (model(""), "expected a file in the folder"),
            (in_a_node, "expected it in the model file, as it is no initializer"),
        ] {
            scratch.write("model.onnx", &bytes);
            let error = ModelFile::read(&scratch.path().join("model.onnx")).expect_err(expected);
            assert!(matches!(&error, LoadReason::External(text) if text.contains(expected)), "{error:?}");
        }
    }

    proptest! {
        #[test]
        fn bytes_that_are_no_model_name_no_file_and_harm_nobody(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            cut in any::<prop::sample::Index>(),
        ) {
            external_tensors(&bytes);
            let model = model("weights.bin");
            let found = external_tensors(&model[..cut.index(model.len())]);
            prop_assert_eq!(found, vec![]);
        }
    }
}

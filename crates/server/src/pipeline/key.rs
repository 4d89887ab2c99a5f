//! What a result is kept under.

use volley_cache::{Key, KeyHasher};

use crate::codec::InferRequest;

/// The key of all of a variant's outputs for `request`. The variant's identity stands for its files, and so for the names,
/// types and row shapes of its tensors; what a request asks beside its inputs changes the form of the answer alone.
pub(super) fn key(identity: &KeyHasher, request: &InferRequest) -> Key {
    let mut hasher = identity.clone();
    hasher.field(&request.rows.to_le_bytes());
    for values in &*request.inputs {
        hasher.field_in_parts(values.iter());
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use volley_cache::Keyer;

    use super::*;
    use crate::catalog::{Identity, Part};
    use crate::codec::{Pieces, WantedOutput};

    /// All that an answer depends on, in a form that can be changed.
    #[derive(Debug, Clone, PartialEq)]
    struct Question {
        /// Model, version, variant, and for each part its provider.
        names: Vec<Vec<u8>>,
        /// For each part, its files.
        parts: Vec<Vec<Vec<u8>>>,
        rows: usize,
        inputs: Vec<Vec<u8>>,
    }

    fn question() -> impl Strategy<Value = Question> {
        let bytes = |most| prop::collection::vec(any::<u8>(), 1..most);
        let parts = prop::collection::vec(prop::collection::vec(bytes(2000), 1..3), 1..3);
        let names = prop::collection::vec("[a-z0-9]{1,8}".prop_map(String::into_bytes), 5);
        let inputs = prop::collection::vec(bytes(3000), 1..3);
        (names, parts, 1_usize..9, inputs).prop_map(|(names, parts, rows, inputs)| Question {
            names,
            parts,
            rows,
            inputs,
        })
    }

    impl Question {
        fn key(&self) -> Key {
            self.key_of(|input| Bytes::copy_from_slice(input).into(), Vec::new(), None)
        }

        fn key_of(
            &self,
            mut pieces: impl FnMut(&[u8]) -> Pieces,
            outputs: Vec<WantedOutput>,
            id: Option<String>,
        ) -> Key {
            let name = |index: usize| str::from_utf8(&self.names[index]).expect("names stay text");
            let parts = self.parts.iter().enumerate().map(|(index, files)| Part {
                files: files.iter().map(Vec::as_slice).collect(),
                provider: name(3 + index),
            });
            let parts = parts.collect();
            let identity = Identity { model: name(0), version: name(1), variant: name(2), parts };
            let inputs = self.inputs.iter().map(|input| pieces(input)).collect();
            let request = InferRequest { id, inputs, rows: self.rows, outputs };
            key(&identity.begin(&Keyer::new([7; 32])), &request)
        }

        /// Everything that can be changed. Of a provider without a part nothing depends.
        fn places(&mut self) -> Vec<&mut Vec<u8>> {
            let named = 3 + self.parts.len();
            let names = self.names.iter_mut().take(named);
            names.chain(self.parts.iter_mut().flatten()).chain(&mut self.inputs).collect()
        }
    }

    proptest! {
        #[test]
        fn one_bit_of_input_file_provider_model_version_or_variant_makes_another_key(
            question in question(),
            place: prop::sample::Index,
            at: prop::sample::Index,
            bit in 0..7_u32,
        ) {
            let mut other = question.clone();
            let mut places = other.places();
            let place = place.get_mut(&mut places);
            *at.get_mut(place) ^= 1 << bit;
            // Names of ASCII stay text whichever of the lower seven bits is changed.
            prop_assert_ne!(question.key(), other.key());
            prop_assert_eq!(question.key(), question.clone().key());
        }

        #[test]
        fn another_number_of_rows_makes_another_key(question in question(), more in 1_usize..100) {
            let other = Question { rows: question.rows + more, ..question.clone() };
            prop_assert_ne!(question.key(), other.key());
        }

        #[test]
        fn bytes_that_move_to_the_place_beside_them_make_another_key(question in question(), place: prop::sample::Index) {
            let mut other = question.clone();
            let mut places = other.places();
            let first = place.index(places.len() - 1);
            let moved = places[first].pop().expect("none is empty");
            places[first + 1].insert(0, moved);
            // What runs into a name must still be text.
            prop_assume!(other.names.iter().all(|name| str::from_utf8(name).is_ok()));
            prop_assert_ne!(question.key(), other.key());
        }

        #[test]
        fn how_a_body_arrived_and_what_is_asked_beside_its_inputs_change_nothing(
            question in question(),
            cut: prop::sample::Index,
            id in prop::option::of("[a-z]{0,5}"),
            binary: bool,
        ) {
            let cut = |input: &[u8]| {
                let (first, second) = input.split_at(cut.index(input.len()));
                Pieces::cut(Bytes::copy_from_slice(first), Bytes::copy_from_slice(second))
            };
            prop_assert_eq!(question.key(), question.key_of(cut, vec![WantedOutput { index: 0, binary }], id));
        }
    }
}

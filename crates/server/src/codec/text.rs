//! JSON, written piece by piece into the body. A serializer would look at each member's name, in every response anew, for
//! what must be escaped in it.

use bytes::{BufMut, BytesMut};
use serde::Serialize;

/// JSON under construction. Whoever writes it sees to commas and brackets.
#[derive(Debug)]
pub(super) struct Text(BytesMut);

impl Text {
    /// Nothing yet, with room for `bytes`.
    pub(super) fn with_room(bytes: usize) -> Self {
        Self(BytesMut::with_capacity(bytes))
    }

    /// JSON as it is.
    pub(super) fn raw(&mut self, json: &'static str) {
        self.0.extend_from_slice(json.as_bytes());
    }

    /// A string, with quotes, and escaped where it must be.
    pub(super) fn string(&mut self, text: &str) {
        // All of it, though one would do: so the compiler looks at many bytes at a time.
        let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
        if text.bytes().fold(true, |so_far, byte| so_far & is_plain(byte)) {
            self.0.put_u8(b'"');
            self.0.extend_from_slice(text.as_bytes());
            self.0.put_u8(b'"');
        } else {
            self.value(text);
        }
    }

    /// A whole number.
    pub(super) fn number(&mut self, number: usize) {
        self.0.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    /// Anything else.
    ///
    /// # Panics
    /// If it has no JSON form.
    pub(super) fn value<T: Serialize + ?Sized>(&mut self, value: &T) {
        serde_json::to_writer((&mut self.0).writer(), value).expect("it has a JSON form, and memory takes it");
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The JSON, for something else to follow.
    pub(super) fn into_bytes(self) -> BytesMut {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_numbers_read_back_as_they_were() {
        let letters = (0..0x800).filter_map(char::from_u32).map(|letter| format!("a{letter}z"));
        for text in letters.chain([String::new(), "\u{10ffff}".into()]) {
            let mut json = Text::with_room(0);
            json.string(&text);
            assert_eq!(serde_json::from_slice::<String>(&json.into_bytes()).expect("it is JSON"), text);
        }
        for number in [0, 9, 10, 12_345, usize::MAX] {
            let mut json = Text::with_room(0);
            json.number(number);
            assert_eq!(json.into_bytes(), number.to_string());
        }
    }
}

//! Protocol Buffers' text format, as far as Triton's `config.pbtxt` files use it.
//!
//! A file is read into a tree of named values without a schema: who reads the tree knows the names. Scalars stay text
//! until they are asked for as something. Not read, because no such file has them: extensions and `Any` expansions in
//! brackets.

use std::fmt;
use std::iter::Peekable;
use std::str::Chars;

/// Messages within messages are read this deep, as Protocol Buffers' own readers do; deeper ones are refused.
const DEPTH: usize = 100;

/// A message: its fields in the order of the file. A list gives a field for each of its elements.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Message {
    pub(crate) fields: Vec<Field>,
}

/// A named value, and where its name stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) value: Value,
    pub(crate) at: Position,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// What stood between quotes; adjacent ones are joined.
    Text(String),
    /// A bare number or name, as it stood.
    Word(String),
    /// What stood between braces.
    Message(Message),
}

/// A place in a file, both counted from one; a column is a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Why a file was refused, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PbtxtError {
    pub(crate) at: Position,
    pub(crate) text: String,
}

impl PbtxtError {
    pub(crate) fn new(at: Position, text: impl Into<String>) -> Self {
        Self { at, text: text.into() }
    }
}

/// Reads a file.
pub(crate) fn parse(text: &str) -> Result<Message, PbtxtError> {
    let mut parser = Parser { lexer: Lexer::new(text), next: None };
    parser.message(None, 0)
}

impl Field {
    /// The value as text.
    pub(crate) fn text(&self) -> Result<&str, PbtxtError> {
        match &self.value {
            Value::Text(text) => Ok(text),
            _ => Err(self.expected("a text in quotes")),
        }
    }

    /// The value as the name of something: of a constant of an enumeration, `true` or `false`.
    pub(crate) fn word(&self) -> Result<&str, PbtxtError> {
        match &self.value {
            Value::Word(word) => Ok(word),
            _ => Err(self.expected("a name without quotes")),
        }
    }

    /// The value as an integer, which may be written in decimal, octal or hexadecimal.
    pub(crate) fn integer(&self) -> Result<i64, PbtxtError> {
        let Value::Word(word) = &self.value else { return Err(self.expected("an integer")) };
        let (sign, digits) = word.strip_prefix('-').map_or((1, word.as_str()), |digits| (-1, digits));
        let magnitude = if let Some(hexadecimal) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
            i64::from_str_radix(hexadecimal, 16)
        } else if digits.len() > 1 && digits.starts_with('0') {
            i64::from_str_radix(digits, 8)
        } else {
            digits.parse()
        };
        // A second sign is what the conversions would take and the format does not.
        let plain = digits.starts_with(|c: char| c.is_ascii_digit()) && !digits.contains(['+', '-']);
        magnitude.ok().filter(|_| plain).map(|magnitude| sign * magnitude).ok_or_else(|| self.expected("an integer"))
    }

    /// The value as a message.
    pub(crate) fn message(&self) -> Result<&Message, PbtxtError> {
        match &self.value {
            Value::Message(message) => Ok(message),
            _ => Err(self.expected("a message in braces")),
        }
    }

    /// An error at this field that says what its value should have been.
    pub(crate) fn expected(&self, what: &str) -> PbtxtError {
        let is = match &self.value {
            Value::Text(text) => format!("{text:?}"),
            Value::Word(word) => format!("`{word}`"),
            Value::Message(_) => "a message".to_owned(),
        };
        PbtxtError::new(self.at, format!("{} is {is}; expected {what}", self.name))
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => write!(f, "`{word}`"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Sign(sign) => write!(f, "`{sign}`"),
        }
    }
}

struct Lexer<'a> {
    chars: Peekable<Chars<'a>>,
    at: Position,
}

impl<'a> Lexer<'a> {
    fn new(text: &'a str) -> Self {
        // A byte order mark is no part of the text.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { chars: text.chars().peekable(), at: Position { line: 1, column: 1 } }
    }

    fn bump(&mut self) -> Option<char> {
        let next = self.chars.next()?;
        if next == '\n' {
            self.at = Position { line: self.at.line + 1, column: 1 };
        } else {
            self.at.column += 1;
        }
        Some(next)
    }

    /// The next token and where it starts; `None` at the end.
    fn token(&mut self) -> Result<(Option<Token>, Position), PbtxtError> {
        while let Some(&next) = self.chars.peek() {
            if next == '#' {
                while self.bump().is_some_and(|c| c != '\n') {}
            } else if next.is_whitespace() {
                self.bump();
            } else {
                break;
            }
        }
        let at = self.at;
        let Some(&next) = self.chars.peek() else { return Ok((None, at)) };
        let token = match next {
            '"' | '\'' => Token::Text(self.quoted()?),
            '{' | '}' | '[' | ']' | '<' | '>' | ':' | ',' | ';' => {
                self.bump();
                Token::Sign(next)
            }
            _ if next.is_ascii_alphanumeric() || "_-+.".contains(next) => Token::Word(self.word()),
            _ => return Err(PbtxtError::new(at, format!("`{}` has no meaning here", next.escape_default()))),
        };
        Ok((Some(token), at))
    }

    fn word(&mut self) -> String {
        let mut word = String::new();
        if self.chars.peek() == Some(&'-') {
            word.extend(self.bump());
            // The sign may stand apart from its number.
            while self.chars.peek().is_some_and(|c| c.is_whitespace()) {
                self.bump();
            }
        }
        while let Some(&next) = self.chars.peek() {
            let exponent =
                word.ends_with(['e', 'E']) && word.starts_with(|c: char| c.is_ascii_digit() || "-.".contains(c));
            if !(next.is_ascii_alphanumeric() || "_.".contains(next) || (exponent && "+-".contains(next))) {
                break;
            }
            word.extend(self.bump());
        }
        if word.is_empty() {
            word.extend(self.bump());
        }
        word
    }

    fn quoted(&mut self) -> Result<String, PbtxtError> {
        let opened = self.at;
        let quote = self.bump();
        let mut bytes = Vec::new();
        loop {
            let at = self.at;
            match self.bump() {
                None | Some('\n') => return Err(PbtxtError::new(opened, "this text has no closing quote on its line")),
                Some('\\') => self.escape(at, &mut bytes)?,
                next if next == quote => break,
                Some(next) => bytes.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        String::from_utf8(bytes).map_err(|_| PbtxtError::new(opened, "the escapes of this text make no UTF-8"))
    }

    fn escape(&mut self, at: Position, bytes: &mut Vec<u8>) -> Result<(), PbtxtError> {
        let bad = || PbtxtError::new(at, "this escape has no meaning; a backslash itself is written twice");
        let mut code_point = |digits: usize, lexer: &mut Self| {
            let code = lexer.digits(16, digits).filter(|&(_, read)| read == digits).map(|(code, _)| code);
            let found = code.and_then(char::from_u32).ok_or_else(bad)?;
            bytes.extend_from_slice(found.encode_utf8(&mut [0; 4]).as_bytes());
            Ok(())
        };
        let byte = match self.chars.peek().copied().ok_or_else(bad)? {
            'u' => {
                self.bump();
                return code_point(4, self);
            }
            'U' => {
                self.bump();
                return code_point(8, self);
            }
            'x' | 'X' => {
                self.bump();
                self.digits(16, 2).map(|(code, _)| code).ok_or_else(bad)?
            }
            '0'..='7' => self.digits(8, 3).map(|(code, _)| code).ok_or_else(bad)?,
            simple => {
                self.bump();
                match simple {
                    'a' => 7,
                    'b' => 8,
                    't' => 9,
                    'n' => 10,
                    'v' => 11,
                    'f' => 12,
                    'r' => 13,
                    '\\' | '\'' | '"' | '?' => simple.into(),
                    _ => return Err(bad()),
                }
            }
        };
        bytes.push(u8::try_from(byte).map_err(|_| bad())?);
        Ok(())
    }

    /// Up to `most` digits: their value, and how many there were.
    fn digits(&mut self, radix: u32, most: usize) -> Option<(u32, usize)> {
        let (mut value, mut read) = (0_u32, 0);
        while read < most {
            let Some(digit) = self.chars.peek().and_then(|c| c.to_digit(radix)) else { break };
            self.bump();
            value = value.checked_mul(radix)?.checked_add(digit)?;
            read += 1;
        }
        (read > 0).then_some((value, read))
    }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    next: Option<(Option<Token>, Position)>,
}

impl Parser<'_> {
    fn peek(&mut self) -> Result<&(Option<Token>, Position), PbtxtError> {
        if self.next.is_none() {
            self.next = Some(self.lexer.token()?);
        }
        Ok(self.next.as_ref().expect("filled above"))
    }

    fn take(&mut self) -> Result<(Option<Token>, Position), PbtxtError> {
        match self.next.take() {
            Some(next) => Ok(next),
            None => self.lexer.token(),
        }
    }

    /// Takes the next token if it is one of these signs.
    fn sign(&mut self, signs: &[char]) -> Result<Option<char>, PbtxtError> {
        match self.peek()?.0 {
            Some(Token::Sign(sign)) if signs.contains(&sign) => {
                self.next = None;
                Ok(Some(sign))
            }
            _ => Ok(None),
        }
    }

    /// Fields up to the closing sign, or to the end of the file if there is none to come.
    fn message(&mut self, closing: Option<char>, depth: usize) -> Result<Message, PbtxtError> {
        let mut fields = Vec::new();
        loop {
            let (token, at) = self.take()?;
            match (token, closing) {
                (None, None) => return Ok(Message { fields }),
                (Some(Token::Sign(sign)), Some(closing)) if sign == closing => return Ok(Message { fields }),
                (Some(Token::Word(name)), _) if name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') => {
                    self.values(&name, at, depth, &mut fields)?;
                    self.sign(&[',', ';'])?;
                }
                (None, Some(closing)) => {
                    return Err(PbtxtError::new(at, format!("the file ends; expected a field's name or `{closing}`")));
                }
                (Some(token), _) => return Err(PbtxtError::new(at, format!("found {token}; expected a field's name"))),
            }
        }
    }

    /// What follows a field's name: one value, or a list of them.
    fn values(&mut self, name: &str, at: Position, depth: usize, fields: &mut Vec<Field>) -> Result<(), PbtxtError> {
        let colon = self.sign(&[':'])?.is_some();
        let field = |value, at| Field { name: name.to_owned(), value, at };
        if self.sign(&['['])?.is_none() {
            fields.push(field(self.value(name, colon, depth)?, at));
            return Ok(());
        }
        if self.sign(&[']'])?.is_some() {
            return Ok(());
        }
        loop {
            let at = self.peek()?.1;
            fields.push(field(self.value(name, colon, depth)?, at));
            if self.sign(&[','])?.is_some() {
                continue;
            }
            if self.sign(&[']'])?.is_some() {
                return Ok(());
            }
            return Err(PbtxtError::new(self.peek()?.1, format!("expected `,` or `]` in the list of {name}")));
        }
    }

    fn value(&mut self, name: &str, colon: bool, depth: usize) -> Result<Value, PbtxtError> {
        let (token, at) = self.take()?;
        match token {
            Some(Token::Sign(open @ ('{' | '<'))) => {
                if depth == DEPTH {
                    return Err(PbtxtError::new(at, format!("more than {DEPTH} messages lie in each other")));
                }
                let closing = if open == '{' { '}' } else { '>' };
                Ok(Value::Message(self.message(Some(closing), depth + 1)?))
            }
            Some(Token::Word(word)) if colon => Ok(Value::Word(word)),
            Some(Token::Text(mut text)) if colon => {
                while let (Some(Token::Text(more)), _) = self.peek()? {
                    text.push_str(more);
                    self.next = None;
                }
                Ok(Value::Text(text))
            }
            None => Err(PbtxtError::new(at, format!("the file ends; expected a value of {name}"))),
            Some(token) if colon => Err(PbtxtError::new(at, format!("found {token}; expected a value of {name}"))),
            Some(token) => Err(PbtxtError::new(at, format!("found {token}; expected `:` or `{{` after {name}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAMPLE: &str = r#"# A comment
name: "net" platform: 'onnxruntime' "_onnx"; max_batch_size: 0x10
input [ { name: "a", dims: [ -1, 50, - 60 ] }, { name: "b" dims: 07 } ]
version_policy: { latest < num_versions: 2 > }
parameters { key: "t\x41\101\u00e9\n" value: { string_value: "1" } }
scale: -1.5e-3 empty: [] flag: true
"#;

    fn field<'a>(message: &'a Message, name: &str) -> &'a Field {
        message.fields.iter().find(|field| field.name == name).expect(name)
    }

    #[test]
    fn every_form_of_the_format_is_read() {
        let file = parse(SAMPLE).expect("well formed");
        assert_eq!(field(&file, "platform").text(), Ok("onnxruntime_onnx"));
        assert_eq!(field(&file, "max_batch_size").integer(), Ok(16));
        let inputs: Vec<_> = file.fields.iter().filter(|field| field.name == "input").collect();
        assert_eq!(inputs.len(), 2);
        let dims = |field: &Field| -> Vec<i64> {
            let fields = &field.message().expect("a message").fields;
            fields.iter().filter(|f| f.name == "dims").map(|f| f.integer().expect("an integer")).collect()
        };
        assert_eq!((dims(inputs[0]), dims(inputs[1])), (vec![-1, 50, -60], vec![7]));
        let latest = field(field(&file, "version_policy").message().expect("a message"), "latest");
        assert_eq!(field(latest.message().expect("in angle brackets"), "num_versions").integer(), Ok(2));
        let parameter = field(&file, "parameters").message().expect("a message");
        assert_eq!(field(parameter, "key").text(), Ok("tAAé\n"));
        assert_eq!(field(&file, "scale").word(), Ok("-1.5e-3"));
        assert!(file.fields.iter().all(|field| field.name != "empty"));
    }

    #[test]
    fn an_error_names_the_line_the_column_and_what_was_expected() {
        for (text, expected) in [
            ("name \"net\"", "1:6: found \"net\"; expected `:` or `{` after name"),
            ("a: 1\n  input [ {} {} ]", "2:14: expected `,` or `]` in the list of input"),
            ("input {\n name: \"a\"\n", "3:1: the file ends; expected a field's name or `}`"),
            ("name: \"net\n\"", "1:7: this text has no closing quote on its line"),
            ("name: \"\\q\"", "1:8: this escape has no meaning; a backslash itself is written twice"),
            ("name: \"\\xff\"", "1:7: the escapes of this text make no UTF-8"),
            ("a: 1 }", "1:6: found `}`; expected a field's name"),
            ("a:", "1:3: the file ends; expected a value of a"),
            ("a: $", "1:4: `$` has no meaning here"),
            ("a: --1", "1:5: found `-1`; expected a field's name"),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!(format!("{}: {}", error.at, error.text), expected, "{text}");
        }
        let file = parse("size: \"8\" many: 99999999999999999999").expect("well formed");
        assert_eq!(file.fields[0].integer().expect_err("a text").text, "size is \"8\"; expected an integer");
        assert!(file.fields[1].integer().is_err());
    }

    #[test]
    fn messages_without_end_are_refused_before_the_stack_is() {
        let error = parse(&"a{".repeat(100_000)).expect_err("too deep");
        assert!(error.text.contains("more than 100"), "{}", error.text);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in any::<String>(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&text);
            let _ = parse(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn no_mutation_of_a_file_makes_the_reader_panic(
            edits in prop::collection::vec((0..SAMPLE.len(), prop::sample::select(&b"{}[]<>:,;\"'\\#-x0e\n u"[..])), 1..12),
            end in 0..=SAMPLE.len(),
        ) {
            let mut bytes = SAMPLE.as_bytes().to_vec();
            for (index, byte) in edits {
                bytes[index] = byte;
            }
            if let Ok(message) = parse(&String::from_utf8_lossy(&bytes[..end])) {
                for field in &message.fields {
                    let _ = (field.integer(), field.text(), field.word(), field.message());
                }
            }
        }
    }
}

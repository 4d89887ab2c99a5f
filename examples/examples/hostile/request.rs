//! Requests over HTTP/1.1 that are good but for a member of their JSON, or for what is said about them.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::attack::Listener;
use crate::dice::Dice;
use crate::good::Good;
use crate::members;

const INFER: &str = "/v2/models/cnn_lstm/infer";
const JSON_LENGTH: &str = "Inference-Header-Content-Length";

/// A request in parts. `Content-Length` is made when it is written.
struct Request {
    listener: Listener,
    method: &'static str,
    path: String,
    version: &'static str,
    /// Whole lines.
    headers: Vec<u8>,
    body: Vec<u8>,
}

/// How a request says how long its body is.
enum Framing {
    /// By these lines.
    Headers(Vec<u8>),
    /// By the sizes of its chunks.
    Chunks(Vec<u8>),
}

/// To whom, what, and how many answers have to come at least.
pub(crate) fn draw(good: &Good, dice: &mut Dice) -> (Listener, Vec<u8>, usize) {
    let mut request = match dice.below(10) {
        0..3 => Request::v2_json(good, dice),
        3..6 => Request::v2_binary(good, dice),
        6 | 7 => Request::v1(good, dice),
        8 => Request::question(dice),
        _ => Request::of_operators(dice),
    };
    if dice.one_in(8) {
        request.compress(dice);
    }
    let (mut framing, mut is_whole) = (Framing::length(request.body.len()), true);
    match dice.below(6) {
        0 => request.spoil_head(dice),
        1 => (framing, is_whole) = Framing::spoilt(&request.body, dice),
        _ => {}
    }
    let one = request.written(&framing);
    let count = if dice.one_in(8) { 2 + dice.below(4) } else { 1 };
    (request.listener, one.repeat(count), if is_whole { count } else { 0 })
}

impl Request {
    fn new(listener: Listener, method: &'static str, path: &str, body: Vec<u8>) -> Self {
        let headers = b"Host: volley\r\n".to_vec();
        Self { listener, method, path: path.to_owned(), version: "HTTP/1.1", headers, body }
    }

    fn v2_json(good: &Good, dice: &mut Dice) -> Self {
        Self::new(Listener::Http, "POST", INFER, members::text(&spoilt(&good.json, dice), dice))
    }

    fn v2_binary(good: &Good, dice: &mut Dice) -> Self {
        let mut body = members::text(&spoilt(&good.binary, dice), dice);
        let length = body.len();
        body.extend_from_slice(&good.raw);
        match dice.below(16) {
            0 => body.truncate(length + dice.below(good.raw.len())),
            1 => body.extend_from_slice(&good.raw),
            // Not a number, as binary32 has it.
            2 => body[length..length + 4].fill(0xff),
            _ => {}
        }
        let mut request = Self::new(Listener::Http, "POST", INFER, body);
        let wrong = dice.below(2 * length + 1).to_string();
        let right = length.to_string();
        let said: &str = match dice.below(16) {
            0 => &wrong,
            1 => dice.pick(&["-1", "18446744073709551616", "", "0x10", "1, 2", "\u{661}"]),
            2 => return request,
            3 => {
                request.say(JSON_LENGTH, &wrong);
                &right
            }
            _ => &right,
        };
        request.say(JSON_LENGTH, said);
        request
    }

    fn v1(good: &Good, dice: &mut Dice) -> Self {
        let body = spoilt(&good.v1[dice.below(2)], dice);
        Self::new(Listener::Http, "POST", "/v1/models/cnn_lstm:predict", members::text(&body, dice))
    }

    /// Something about the server or the model.
    fn question(dice: &mut Dice) -> Self {
        let (listener, path) = [
            (Listener::Http, "/v2"),
            (Listener::Http, "/v2/health/live"),
            (Listener::Http, "/v2/health/ready"),
            (Listener::Http, "/v2/models/cnn_lstm"),
            (Listener::Http, "/v2/models/cnn_lstm/versions/1/config"),
            (Listener::Http, "/v2/models/stats"),
            (Listener::Http, "/v1/models/cnn_lstm"),
            (Listener::Http, "/openapi.json"),
            (Listener::Metrics, "/metrics"),
            (Listener::Admin, "/admin/config"),
            (Listener::Admin, "/admin/health"),
        ][dice.below(11)];
        Self::new(listener, if dice.one_in(8) { "HEAD" } else { "GET" }, path, Vec::new())
    }

    /// What only operators say, about models that are not there and settings that cannot be: nothing that is served
    /// changes, whatever becomes of method, path or body.
    fn of_operators(dice: &mut Dice) -> Self {
        let listener = [Listener::Http, Listener::Admin][dice.below(2)];
        match dice.below(6) {
            0 => {
                let body = spoilt(&json!({ "ready": true, "further": [{}] }), dice);
                Self::new(listener, "POST", "/v2/repository/index", members::text(&body, dice))
            }
            1 | 2 => {
                let model = dice.pick(&["no_such_model", "%00", "..%2f..%2fetc", "%ff", "a%2fb", "%20"]);
                let path = format!("/v2/repository/models/{model}/{}", dice.pick(&["load", "unload"]));
                let parameters = json!({ "parameters": { "config": "{}", "unload_dependents": true } });
                Self::new(listener, "POST", &path, members::text(&spoilt(&parameters, dice), dice))
            }
            3 => {
                let scopes = spoilt(&json!({ "scopes": ["tag/none", "key/12"] }), dice);
                Self::new(Listener::Admin, "POST", "/admin/cache/invalidate", members::text(&scopes, dice))
            }
            _ => {
                let body = dice.pick(&[
                    r#"{"limits": {"headers": 0}}"#,
                    r#"{"limits": {"body_time": "-1s", "connections": 1.5}}"#,
                    r#"{"http": {"port": 1}}"#,
                    r#"{"nothing": {"of": ["the", "kind"]}}"#,
                    r#"{"models": 7}"#,
                    "[]",
                    "null",
                    "{",
                    "",
                ]);
                let method = dice.pick(&["PATCH", "PUT"]);
                Self::new(Listener::Admin, method, "/admin/config", body.as_bytes().to_vec())
            }
        }
    }

    /// Says that the body is compressed, and most often compresses it; it may be cut or lie.
    fn compress(&mut self, dice: &mut Dice) {
        let coding = match dice.below(6) {
            0 => dice.pick(&["br", "deflate", "identity", "gzip, gzip", "GZIP", "", "x-gzip"]),
            _ => "gzip",
        };
        self.say("Content-Encoding", coding);
        if dice.one_in(6) {
            return;
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        // More than a body may have, in some kilobytes.
        let spaces = if dice.one_in(64) { 24 << 20 } else { 0 };
        let written = encoder.write_all(&self.body).and_then(|()| encoder.write_all(&vec![b' '; spaces]));
        self.body = written.and_then(|()| encoder.finish()).expect("memory can be written to");
        match dice.below(8) {
            0 => self.body.truncate(dice.below(self.body.len())),
            1 => self.body.extend_from_within(..),
            2 => {
                let at = dice.below(self.body.len());
                self.body[at] ^= 1 << dice.below(8);
            }
            _ => {}
        }
    }

    fn say(&mut self, name: &str, value: &str) {
        self.headers.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }

    /// Alters something that leaves open neither where the request ends nor that it has to be answered.
    fn spoil_head(&mut self, dice: &mut Dice) {
        match dice.below(12) {
            0 => self.method = dice.pick(&["GET", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "BREW", "post"]),
            1 | 2 => self.path = path(dice),
            3 => self.version = dice.pick(&["HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.9", "HTTP/11", "ICY"]),
            4 => {
                let count = 1 << dice.below(10);
                (0..count).for_each(|number| self.say(&format!("X-{number}"), "y"));
            }
            5 => self.say("X-Long", &"long ".repeat(1 << dice.below(14))),
            6 => self.headers.clear(),
            7 => self.say("Host", dice.pick(&["another", "", "[::1", "a b", "volley:99999"])),
            8 => {
                let line: &[u8] = dice.pick::<[u8]>(&[
                    b"no colon\r\n",
                    b": no name\r\n",
                    b"A space : x\r\n",
                    b"X-Nul: \0\r\n",
                    b"X-Folded: a\r\n b\r\n",
                    b"X-High: \xc3\x28\xff\r\n",
                    b"X-Bare: a\n",
                    b"X-Return: a\rb\r\n",
                    b"\x7f: x\r\n",
                ]);
                self.headers.extend_from_slice(line);
            }
            9 => self.say("Expect", dice.pick(&["100-continue", "100-continue, 100-continue", "200-maybe", ""])),
            10 => {
                self.say(
                    "Connection",
                    dice.pick(&["close", "upgrade", "Upgrade, HTTP2-Settings", "x-folded", "\u{b}"]),
                );
                self.say("Upgrade", dice.pick(&["h2c", "websocket", "TLS/1.0, HTTP/1.1"]));
            }
            _ => {
                self.say("Accept-Encoding", dice.pick(&["gzip", "gzip;q=0, *", "deflate;q=x,gzip;q=", ",;,", "br"]));
                self.say("X-Request-Id", dice.pick(&["", "\"", "a\tb", "\u{e9}", "0123456789abcdef"]));
                self.say("Traceparent", dice.pick(&["00", "00-00-00-00", "\u{e9}"]));
                self.say("Authorization", dice.pick(&["Bearer ", "Basic Og==", "Bearer a b"]));
            }
        }
    }

    fn written(&self, framing: &Framing) -> Vec<u8> {
        let Self { method, path, version, headers, body, .. } = self;
        let (lines, body) = match framing {
            Framing::Headers(lines) => (&lines[..], body),
            Framing::Chunks(chunks) => (&b"Transfer-Encoding: chunked\r\n"[..], chunks),
        };
        [format!("{method} {path} {version}\r\n").as_bytes(), headers, lines, b"\r\n", body].concat()
    }
}

impl Framing {
    fn length(length: usize) -> Self {
        Self::Headers(format!("Content-Length: {length}\r\n").into_bytes())
    }

    /// Something wrong about a body's length, and whether there is a whole request all the same: one that must be
    /// answered, with a refusal if nothing else.
    fn spoilt(body: &[u8], dice: &mut Dice) -> (Self, bool) {
        let length = body.len();
        let lines = |text: String| Self::Headers(text.into_bytes());
        let more = length + 1 + dice.below(1000);
        let less = dice.below(length + 1);
        match dice.below(12) {
            0 => (Self::length(less), true),
            1 => (Self::length(more), false),
            2 => (lines(format!("Content-Length: {length}\r\nContent-Length: {length}\r\n")), true),
            3 => (lines(format!("Content-Length: {length}\r\nContent-Length: {more}\r\n")), true),
            4 => {
                let odd = dice.pick(&["-1", "99999999999999999999", "0x10", "1e3", "", "1 2", "twelve", "\u{661}"]);
                (lines(format!("Content-Length: {odd}\r\n")), true)
            }
            5 => {
                let huge = dice.pick(&["+5", "16777217", "4294967296", "9223372036854775807", "18446744073709551615"]);
                (lines(format!("Content-Length: {huge}\r\n")), false)
            }
            // The body is then what a second request would begin with.
            6 => (lines(String::new()), true),
            7 => {
                let coding =
                    dice.pick(&["gzip", "identity", "xchunked", "chunked, gzip", "gzip, chunked", "\"chunked\""]);
                (lines(format!("Transfer-Encoding: {coding}\r\nContent-Length: {length}\r\n")), false)
            }
            8 | 9 => (Self::Chunks(chunks(body, dice)), true),
            _ => (Self::Chunks(wrong_chunks(body, dice)), false),
        }
    }
}

/// The body in chunks as they should be, if unusual.
fn chunks(mut body: &[u8], dice: &mut Dice) -> Vec<u8> {
    let extension = dice.pick(&["", ";name=value", ";a;b=\"c\""]);
    let mut chunks = Vec::new();
    while !body.is_empty() {
        let (chunk, rest) = body.split_at(1 + dice.below(body.len()));
        chunks.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
        chunks.extend_from_slice(chunk);
        chunks.extend_from_slice(b"\r\n");
        body = rest;
    }
    let end = dice.pick(&["0\r\n\r\n", "000\r\n\r\n", "0\r\nX-Trailer: x\r\n\r\n"]);
    chunks.extend_from_slice(end.as_bytes());
    chunks
}

/// The body in one chunk of a wrong size, or with a wrong end.
fn wrong_chunks(body: &[u8], dice: &mut Dice) -> Vec<u8> {
    let right = format!("{:x}", body.len());
    let less = format!("{:x}", dice.below(body.len() + 1));
    let more = format!("{:x}", body.len() + 1 + dice.below(100));
    let size = match dice.below(8) {
        0 => &less,
        1 => &more,
        2 => dice.pick(&["zz", "-1", "", " ", "0x10", "ffffffffffffffff", "fffffffffffffffff", "1 1"]),
        _ => &right,
    };
    let long = ";".repeat(20_000);
    let extension = if dice.one_in(8) { &long } else { "" };
    let end = dice.pick(&["\r\n0\r\n\r\n", "\r\n", "0\r\n\r\n", "\r\n0\r\n", "\n0\n\n", "\r\n0\r\nno colon\r\n\r\n"]);
    [format!("{size}{extension}\r\n").as_bytes(), body, end.as_bytes()].concat()
}

/// Most often with something wrong in it.
fn spoilt(good: &Value, dice: &mut Dice) -> Value {
    let mut value = good.clone();
    for _ in 0..dice.below(3) {
        members::spoil(&mut value, dice);
    }
    value
}

fn path(dice: &mut Dice) -> String {
    let odd = dice.pick(&[
        "/v2/models/%00/infer",
        "/v2/models/../infer",
        "/v2/models//infer",
        "/v2/models/%ff/infer",
        "/v2/models/cnn_lstm/versions/99999999999999999999/infer",
        "/v2/models/cnn_lstm/versions/-1/infer",
        "/v2/models/cnn_lstm/versions//infer",
        "/v2/models/cnn_lstm/infer?x=%zz&&=",
        "/v2/models/cnn_lstm/infer/",
        "/v2/models/cnn_lstm/generate_stream",
        "/v2/systemsharedmemory/region/x/register",
        "/v1/models/cnn_lstm:predict:predict",
        "/v1/models/:predict",
        "http://another/v2/models/cnn_lstm/infer",
        "*",
        "//",
        "cnn_lstm",
        "/a b",
        "/\u{e9}",
        "/#",
    ]);
    if dice.one_in(8) { format!("/{}", "x".repeat(1 << dice.below(17))) } else { odd.to_owned() }
}

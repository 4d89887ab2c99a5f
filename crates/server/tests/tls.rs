//! Encrypted connections: the server's certificate, read again when it changes, and certificates that callers show.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use common::folder::Folder;
use common::{ServerProcess, binary_request, eventually, window};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, Stream, StreamOwned};

/// Somebody who vouches for others.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for `name`, and its key.
    fn vouch(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        (params.signed_by(&key, &self.issuer).expect("a certificate").pem(), key.serialize_pem())
    }
}

/// A connection to what `authority` vouches for, before its handshake.
fn connection(authority: &Authority, shown: Option<&(String, String)>) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("PEM")).expect("an authority");
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("the usual").with_root_certificates(roots);
    let config = match shown {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM");
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
            builder.with_client_auth_cert(vec![certificate], key).expect("they fit")
        }
    };
    let name = ServerName::try_from("volley.example").expect("a name");
    ClientConnection::new(Arc::new(config), name).expect("a connection")
}

/// Asks for `/v2` at `address`, which `authority` vouches for; what it said, and the certificate that it showed.
fn ask(address: SocketAddr, authority: &Authority, shown: Option<&(String, String)>) -> Option<(String, Vec<u8>)> {
    let mut connection = connection(authority, shown);
    let mut tcp = TcpStream::connect(address).expect("the server listens");
    let mut stream = Stream::new(&mut connection, &mut tcp);
    stream.write_all(b"GET /v2 HTTP/1.1\r\nHost: volley.example\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = Vec::new();
    // The other end may leave without a farewell.
    let _ = stream.read_to_end(&mut text);
    let certificate = connection.peer_certificates()?.first()?.to_vec();
    Some((String::from_utf8_lossy(&text).lines().next()?.to_owned(), certificate))
}

#[test]
fn connections_are_encrypted_and_a_new_certificate_is_shown_without_a_restart() {
    let (folder, authority) = (Folder::new("tls"), Authority::new());
    let (certificate, key) = authority.vouch("volley.example");
    let path = folder.write("server.pem", &certificate);
    let key_path = folder.write("server.key", &key);
    let settings = [("VOLLEY_TLS__CERTIFICATE", path.as_str()), ("VOLLEY_TLS__KEY", key_path.as_str())];
    let server = ServerProcess::start(&settings);
    let (status, shown) = ask(server.http, &authority, None).expect("it answers");
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(ask(server.http, &Authority::new(), None).is_none(), "a stranger vouches for nobody here");
    assert!(server.connect().read().is_none() || server.connect().send("GET", "/v2", &[], b"").status != 200);

    // Between the two files a mismatch may be seen; it is refused, and the old certificate stays.
    let (certificate, key) = authority.vouch("volley.example");
    folder.write("server.pem", &certificate);
    folder.write("server.key", &key);
    eventually("the new certificate", || {
        let (status, now) = ask(server.http, &authority, None).expect("it answers");
        assert_eq!(status, "HTTP/1.1 200 OK");
        now != shown
    });
}

#[test]
fn a_caller_is_known_by_the_name_in_a_certificate_that_the_authority_vouches_for() {
    let (folder, authority) = (Folder::new("mtls"), Authority::new());
    let (certificate, key) = authority.vouch("volley.example");
    let paths = [
        folder.write("server.pem", &certificate),
        folder.write("server.key", &key),
        folder.write("ca.pem", &authority.pem),
    ];
    let file = folder.write(
        "volley.toml",
        &format!(
            "[tls]\ncertificate = \"{}\"\nkey = \"{}\"\nclient_ca = \"{}\"\n[security.callers.desk]\ncertificate = \"desk.example\"\n",
            paths[0], paths[1], paths[2]
        ),
    );
    let server = ServerProcess::start_with(&["--config", &file], &[]);
    let status = |shown: Option<&(String, String)>| ask(server.http, &authority, shown).map(|(status, _)| status);
    assert_eq!(status(Some(&authority.vouch("desk.example"))).as_deref(), Some("HTTP/1.1 200 OK"));
    assert_eq!(status(None).as_deref(), Some("HTTP/1.1 401 Unauthorized"));
    assert_eq!(status(Some(&authority.vouch("other.example"))).as_deref(), Some("HTTP/1.1 401 Unauthorized"));
    let forged = Authority::new().vouch("desk.example");
    assert_ne!(status(Some(&forged)).as_deref(), Some("HTTP/1.1 200 OK"));
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let folder = Folder::new("tls-wrong");
    let path = folder.write("empty.pem", "");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_volley-server"))
        .args(["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0", "--admin-port", "0"])
        .envs([("VOLLEY_TLS__CERTIFICATE", &path), ("VOLLEY_TLS__KEY", &path)])
        .output()
        .expect("the server was built");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains(&format!("tls.certificate: {path}")), "{text}");
}

#[test]
fn whoever_says_nothing_after_the_handshake_is_closed() {
    let (folder, authority) = (Folder::new("tls-silent"), Authority::new());
    let (certificate, key) = authority.vouch("volley.example");
    let path = folder.write("server.pem", &certificate);
    let key_path = folder.write("server.key", &key);
    let server = ServerProcess::start(&[
        ("VOLLEY_TLS__CERTIFICATE", path.as_str()),
        ("VOLLEY_TLS__KEY", key_path.as_str()),
        ("VOLLEY_LIMITS__HEADER_TIME", "300ms"),
    ]);
    let mut connection = connection(&authority, None);
    let mut tcp = TcpStream::connect(server.grpc).expect("the server listens");
    // The idle time is longer than this.
    tcp.set_read_timeout(Some(std::time::Duration::from_secs(60))).expect("a socket option");
    while connection.is_handshaking() {
        connection.complete_io(&mut tcp).expect("a handshake");
    }
    let closed = loop {
        match connection.read_tls(&mut tcp) {
            Ok(0) => break true,
            Ok(_) => drop(connection.process_new_packets()),
            Err(error) => break error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    };
    assert!(closed);
}

#[test]
fn a_caller_who_takes_leave_before_the_answer_is_counted_as_cancelled() {
    let (folder, authority) = (Folder::new("tls-leave"), Authority::new());
    let (certificate, key) = authority.vouch("volley.example");
    let path = folder.write("server.pem", &certificate);
    let key_path = folder.write("server.key", &key);
    let settings = [
        ("VOLLEY_TLS__CERTIFICATE", path.as_str()),
        ("VOLLEY_TLS__KEY", key_path.as_str()),
        ("VOLLEY_RUNTIME__WORKERS", "1"),
    ];
    let server = ServerProcess::start(&settings);
    let request = binary_request(&[(); 32].map(|()| window(9)), &json!({ "cache": false }));
    let head = format!(
        "POST /v2/models/cnn_lstm/infer HTTP/1.1\r\nHost: volley.example\r\nInference-Header-Content-Length: {}\r\n\
         Content-Length: {}\r\n\r\n",
        request.json_length.expect("it is binary"),
        request.bytes.len(),
    );
    let request = [head.as_bytes(), &request.bytes].concat();
    // They stay connected: a system that closes what was not read to its end resets it, which is noticed by itself.
    let mut callers = Vec::new();
    eventually("a request that is given up", || {
        for _ in 0..8 {
            let tcp = TcpStream::connect(server.http).expect("the server listens");
            let mut caller = StreamOwned::new(connection(&authority, None), tcp);
            caller.write_all(&request).expect("it is read");
            caller.conn.send_close_notify();
            caller.flush().expect("it is read");
            callers.push(caller);
        }
        let mut reader = StreamOwned::new(
            connection(&authority, None),
            TcpStream::connect(server.metrics).expect("the server listens"),
        );
        let ask = b"GET /metrics HTTP/1.1\r\nHost: volley.example\r\nConnection: close\r\n\r\n";
        reader.write_all(ask).expect("it is read");
        let mut text = String::new();
        // The other end may leave without a farewell.
        let _ = reader.read_to_string(&mut text);
        text.lines().any(|line| line.contains(r#"reason="cancelled""#) && !line.ends_with(" 0"))
    });
}

//! Encrypted connections, and who is at their other end.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use webpki::EndEntityCert;

use crate::config::TlsConfig;

/// The server's side of TLS. What its files say can be read again while it serves.
pub(crate) struct Tls {
    config: TlsConfig,
    /// The protocol spoken inside, as ALPN names it.
    protocol: &'static [u8],
    current: ArcSwap<ServerConfig>,
}

/// A certificate or key cannot be used: which file, and why.
#[derive(Debug)]
pub(crate) struct TlsError(String);

impl Tls {
    /// As `config` says, for connections on which `protocol` is spoken; none if it names no certificate.
    ///
    /// # Errors
    /// [`TlsError`] names the file that cannot be used.
    pub(crate) fn open(config: &TlsConfig, protocol: &'static [u8]) -> Result<Option<Arc<Self>>, TlsError> {
        let Some(current) = load(config, protocol)? else { return Ok(None) };
        Ok(Some(Arc::new(Self { config: config.clone(), protocol, current: ArcSwap::from_pointee(current) })))
    }

    /// Reads the files again. Connections that are made from now on are shown the new certificate.
    ///
    /// # Errors
    /// [`TlsError`] names the file that cannot be used; then everything stays as it was.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        if let Some(current) = load(&self.config, self.protocol)? {
            self.current.store(Arc::new(current));
        }
        Ok(())
    }

    /// The handshake.
    ///
    /// # Errors
    /// When the other end speaks no TLS, or shows a certificate of nobody who is trusted.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(self.current.load_full()).accept(stream).await
    }
}

/// The names in the certificate that the other end showed, which its authority vouches for; none if it showed none.
pub(crate) fn names(stream: &TlsStream<TcpStream>) -> Arc<[String]> {
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let Some(certificate) = shown.and_then(|der| EndEntityCert::try_from(der).ok()) else { return Arc::default() };
    certificate.valid_dns_names().chain(certificate.valid_uri_names()).map(str::to_owned).collect()
}

fn load(config: &TlsConfig, protocol: &[u8]) -> Result<Option<ServerConfig>, TlsError> {
    let (Some(certificate), Some(key)) = (&config.certificate, &config.key) else { return Ok(None) };
    let chain = certificates("tls.certificate", certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::of("tls.key", key, &error))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has the usual suites");
    let builder = match &config.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates("tls.client_ca", path)? {
                roots.add(authority).map_err(|error| TlsError::of("tls.client_ca", path, &error))?;
            }
            // Who shows none may still have a key, or be a probe.
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).allow_unauthenticated();
            let verifier = verifier.build().map_err(|error| TlsError::of("tls.client_ca", path, &error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut server = builder.with_single_cert(chain, private).map_err(|error| TlsError::of("tls.key", key, &error))?;
    server.alpn_protocols = vec![protocol.to_vec()];
    Ok(Some(server))
}

fn certificates(setting: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| TlsError::of(setting, path, &error))?;
    if certificates.is_empty() {
        return Err(TlsError::of(setting, path, &"it holds no certificate; expected some in PEM"));
    }
    Ok(certificates)
}

impl TlsError {
    fn of(setting: &str, path: &Path, error: &dyn fmt::Display) -> Self {
        Self(format!("{setting}: {}: {error}", path.display()))
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("config", &self.config).finish_non_exhaustive()
    }
}

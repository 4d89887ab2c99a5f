//! Encryption of what goes over the listeners.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Complaints;

/// TLS, on every listener. The files are read again when they change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// The server's certificate and those between it and its authority (PEM). Unset: connections are not encrypted.
    pub certificate: Option<PathBuf>,
    /// The certificate's private key (PEM).
    pub key: Option<PathBuf>,
    /// The authorities whose certificates callers may show (PEM). Who shows one is known by `security.callers`.
    pub client_ca: Option<PathBuf>,
}

impl TlsConfig {
    pub(super) fn check(&self, complaints: &mut Complaints) {
        match (&self.certificate, &self.key, &self.client_ca) {
            (Some(_), None, _) => complaints.add("tls.key", "unset; expected the private key of tls.certificate"),
            (None, Some(_), _) => complaints.add("tls.certificate", "unset; expected the certificate of tls.key"),
            (None, None, Some(_)) => {
                complaints.add("tls.certificate", "unset; tls.client_ca needs tls.certificate and tls.key beside it");
            }
            _ => {}
        }
    }
}

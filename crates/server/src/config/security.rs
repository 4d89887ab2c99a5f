//! Who may do what.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Config;
use super::problem::Complaints;

/// Who may do what. Where no callers are named, whoever is on this machine may do everything, and nobody else anything.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SecurityConfig {
    /// Whoever shows neither a key nor a certificate may ask for inference and observe, from wherever a listener can be
    /// reached.
    #[schemars(extend("x-live" = true))]
    pub allow_anonymous: bool,
    /// Callers by name. Each is a tenant: none can crowd out the others.
    #[schemars(extend("x-live" = true))]
    pub callers: BTreeMap<String, CallerConfig>,
}

/// A caller: how it is known, and what it may do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CallerConfig {
    /// Digests of its keys, as `volley-server key new NAME` prints them: `sha256:` and 64 digits. Two while one is replaced.
    #[schemars(extend("writeOnly" = true))]
    pub keys: Vec<String>,
    /// A name that its certificate carries (a DNS name or URI among the subject's alternative names).
    pub certificate: Option<String>,
    /// What it may do: ask for inference (`infer`), read metrics and statistics (`observe`), load models and change
    /// settings (`admin`). Each stands alone.
    pub scopes: Vec<Scope>,
    /// Requests it may make a second, on average. Unset: as many as it likes.
    pub requests_per_second: Option<NonZeroU32>,
    /// Requests it may make at once after a pause. Unset: those of one second.
    pub burst: Option<NonZeroU32>,
    /// Requests of it that may wait at a time. Unset: what the lanes hold.
    pub max_queued: Option<NonZeroU32>,
}

/// Something a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Ask for inference.
    Infer,
    /// Read metrics and statistics.
    Observe,
    /// Load and unload models, change settings.
    Admin,
}

impl Default for CallerConfig {
    fn default() -> Self {
        let (keys, certificate, scopes) = (Vec::new(), None, vec![Scope::Infer]);
        Self { keys, certificate, scopes, requests_per_second: None, burst: None, max_queued: None }
    }
}

impl Scope {
    /// Its name in the configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Infer => "infer",
            Self::Observe => "observe",
            Self::Admin => "admin",
        }
    }
}

/// The digest that `sha256:` and 64 digits stand for.
pub(crate) fn digest_of_text(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix("sha256:").filter(|digits| digits.len() == 64 && digits.is_ascii())?;
    let mut digest = [0; 32];
    for (byte, at) in digest.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
    }
    Some(digest)
}

impl SecurityConfig {
    pub(super) fn check(&self, of: &Config, complaints: &mut Complaints) {
        let mut known = BTreeMap::new();
        for (name, caller) in &self.callers {
            let path = |field: &str| format!("security.callers.{name}.{field}");
            if caller.keys.iter().any(|text| digest_of_text(text).is_none()) {
                let text = format!(
                    "one is no digest; expected sha256: and 64 digits, as `volley-server key new {name}` prints them"
                );
                complaints.add(path("keys"), text);
            }
            for digest in caller.keys.iter().filter_map(|text| digest_of_text(text)) {
                if let Some(other) = known.insert(digest, name).filter(|other| *other != name) {
                    let text =
                        format!("one is a key of `{other}` as well; expected keys by which `{name}` alone is known");
                    complaints.add(path("keys"), text);
                }
            }
            if caller.keys.is_empty() && caller.certificate.is_none() {
                let text = format!(
                    "empty; expected a key that `volley-server key new {name}` prints, or `certificate` beside it"
                );
                complaints.add(path("keys"), text);
            }
            if caller.certificate.is_some() && of.tls.client_ca.is_none() {
                let text = "no certificate can be shown; expected tls.client_ca to name who issues them";
                complaints.add(path("certificate"), text);
            }
            if caller.scopes.is_empty() {
                complaints.add(path("scopes"), "empty; expected some of \"infer\", \"observe\" and \"admin\"");
            }
            if caller.burst.is_some() && caller.requests_per_second.is_none() {
                complaints.add(path("burst"), "given without requests_per_second beside it");
            }
        }
        if self.callers.is_empty() {
            self.check_hosts(of, complaints);
        }
    }

    /// Where nobody can be told from anybody, nobody from outside is to be let in unasked.
    fn check_hosts(&self, of: &Config, complaints: &mut Complaints) {
        for (path, host) in
            [("http.host", of.http.host), ("grpc.host", of.grpc.host), ("metrics.host", of.metrics.host)]
        {
            if !self.allow_anonymous && !is_loopback(host) {
                let text = format!(
                    "{host} can be reached from other machines, and nothing says who may; name callers \
                     (`volley-server key new NAME` makes a key and prints what to write), or set security.allow_anonymous = true \
                     (VOLLEY_SECURITY__ALLOW_ANONYMOUS=true) to answer anybody"
                );
                complaints.add(path, text);
            }
        }
        if !is_loopback(of.admin.host) {
            let text = format!(
                "{} can be reached from other machines; name a caller with the scope \"admin\" (`volley-server key new NAME` \
                 makes a key and prints what to write)",
                of.admin.host
            );
            complaints.add("admin.host", text);
        }
    }
}

/// Whether an address is this machine's own.
pub(crate) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

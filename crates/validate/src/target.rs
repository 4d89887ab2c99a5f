//! Where the model under test is served.

use std::fmt;

use hyper::Uri;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue};
use thiserror::Error;

/// The address of one model on one server.
///
/// # Examples
///
/// ```
/// use volley_validate::target::Target;
///
/// let target = Target::new("http://127.0.0.1:8000", "cnn_lstm")?.with_version("1")?;
/// assert_eq!(target.infer_path(), "/v2/models/cnn_lstm/versions/1/infer");
/// # Ok::<(), volley_validate::target::TargetError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
    prefix: String,
    model: String,
    version: Option<String>,
    /// Not shown by `Debug`.
    authorization: Option<HeaderValue>,
}

impl Target {
    /// Reads `url` (`http://host:port`, with a path prefix where a gateway adds one) and the model's name.
    ///
    /// # Errors
    ///
    /// When the URL cannot be spoken to over plain HTTP/1.1, or the name could not be part of a path.
    pub fn new(url: &str, model: impl Into<String>) -> Result<Self, TargetError> {
        let bad_url = |reason: &'static str| TargetError::Url { url: url.to_owned(), reason };
        let uri: Uri = url.parse().map_err(|_| bad_url("it is not a URL; write http://HOST:PORT"))?;
        match uri.scheme_str() {
            None | Some("http") => {}
            Some(_) => return Err(bad_url("only http:// is spoken; write http://HOST:PORT")),
        }
        let host = uri
            .host()
            .filter(|host| !host.is_empty())
            .ok_or_else(|| bad_url("it names no host; write http://HOST:PORT"))?;
        if uri.query().is_some() {
            return Err(bad_url("it carries a query; only a path prefix may follow the host"));
        }
        Ok(Self {
            // Brackets belong to the URL, not to the IPv6 address the resolver wants.
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(80),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            model: path_segment("model name", model.into())?,
            version: None,
            authorization: None,
        })
    }

    /// Asks for one version instead of the one the server picks.
    ///
    /// # Errors
    ///
    /// When the version could not be part of a path.
    pub fn with_version(mut self, version: impl Into<String>) -> Result<Self, TargetError> {
        self.version = Some(path_segment("model version", version.into())?);
        Ok(self)
    }

    /// Names the caller by an API key, sent as `Authorization: Bearer KEY`.
    ///
    /// # Errors
    ///
    /// When the key could not be part of a header.
    pub fn with_key(mut self, key: &str) -> Result<Self, TargetError> {
        let mut value = HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| TargetError::Key)?;
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(self)
    }

    /// The model's name.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Host name or address, and port, as the resolver wants them.
    #[must_use]
    pub fn host_and_port(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// The `Host` header: `host:port`, an IPv6 address in brackets.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The headers that say whom a request is for, and who sends it.
    pub(crate) fn headers(&self) -> Result<HeaderMap, hyper::http::Error> {
        let host = HeaderValue::try_from(self.authority())?;
        let authorization = self.authorization.clone().map(|value| (AUTHORIZATION, value));
        Ok([(HOST, host)].into_iter().chain(authorization).collect())
    }

    /// Path of the model's metadata (Open Inference Protocol V2).
    #[must_use]
    pub fn metadata_path(&self) -> String {
        let Self { prefix, model, .. } = self;
        match &self.version {
            Some(version) => format!("{prefix}/v2/models/{model}/versions/{version}"),
            None => format!("{prefix}/v2/models/{model}"),
        }
    }

    /// Path that inference requests are posted to.
    #[must_use]
    pub fn infer_path(&self) -> String {
        format!("{}/infer", self.metadata_path())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.metadata_path())
    }
}

/// Why a target could not be understood.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum TargetError {
    /// The URL cannot be used.
    #[error("url '{url}' cannot be used: {reason}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it and what would be right.
        reason: &'static str,
    },
    /// A model name or version cannot be part of a path.
    #[error("{what} '{given}' cannot be part of a path: use letters, digits, '.', '_' and '-'")]
    Name {
        /// Which name.
        what: &'static str,
        /// As given.
        given: String,
    },
    /// An API key cannot be part of a header; it is not shown.
    #[error("the key cannot be part of a header: use visible ASCII characters")]
    Key,
}

fn path_segment(what: &'static str, given: String) -> Result<String, TargetError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if given.is_empty() || !given.chars().all(allowed) {
        return Err(TargetError::Name { what, given });
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_prefix_and_a_trailing_slash_are_understood() {
        let target = Target::new("http://gateway:9000/team/", "m").unwrap();
        assert_eq!(target.infer_path(), "/team/v2/models/m/infer");
        assert_eq!(target.authority(), "gateway:9000");
    }

    #[test]
    fn a_bare_host_and_port_is_taken_as_http() {
        let target = Target::new("127.0.0.1:8000", "m").unwrap();
        assert_eq!(target.host_and_port(), ("127.0.0.1", 8000));
        assert_eq!(target.infer_path(), "/v2/models/m/infer");
    }

    #[test]
    fn an_ipv6_address_loses_its_brackets_for_the_resolver_only() {
        let target = Target::new("http://[::1]:8000", "m").unwrap();
        assert_eq!(target.host_and_port(), ("::1", 8000));
        assert_eq!(target.authority(), "[::1]:8000");
    }

    #[test]
    fn what_cannot_be_spoken_to_is_refused_with_what_would_be_right() {
        for url in ["https://h:1", "http://", "not a url", "http://h:1/?a=b"] {
            let error = Target::new(url, "m").unwrap_err();
            assert!(error.to_string().contains(url), "{error}");
        }
        assert!(Target::new("http://h:1", "a/b").is_err());
        assert!(Target::new("http://h:1", "m").unwrap().with_version("").is_err());
        assert_eq!(Target::new("http://h:1", "m").unwrap().with_key("a\nb"), Err(TargetError::Key));
    }

    #[test]
    fn a_key_is_sent_and_never_shown() {
        let target = Target::new("http://h:1", "m").unwrap().with_key("secret").unwrap();
        assert_eq!(target.headers().unwrap()[AUTHORIZATION], "Bearer secret");
        assert!(!format!("{target:?} {target}").contains("secret"));
    }
}

//! Where the shared tier is and what it may cost.

use crate::gate::WhenCutOff;
use fred::rustls::pki_types::CertificateDer;
use fred::rustls::pki_types::pem::PemObject;
use fred::rustls::{ClientConfig, RootCertStore, crypto};
use fred::types::RespVersion;
use fred::types::config::Config;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Where the shared tier is and what it may cost. `Debug` prints no password.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedConfig {
    /// One server, `redis://host:port`; a cluster, `redis-cluster://host:port?node=host:port&node=host:port`; servers
    /// behind Sentinel, `redis-sentinel://host:port?node=host:port&sentinelServiceName=name`, where the hosts are the
    /// sentinels. `rediss` in place of `redis` speaks TLS. Further nodes are found by asking the first that answers.
    ///
    /// User and password may stand before the host, percent-encoded, as `user:password@`; those of the sentinels are
    /// the parameters `sentinelUsername` and `sentinelPassword`. Redis 7 or later, or Valkey.
    pub url: String,
    /// The ACL user, in place of the URL's. Needs the commands `get`, `set`, `eval`, `subscribe`, `publish`, `time`,
    /// `hello`, `ping`, `info`, `client` and those of sorted sets (and `cluster` on a cluster), on keys and channels that
    /// begin with `prefix`.
    pub username: Option<String>,
    /// The password, in place of the URL's.
    pub password: Option<String>,
    /// The certificates (PEM) that the servers' are verified with, in place of the system's. Only with TLS.
    pub ca_file: Option<PathBuf>,
    /// What all names in Redis begin with. Replicas that share a prefix share values, and need the same secret of the
    /// keyer to read each other's.
    pub prefix: String,
    /// How long a look-up may take: it runs beside the computation it may save, and after this it has failed. Two to
    /// five times what the server takes is plenty.
    pub lookup_budget: Duration,
    /// How long the first tier serves on without hearing from Redis whether anything was invalidated. Polls come four
    /// times a second, so less than a second is not to be had.
    pub max_staleness: Duration,
    /// What the first tier does after that.
    pub when_cut_off: WhenCutOff,
    /// How many values wait to be written at most; the oldest goes first.
    pub queue_entries: usize,
    /// How many bytes wait to be written at most.
    pub queue_bytes: usize,
    /// How long Redis keeps a value.
    pub time_to_live: Duration,
    /// By how much a value's life may fall short of that, so that what was written in one burst does not expire in one.
    pub ttl_jitter: Duration,
}

impl SharedConfig {
    /// The tier at `url`, with what suits most.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            username: None,
            password: None,
            ca_file: None,
            prefix: "volley".into(),
            lookup_budget: Duration::from_millis(5),
            max_staleness: Duration::from_secs(10),
            when_cut_off: WhenCutOff::Bypass,
            queue_entries: 10_000,
            queue_bytes: 32 << 20,
            time_to_live: Duration::from_hours(1),
            ttl_jitter: Duration::from_mins(5),
        }
    }

    /// Reads the certificates, and makes sure of the rest.
    ///
    /// # Errors
    ///
    /// The first field that cannot be used, and why.
    pub fn validate(self) -> Result<SharedSettings, SharedConfigError> {
        let prefix_is_fine = |c: char| c.is_ascii_graphic() && !matches!(c, '{' | '}');
        let at_least = |field, value: Duration, least: Duration| {
            let complaint = || SharedConfigError::new(field, format!("{value:?}; expected at least {least:?}"));
            if value < least { Err(complaint()) } else { Ok(()) }
        };
        if self.prefix.is_empty() || !self.prefix.chars().all(prefix_is_fine) {
            let problem = "expected one or more printable ASCII characters without spaces and braces";
            return Err(SharedConfigError::new("prefix", format!("{:?}; {problem}", self.prefix)));
        }
        at_least("lookup_budget", self.lookup_budget, Duration::from_micros(100))?;
        at_least("max_staleness", self.max_staleness, Duration::from_secs(1))?;
        at_least("time_to_live", self.time_to_live, Duration::from_millis(1))?;
        for (field, bound) in [("queue_entries", self.queue_entries), ("queue_bytes", self.queue_bytes)] {
            if bound == 0 {
                return Err(SharedConfigError::new(field, "0; expected at least 1".into()));
            }
        }
        let servers = self.servers()?;
        Ok(SharedSettings { config: self, servers })
    }

    fn servers(&self) -> Result<Config, SharedConfigError> {
        let of_url = |problem| SharedConfigError::new("url", problem);
        let (scheme, rest) = self.url.split_once("://").ok_or_else(|| {
            of_url("expected `redis://HOST:PORT`, or `rediss`, `redis-cluster`, `redis-sentinel` before `://`".into())
        })?;
        let (kind, topology) = scheme.split_once('-').map_or((scheme, ""), |(kind, topology)| (kind, topology));
        let tls = match kind {
            "redis" => false,
            "rediss" => true,
            _ => {
                return Err(of_url(format!(
                    "scheme {scheme:?}; expected `redis` or `rediss`, alone or with `-cluster` or `-sentinel`"
                )));
            }
        };
        let parse = match topology {
            "" if !scheme.contains('-') => Config::from_url_centralized,
            "cluster" => Config::from_url_clustered,
            "sentinel" => Config::from_url_sentinel,
            _ => {
                return Err(of_url(format!(
                    "scheme {scheme:?}; expected `-cluster`, `-sentinel` or nothing after `{kind}`"
                )));
            }
        };
        // Without TLS in the scheme, since fred would take the system's certificates.
        let plain = format!("redis{}://{rest}", &scheme[kind.len()..]);
        let mut config = parse(&plain).map_err(|error| of_url(error.details().to_owned()))?;
        config.fail_fast = false;
        config.version = RespVersion::RESP3;
        config.username = self.username.clone().or(config.username);
        config.password = self.password.clone().or(config.password);
        if tls {
            config.tls = Some(self.certificates()?.into());
        } else if self.ca_file.is_some() {
            let problem = "only of use with TLS; expected a url that begins with `rediss`";
            return Err(SharedConfigError::new("ca_file", problem.into()));
        }
        Ok(config)
    }

    fn certificates(&self) -> Result<ClientConfig, SharedConfigError> {
        let mut roots = RootCertStore::empty();
        match &self.ca_file {
            Some(file) => {
                let of_file =
                    |problem: String| SharedConfigError::new("ca_file", format!("{}: {problem}", file.display()));
                for certificate in certificates_in(file).map_err(of_file)? {
                    roots.add(certificate).map_err(|error| of_file(error.to_string()))?;
                }
                if roots.is_empty() {
                    return Err(of_file("expected PEM certificates; found none".into()));
                }
            }
            None => {
                roots.add_parsable_certificates(fred::rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    let problem = "missing, and this system has no certificates; expected a PEM file";
                    return Err(SharedConfigError::new("ca_file", problem.into()));
                }
            }
        }
        // Named, because a program whose other crates bring another one has no default.
        let provider = Arc::new(crypto::ring::default_provider());
        let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = versions.expect("ring speaks the default versions of TLS");
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

fn certificates_in(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file).map_err(|error| error.to_string())?;
    read.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

impl fmt::Debug for SharedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, username, password, ca_file, prefix, lookup_budget, max_staleness, .. } = self;
        f.debug_struct("SharedConfig")
            .field("url", &without_secrets(url))
            .field("username", username)
            .field("password", &password.as_ref().map(|_| ".."))
            .field("ca_file", ca_file)
            .field("prefix", prefix)
            .field("lookup_budget", lookup_budget)
            .field("max_staleness", max_staleness)
            .field("when_cut_off", &self.when_cut_off)
            .field("queue_entries", &self.queue_entries)
            .field("queue_bytes", &self.queue_bytes)
            .field("time_to_live", &self.time_to_live)
            .field("ttl_jitter", &self.ttl_jitter)
            .finish()
    }
}

/// The URL, unless passwords may stand in it: before an `@`, or after a `?`.
fn without_secrets(url: &str) -> String {
    match url.split_once("://") {
        Some((_, rest)) if !rest.contains(['@', '?']) => url.to_owned(),
        Some((scheme, _)) if scheme.len() < 20 => format!("{scheme}://.."),
        _ => "..".to_owned(),
    }
}

/// A [`SharedConfig`] that can be used.
#[derive(Clone)]
pub struct SharedSettings {
    pub(super) config: SharedConfig,
    pub(super) servers: Config,
}

impl fmt::Debug for SharedSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedSettings").field(&self.config).finish()
    }
}

/// A field of [`SharedConfig`] that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedConfigError {
    field: &'static str,
    problem: String,
}

impl SharedConfigError {
    fn new(field: &'static str, problem: String) -> Self {
        Self { field, problem }
    }

    /// The field's name.
    #[must_use]
    pub fn field(&self) -> &'static str {
        self.field
    }
}

impl fmt::Display for SharedConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl std::error::Error for SharedConfigError {}

#[cfg(test)]
mod tests {
    use super::*;
    use fred::types::config::ServerConfig;

    fn settings(url: &str) -> SharedSettings {
        SharedConfig::new(url).validate().expect(url)
    }

    #[test]
    fn each_topology_is_told_by_the_scheme() {
        assert!(settings("redis://h:1").servers.server.is_centralized());
        let cluster = settings("redis-cluster://h:1?node=i:2").servers.server;
        assert!(cluster.is_clustered());
        assert_eq!(cluster.hosts().len(), 2);
        let ServerConfig::Sentinel { service_name, hosts, .. } =
            settings("redis-sentinel://h:1?node=i:2&sentinelServiceName=prices").servers.server
        else {
            panic!("not behind Sentinel")
        };
        assert_eq!((service_name.as_str(), hosts.len()), ("prices", 2));
    }

    #[test]
    fn user_and_password_of_their_own_come_before_the_url_s() {
        let mut config = SharedConfig::new("redis://a:b%40c@h:1/2");
        let servers = config.clone().validate().expect("fine").servers;
        assert_eq!((servers.username.as_deref(), servers.password.as_deref()), (Some("a"), Some("b@c")));
        assert_eq!(servers.database, Some(2));
        config.username = Some("x".into());
        config.password = Some("y".into());
        let servers = config.validate().expect("fine").servers;
        assert_eq!((servers.username.as_deref(), servers.password.as_deref()), (Some("x"), Some("y")));
    }

    #[test]
    fn what_cannot_be_used_is_told_by_the_field_s_name() {
        let fine = || SharedConfig::new("redis://h:1");
        for (field, config) in [
            ("url", SharedConfig::new("localhost:6379")),
            ("url", SharedConfig::new("http://h:1")),
            ("url", SharedConfig::new("redis-ring://h:1")),
            ("url", SharedConfig::new("redis-://h:1")),
            ("url", SharedConfig::new("redis://:1")),
            ("url", SharedConfig::new("redis-sentinel://h:1")),
            ("ca_file", SharedConfig { ca_file: Some("ca.pem".into()), ..fine() }),
            ("ca_file", SharedConfig { ca_file: Some("/nowhere/ca.pem".into()), ..SharedConfig::new("rediss://h:1") }),
            ("ca_file", SharedConfig { ca_file: Some("/dev/null".into()), ..SharedConfig::new("rediss://h:1") }),
            ("prefix", SharedConfig { prefix: String::new(), ..fine() }),
            ("prefix", SharedConfig { prefix: "{a}".into(), ..fine() }),
            ("lookup_budget", SharedConfig { lookup_budget: Duration::ZERO, ..fine() }),
            ("max_staleness", SharedConfig { max_staleness: Duration::from_millis(999), ..fine() }),
            ("time_to_live", SharedConfig { time_to_live: Duration::ZERO, ..fine() }),
            ("queue_entries", SharedConfig { queue_entries: 0, ..fine() }),
            ("queue_bytes", SharedConfig { queue_bytes: 0, ..fine() }),
        ] {
            let url = config.url.clone();
            let error = config.validate().expect_err(&url);
            assert_eq!(error.field(), field, "{url}: {error}");
            assert!(error.to_string().starts_with(&format!("{field}: ")), "{error}");
        }
    }

    #[test]
    fn debug_prints_no_password() {
        for url in [
            "redis://user:secret@h:1/2",
            "rediss://user:se?secret@h:1",
            "redis-sentinel://h:1?sentinelServiceName=s&sentinelPassword=secret",
            "secret",
        ] {
            let config = SharedConfig { password: Some("secret".into()), ..SharedConfig::new(url) };
            let printed = format!("{config:?}");
            assert!(!printed.contains("secret"), "{printed}");
        }
        assert!(!format!("{:?}", settings("redis://user:secret@h:1")).contains("secret"));
        assert!(format!("{:?}", settings("redis://h:1")).contains("redis://h:1"));
    }
}

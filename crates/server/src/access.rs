//! Who asks, and whether they may.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName, ORIGIN};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use volley_scheduler::TenantId;

use crate::config::{CallerConfig, Scope, SecurityConfig, digest_of_text, is_loopback};
use crate::engine::DeviceScheduler;
use crate::error::{ApiError, Cause};
use crate::key::digest_of_key;
use crate::rate::Rate;

/// The header that holds a key.
pub(crate) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Where a connection comes from.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// The other end's address.
    pub address: IpAddr,
    /// The names in the certificate that it showed; none if it showed none.
    pub names: Arc<[String]>,
}

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing: probes have no keys.
    Nothing,
    /// To be somebody.
    Any,
    /// This scope.
    Scope(Scope),
}

/// Somebody who was recognised.
#[derive(Debug)]
pub(crate) struct Caller {
    /// Its name in the configuration.
    pub name: String,
    /// What its requests are queued as.
    pub tenant: TenantId,
    config: CallerConfig,
    digests: Vec<[u8; 32]>,
    rate: Option<Arc<Rate>>,
}

/// Who may do what, as configured.
#[derive(Debug)]
pub(crate) struct Access {
    callers: Vec<Arc<Caller>>,
    allow_anonymous: bool,
}

/// The scheduler's names for callers. They live as long as the scheduler, so that one that comes back is the same.
#[derive(Debug)]
pub(crate) struct Tenants {
    scheduler: DeviceScheduler,
    known: Mutex<HashMap<(String, NonZeroU32), TenantId>>,
}

impl Tenants {
    pub(crate) fn of(scheduler: DeviceScheduler) -> Self {
        Self { scheduler, known: Mutex::default() }
    }

    fn get(&self, name: &str, quota: NonZeroU32) -> TenantId {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known.entry((name.to_owned(), quota)).or_insert_with(|| self.scheduler.add_tenant(quota))
    }
}

impl Access {
    /// As `config` says. A caller whose rate is the same as `before` keeps what it has used of it.
    pub(crate) fn of(config: &SecurityConfig, tenants: &Tenants, before: Option<&Self>, now: Instant) -> Self {
        let callers = config.callers.iter().map(|(name, config)| {
            let before = before.and_then(|before| before.callers.iter().find(|caller| caller.name == *name));
            Arc::new(Caller::of(name, config, tenants, before.map(Arc::as_ref), now))
        });
        Self { callers: callers.collect(), allow_anonymous: config.allow_anonymous }
    }

    /// Lets in who may do what it `needs`; `None` is somebody without a name.
    ///
    /// # Errors
    /// [`ApiError`] with status 401 for who is not known, 403 for who may not, 429 for who asks too often.
    pub(crate) fn admit(
        &self,
        need: Need,
        headers: &HeaderMap,
        peer: &Peer,
        now: Instant,
    ) -> Result<Option<Arc<Caller>>, ApiError> {
        if need == Need::Nothing {
            return Ok(None);
        }
        let Some(caller) = self.recognise(headers, peer)? else {
            let at_home = self.callers.is_empty() && is_loopback(peer.address);
            return if self.allow_anonymous && need != Need::Scope(Scope::Admin) {
                Ok(None)
            } else if at_home && headers.contains_key(ORIGIN) {
                Err(web_page())
            } else if at_home {
                Ok(None)
            } else {
                Err(unknown())
            };
        };
        match need {
            Need::Scope(scope) if !caller.config.scopes.contains(&scope) => {
                let (name, scope) = (&caller.name, scope.name());
                let message =
                    format!("caller `{name}` has not the scope `{scope}`; security.callers.{name}.scopes gives it");
                Err(ApiError::new(Cause::Forbidden, message))
            }
            _ => caller.rate.as_ref().map_or(Ok(()), |rate| rate.take(now)).map(|()| Some(Arc::clone(caller))).map_err(
                |after| {
                    let message =
                        format!("caller `{}` asks more often than its requests_per_second allow", caller.name);
                    ApiError::new(Cause::TooOften(after), message)
                },
            ),
        }
    }

    fn recognise(&self, headers: &HeaderMap, peer: &Peer) -> Result<Option<&Arc<Caller>>, ApiError> {
        if self.callers.is_empty() {
            return Ok(None);
        }
        let bearer = headers.get(AUTHORIZATION).and_then(|value| {
            let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
        });
        let key = bearer.or_else(|| headers.get(API_KEY)?.to_str().ok());
        if let Some(key) = key {
            return self.of_key(key).map(Some).ok_or_else(|| {
                ApiError::new(Cause::Unauthenticated, "the key is not known; `volley-server key new NAME` makes one")
            });
        }
        let shows =
            |caller: &&Arc<Caller>| caller.config.certificate.as_ref().is_some_and(|name| peer.names.contains(name));
        Ok(self.callers.iter().find(shows))
    }

    /// Looks at every digest to its end, whichever fits, so that the time it takes says nothing.
    fn of_key(&self, key: &str) -> Option<&Arc<Caller>> {
        let digest = digest_of_key(key);
        let mut found = u32::MAX;
        for (index, caller) in (0..).zip(&self.callers) {
            for known in &caller.digests {
                found.conditional_assign(&index, known.ct_eq(&digest));
            }
        }
        self.callers.get(found as usize)
    }
}

impl Caller {
    fn of(name: &str, config: &CallerConfig, tenants: &Tenants, before: Option<&Self>, now: Instant) -> Self {
        let limit = |config: &CallerConfig| (config.requests_per_second, config.burst);
        let rate = match before {
            Some(before) if limit(&before.config) == limit(config) => before.rate.clone(),
            _ => config.requests_per_second.map(|rate| Arc::new(Rate::new(now, rate, config.burst.unwrap_or(rate)))),
        };
        Self {
            name: name.to_owned(),
            tenant: tenants.get(name, config.max_queued.unwrap_or(NonZeroU32::MAX)),
            digests: config.keys.iter().filter_map(|text| digest_of_text(text)).collect(),
            config: config.clone(),
            rate,
        }
    }
}

/// A browser on this machine speaks for whatever page is open in it.
fn web_page() -> ApiError {
    let message = "header Origin: a web page asks; it needs a key of a caller in security.callers";
    ApiError::new(Cause::Unauthenticated, message)
}

fn unknown() -> ApiError {
    let message = "who asks? send a key as `Authorization: Bearer KEY` or `x-api-key: KEY`, or show a certificate that \
                   security.callers knows";
    ApiError::new(Cause::Unauthenticated, message)
}

#[cfg(test)]
mod tests {
    use volley_scheduler::Scheduler;

    use super::*;

    #[test]
    fn what_a_caller_has_used_of_its_rate_outlives_changes_of_everything_else() {
        let (scheduler, _workers) = Scheduler::new(volley_scheduler::Config::default(), std::num::NonZeroUsize::MIN);
        let (tenants, start) = (Tenants::of(scheduler), Instant::now());
        let (one, peer) = (NonZeroU32::MIN, Peer { address: [127, 0, 0, 1].into(), names: Arc::from(["desk".into()]) });
        let caller =
            CallerConfig { certificate: Some("desk".into()), requests_per_second: Some(one), ..Default::default() };
        let of = |caller: &CallerConfig, before| {
            let callers = [("desk".to_owned(), caller.clone())].into();
            Access::of(&SecurityConfig { callers, ..Default::default() }, &tenants, before, start)
        };
        let asks = |access: &Access| access.admit(Need::Any, &HeaderMap::new(), &peer, start).map(|_| ());
        let first = of(&caller, None);
        assert!(asks(&first).is_ok() && asks(&first).is_err());
        let rescoped = CallerConfig { scopes: vec![Scope::Observe], ..caller.clone() };
        let second = of(&rescoped, Some(&first));
        assert!(asks(&second).is_err(), "it was used before");
        let faster = CallerConfig { requests_per_second: NonZeroU32::new(2), ..rescoped };
        assert!(asks(&of(&faster, Some(&second))).is_ok(), "another rate is another matter");
    }
}

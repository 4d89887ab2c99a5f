//! What an invalidation is about.

use crate::key::Key;
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// The entries an invalidation reaches.
///
/// Its text form is what replicas and administrators exchange: `all`, `model/NAME`, `version/NAME/VERSION`, `tag/TAG`,
/// `key/` and 32 hexadecimal digits. In names, `%` and `/` are written `%25` and `%2F`.
///
/// # Examples
///
/// ```
/// use volley_cache::Scope;
///
/// let scope: Scope = "version/cnn_lstm/3".parse()?;
/// assert_eq!(scope, Scope::Version("cnn_lstm".into(), "3".into()));
/// assert_eq!(Scope::Tag("a/b".into()).to_string(), "tag/a%2Fb");
/// # Ok::<(), volley_cache::ScopeError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Every entry.
    All,
    /// Those of a model, whatever their version.
    Model(Box<str>),
    /// Those of one version of a model.
    Version(Box<str>, Box<str>),
    /// Those of the domains that carry a tag.
    Tag(Box<str>),
    /// That of one key.
    Key(Key),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Model(model) => write!(f, "model/{}", escaped(model)),
            Self::Version(model, version) => write!(f, "version/{}/{}", escaped(model), escaped(version)),
            Self::Tag(tag) => write!(f, "tag/{}", escaped(tag)),
            Self::Key(key) => write!(f, "key/{key}"),
        }
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let error = || ScopeError(text.into());
        let mut parts = text.split('/');
        let kind = parts.next();
        let (first, second, rest) = (parts.next(), parts.next(), parts.next());
        let name = |part| unescaped(part).ok_or_else(error);
        match (kind, first, second, rest) {
            (Some("all"), None, None, None) => Ok(Self::All),
            (Some("model"), Some(model), None, None) => Ok(Self::Model(name(model)?)),
            (Some("version"), Some(model), Some(version), None) => Ok(Self::Version(name(model)?, name(version)?)),
            (Some("tag"), Some(tag), None, None) => Ok(Self::Tag(name(tag)?)),
            (Some("key"), Some(digits), None, None) => Key::from_hex(digits).map(Self::Key).ok_or_else(error),
            _ => Err(error()),
        }
    }
}

fn escaped(name: &str) -> Cow<'_, str> {
    if name.contains(['%', '/']) { name.replace('%', "%25").replace('/', "%2F").into() } else { name.into() }
}

/// Nothing where a `%` begins neither of the two escapes.
fn unescaped(part: &str) -> Option<Box<str>> {
    let mut pieces = part.split('%');
    let mut name = pieces.next()?.to_owned();
    for piece in pieces {
        let (code, plain) = piece.split_at_checked(2)?;
        name.push(match code {
            "25" => '%',
            "2F" => '/',
            _ => return None,
        });
        name.push_str(plain);
    }
    Some(name.into())
}

/// A text that names no [`Scope`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeError(Box<str>);

impl fmt::Display for ScopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "scope {:?}: expected `all`, `model/NAME`, `version/NAME/VERSION`, `tag/TAG` or `key/` and 32 hexadecimal \
             digits, with `%` and `/` in names as `%25` and `%2F`",
            self.0
        )
    }
}

impl std::error::Error for ScopeError {}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Scopes of few names, so that they meet.
    pub(crate) fn scope() -> impl Strategy<Value = Scope> {
        let name = || prop_oneof!["[ab]", "[/%2F5]{0,4}"].prop_map(String::into_boxed_str);
        prop_oneof![
            Just(Scope::All),
            name().prop_map(Scope::Model),
            (name(), name()).prop_map(|(model, version)| Scope::Version(model, version)),
            name().prop_map(Scope::Tag),
            (0_u8..3).prop_map(|n| Scope::Key(Key::from_bytes([n; 16]))),
        ]
    }

    proptest! {
        #[test]
        fn every_scope_is_read_back_from_its_text(scope in scope(), name in any::<String>()) {
            prop_assert_eq!(scope.to_string().parse(), Ok(scope));
            let of_any_name = Scope::Version(name.clone().into(), name.into());
            prop_assert_eq!(of_any_name.to_string().parse(), Ok(of_any_name));
        }

        #[test]
        fn what_is_read_has_no_other_text(text in "(all|model|version|tag|key)?/?[ab/%2F5]{0,8}") {
            if let Ok(scope) = text.parse::<Scope>() {
                prop_assert_eq!(scope.to_string(), text);
            }
        }
    }

    #[test]
    fn a_text_that_names_nothing_is_told_what_would() {
        for wrong in ["", "everything", "all/", "model", "version/a", "tag/a/b", "model/%2f", "model/%", "key/12"] {
            let error = wrong.parse::<Scope>().expect_err(wrong).to_string();
            assert!(error.starts_with(&format!("scope {wrong:?}: expected `all`, `model/NAME`")), "{error}");
        }
    }
}

//! API keys: how one is made, and what is kept of it.

use std::fmt;

use ring::digest;

/// What keys begin with, so that one that leaked is recognised.
const PREFIX: &str = "volley_";

/// The digest of a key, which is all that the configuration holds.
///
/// A key has 256 random bits, so that a plain SHA-256 gives nothing away: what slow password hashes are for is guessing,
/// and there is nothing to guess.
#[must_use]
pub(crate) fn digest_of_key(key: &str) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, key.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// A key that was just made. It is shown to a person once.
pub struct NewKey(String);

impl NewKey {
    /// Makes a key.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn make() -> Result<Self, getrandom::Error> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        Ok(Self(format!("{PREFIX}{}", hexadecimal(&random))))
    }

    /// The key, to be sent as `Authorization: Bearer KEY` or `x-api-key: KEY`.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// What the configuration says of it.
    #[must_use]
    pub fn digest(&self) -> String {
        format!("sha256:{}", hexadecimal(&digest_of_key(&self.0)))
    }
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NewKey").field(&self.digest()).finish()
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_sha256_and_does_not_show_the_key() {
        let digest = hexadecimal(&digest_of_key("abc"));
        assert_eq!(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let (one, two) = (NewKey::make().expect("random"), NewKey::make().expect("random"));
        assert_ne!(one.secret(), two.secret());
        assert!(!format!("{one:?}").contains(one.secret()));
    }
}

//! Settings from environment variables: `VOLLEY_<SECTION>__<FIELD>`.

use serde_json::Value;

use super::leaves::{Leaves, Origin, find};
use super::problem::Problem;
use super::shape::Shape;

/// What variables that are settings begin with: `VOLLEY_HTTP__PORT` is `http.port`.
const PREFIX: &str = "VOLLEY_";
/// Between a section and what is in it.
const SEPARATOR: &str = "__";
/// The variable that chooses a profile; it is no setting.
pub(super) const PROFILE: &str = "VOLLEY_PROFILE";

/// The variables that mean this program, by name.
pub(super) fn variables() -> Vec<(String, String)> {
    let all = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        name.starts_with(PREFIX).then(|| (name, value.to_string_lossy().into_owned()))
    });
    let mut variables: Vec<_> = all.filter(|(name, value)| !is_service_link(&name[PREFIX.len()..], value)).collect();
    variables.sort_unstable();
    variables
}

/// What these variables set.
pub(super) fn read(variables: &[(String, String)], problems: &mut Vec<Problem>) -> Leaves {
    let mut leaves = Leaves::default();
    for (name, text) in variables.iter().filter(|(name, _)| name != PROFILE) {
        let path: Vec<String> = name[PREFIX.len()..].to_ascii_lowercase().split(SEPARATOR).map(str::to_owned).collect();
        take_text(&mut leaves, &path, text, &Origin::Variable(name.clone()), problems);
    }
    leaves
}

/// Takes in what `text` means at `path`.
pub(super) fn take_text(
    leaves: &mut Leaves,
    path: &[String],
    text: &str,
    origin: &Origin,
    problems: &mut Vec<Problem>,
) {
    let value = find(path).map_or_else(|_| Value::Null, |found| Shape::read(found.shape, text));
    leaves.take(path, &value, &|_| origin.clone(), problems);
}

/// Whether a variable, named without its prefix, is one that Kubernetes sets in every pod for a service whose name begins
/// with `volley`: `VOLLEY_SERVICE_HOST`, `VOLLEY_PORT=tcp://...`, `VOLLEY_PORT_8000_TCP_ADDR` and the like.
fn is_service_link(name: &str, value: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let is = |word: &str| name == word || name.ends_with(&format!("_{word}"));
    let begins = |word: &str| name.starts_with(word) || name.contains(&format!("_{word}"));
    if is("PORT") && !is("SERVICE_PORT") {
        // Also what a field's name looks like with one underscore too few: only the value tells.
        return value.contains("://");
    }
    let numbered = begins("PORT_") && ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| name.contains(protocol));
    is("SERVICE_HOST") || is("SERVICE_PORT") || begins("SERVICE_PORT_") || numbered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_kubernetes_sets_for_a_service_are_told_from_settings() {
        for link in [
            "SERVICE_HOST",
            "SERVICE_PORT",
            "SERVICE_PORT_HTTP",
            "PORT_8000_TCP",
            "PORT_8000_TCP_ADDR",
            "SERVER_SERVICE_HOST",
            "SERVER_SERVICE_PORT_GRPC",
            "SERVER_PORT_8001_TCP_PROTO",
        ] {
            assert!(is_service_link(link, "10.0.0.1"), "{link}");
        }
        assert!(is_service_link("PORT", "tcp://10.0.0.1:8000"));
        for setting in
            ["HTTP__PORT", "HTTP_PORT", "PORT", "METRICS__PORT", "MODEL_REPOSITORY", "SERVICE", "LOG__FILTER"]
        {
            assert!(!is_service_link(setting, "8000"), "{setting}");
        }
    }
}

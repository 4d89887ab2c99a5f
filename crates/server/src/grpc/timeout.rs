//! How long a gRPC caller waits, as its header `grpc-timeout` says.

use std::time::Duration;

use hyper::HeaderMap;

/// The time that the call may take; none if the header is missing, or is not what gRPC writes: up to eight digits and a
/// unit, such as `250m`.
pub(super) fn patience(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u32 = digits.parse().ok().filter(|_| digits.len() <= 8 && !digits.starts_with('+'))?;
    let one = match unit {
        "H" => Duration::from_secs(3600),
        "M" => Duration::from_secs(60),
        "S" => Duration::from_secs(1),
        "m" => Duration::from_millis(1),
        "u" => Duration::from_micros(1),
        "n" => Duration::from_nanos(1),
        _ => return None,
    };
    Some(one * count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", text.parse().expect("a header's value"));
        patience(&headers)
    }

    #[test]
    fn every_unit_is_read_and_nothing_else() {
        assert_eq!(of("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(of("2M"), Some(Duration::from_secs(120)));
        assert_eq!(of("3S"), Some(Duration::from_secs(3)));
        assert_eq!(of("250m"), Some(Duration::from_millis(250)));
        assert_eq!(of("99999999u"), Some(Duration::from_micros(99_999_999)));
        assert_eq!(of("7n"), Some(Duration::from_nanos(7)));
        for wrong in ["", "m", "1", "1s", "1.5S", "-1S", "+1S", "123456789n", "1 S"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        assert_eq!(patience(&HeaderMap::new()), None);
    }
}

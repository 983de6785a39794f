//! Times as people write them on a command line.
//!
//! Owns one parser: `90s`, `1h 30m`, and a number alone, which is seconds.

use std::time::Duration;

/// Reads a time.
///
/// # Errors
/// What was expected, with an example.
pub fn parse(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds)
            .map_err(|_| format!("`{text}` is no time: give seconds, or for example 90s"));
    }
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_alone_is_seconds_and_units_are_read() {
        assert_eq!(parse("20"), Ok(Duration::from_secs(20)));
        assert_eq!(parse("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("1h 30m"), Ok(Duration::from_secs(5_400)));
        for wrong in ["-1", "NaN", "inf", "1e40", "soon", ""] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}

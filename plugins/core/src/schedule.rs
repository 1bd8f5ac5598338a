//! When an inject node sends by itself.

use std::{str::FromStr, time::Duration};

use chrono::{DateTime, Local, TimeZone};
use croner::Cron;
use flowbay_sdk::Error;

/// Longest interval in seconds: Node-RED's timers count milliseconds in 31 bits.
const MAX_SECONDS: f64 = 2_147_483.0;

/// How sending repeats.
#[derive(Debug, Clone)]
pub enum Repeat {
    /// Not at all.
    Never,
    /// After each such interval.
    Every(Duration),
    /// At times of the local clock. In a box because it is large.
    Cron(Box<Cron>),
}

impl Repeat {
    /// From the properties `repeat` (seconds) and `crontab`; the first goes before the second.
    ///
    /// # Errors
    /// The crontab entry is malformed.
    pub fn new(repeat: Option<f64>, crontab: &str) -> Result<Self, Error> {
        match repeat.filter(|seconds| *seconds > 0.0 && *seconds <= MAX_SECONDS) {
            // As in Node.js, whose timers count whole milliseconds.
            Some(seconds) => Ok(Repeat::Every(Duration::from_millis((seconds * 1000.0).max(1.0) as u64))),
            None if crontab.trim().is_empty() => Ok(Repeat::Never),
            None => Cron::from_str(crontab).map(|cron| Repeat::Cron(Box::new(cron))).map_err(|error| {
                let reason = error.to_string();
                Error::new(format!("crontab {crontab:?}: {}", reason.trim_end_matches('.')))
            }),
        }
    }
}

/// Whether an interval is longer than Node-RED can wait; then it does not repeat.
pub fn is_too_long(repeat: Option<f64>) -> bool {
    repeat.is_some_and(|seconds| seconds > MAX_SECONDS)
}

/// The next time of the local clock that fits, after a time; both in milliseconds since 1970.
pub fn next_local(cron: &Cron, after_ms: i64) -> Option<i64> {
    let after = DateTime::from_timestamp_millis(after_ms)?.with_timezone(&Local);
    next(cron, &after).map(|time| time.timestamp_millis())
}

fn next<Tz: TimeZone>(cron: &Cron, after: &DateTime<Tz>) -> Option<DateTime<Tz>> {
    cron.find_next_occurrence(after, false).ok()
}

#[cfg(test)]
mod tests {
    use chrono::FixedOffset;

    use super::*;

    #[test]
    fn an_interval_goes_before_a_crontab_entry() {
        for (repeat, crontab, expected) in [
            (Some(1.5), "* * * * *", Some(1500)),
            (Some(0.0001), "", Some(1)),
            (Some(0.0), "", None),
            (Some(-1.0), "", None),
            (Some(1e300), "", None),
            (None, " ", None),
        ] {
            let every = match Repeat::new(repeat, crontab).unwrap() {
                Repeat::Every(interval) => Some(interval.as_millis()),
                Repeat::Never => None,
                Repeat::Cron(_) => panic!("{repeat:?} {crontab:?}"),
            };
            assert_eq!(every, expected, "{repeat:?} {crontab:?}");
        }
        assert!(is_too_long(Some(3e6)) && !is_too_long(Some(2e6)) && !is_too_long(None));
    }

    #[test]
    fn the_next_time_is_found_in_the_zone_of_the_clock() {
        let zone = FixedOffset::east_opt(2 * 3600).unwrap();
        // A Friday.
        let after = zone.with_ymd_and_hms(2024, 3, 1, 12, 30, 15).unwrap();
        for (crontab, expected) in [
            ("*/15 * * * *", "2024-03-01T12:45:00+02:00"),
            ("30 12 * * *", "2024-03-02T12:30:00+02:00"),
            ("*/10 * * * * *", "2024-03-01T12:30:20+02:00"),
            ("0 9-17 * * 1,2,3,4,5", "2024-03-01T13:00:00+02:00"),
            ("00 08 * * 0", "2024-03-03T08:00:00+02:00"),
            ("0 0 * jan mon-fri", "2025-01-01T00:00:00+02:00"),
            ("0 0 29 2 *", "2028-02-29T00:00:00+02:00"),
            ("@daily", "2024-03-02T00:00:00+02:00"),
        ] {
            let Repeat::Cron(cron) = Repeat::new(None, crontab).unwrap() else { panic!("{crontab}") };
            assert_eq!(next(&cron, &after).unwrap().to_rfc3339(), expected, "{crontab}");
        }
    }

    #[test]
    fn a_crontab_entry_that_is_wrong_is_refused() {
        for crontab in ["x", "* * *", "61 * * * *", "* * * * * * * *", "🦀 * * * *"] {
            let error = Repeat::new(None, crontab).unwrap_err();
            assert!(error.text().starts_with("crontab "), "{error}");
        }
    }

    #[test]
    fn a_crontab_entry_that_fits_no_time_has_no_next_one() {
        for crontab in ["0 0 30 2 *", "* * * * * * 2001"] {
            let Repeat::Cron(cron) = Repeat::new(None, crontab).unwrap() else { panic!("{crontab}") };
            assert_eq!(next_local(&cron, 1_700_000_000_000), None, "{crontab}");
        }
    }

    #[test]
    fn times_of_the_local_clock_are_whole_seconds_ahead() {
        let Repeat::Cron(cron) = Repeat::new(None, "* * * * * *").unwrap() else { panic!() };
        let now = 1_700_000_000_500;
        assert_eq!(next_local(&cron, now), Some(1_700_000_001_000));
        assert_eq!(next_local(&cron, i64::MAX), None);
    }
}

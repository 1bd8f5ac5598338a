//! The `date` type of typed values: the time now, as a number or as text.

use std::{
    fmt::Write,
    time::{SystemTime, UNIX_EPOCH},
};

use chrono::{DateTime, Datelike, Local, SecondsFormat, TimeZone, Timelike, Utc};
use flowbay_sdk::Value;

/// How the time is written.
#[derive(Debug, Clone, PartialEq)]
pub enum Moment {
    /// Milliseconds since 1970, a number.
    Millis,
    /// ISO 8601 in UTC. Also for Node-RED's `object`, a JavaScript `Date`, which becomes this text in JSON.
    Iso,
    /// A format of Moment.js, in local time.
    Format(String),
}

impl Moment {
    /// From the value of a property of type `date`.
    pub fn parse(text: &str) -> Self {
        match text {
            "" => Moment::Millis,
            "iso" | "object" => Moment::Iso,
            format => Moment::Format(format.to_owned()),
        }
    }

    /// The time now.
    pub fn now(&self) -> Value {
        match self {
            Moment::Millis => Value::Int(unix_ms()),
            Moment::Iso => Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true).into(),
            Moment::Format(format) => formatted(format, &Local::now()).into(),
        }
    }
}

/// Milliseconds since 1970; negative for a clock before it.
pub fn unix_ms() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(error) => i64::try_from(error.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    }
}

/// Moment.js tokens, longest first among those with the same beginning. Any other text stands for itself, and
/// `[…]` for what is in it.
const TOKENS: &[&str] = &[
    "YYYY", "YY", "MMMM", "MMM", "MM", "Mo", "M", "DDDD", "DDD", "DD", "Do", "D", "dddd", "ddd", "dd", "d",
    "E", "HH", "H", "hh", "h", "kk", "k", "mm", "m", "ss", "s", "SSS", "SS", "S", "A", "a", "ZZ", "Z", "WW",
    "W", "Q", "X", "x",
];

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The time in a format of Moment.js, with English names. The week-year tokens and the local formats (`LLL`) are
/// not known and stand for themselves.
fn formatted<Tz: TimeZone>(format: &str, time: &DateTime<Tz>) -> String {
    let mut out = String::with_capacity(format.len() + 16);
    let mut rest = format;
    while let Some(first) = rest.chars().next() {
        if let Some((literal, after)) = rest.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
            out.push_str(literal);
            rest = after;
        } else if let Some(token) = TOKENS.iter().find(|token| rest.starts_with(**token)) {
            write_token(&mut out, token, time);
            rest = &rest[token.len()..];
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

fn write_token<Tz: TimeZone>(out: &mut String, token: &str, time: &DateTime<Tz>) {
    let weekday = time.weekday().num_days_from_sunday();
    let hour12 = time.hour12().1;
    // A leap second counts as the one before it.
    let millis = time.nanosecond() / 1_000_000 % 1000;
    let month = MONTHS[time.month0() as usize];
    let day = DAYS[weekday as usize];
    // Writing to a String cannot fail.
    let _ = match token {
        "YYYY" => write!(out, "{:04}", time.year()),
        "YY" => write!(out, "{:02}", time.year().rem_euclid(100)),
        "MMMM" => write!(out, "{month}"),
        "MMM" => write!(out, "{}", &month[..3]),
        "MM" => write!(out, "{:02}", time.month()),
        "Mo" => write!(out, "{}", ordinal(time.month())),
        "M" => write!(out, "{}", time.month()),
        "DDDD" => write!(out, "{:03}", time.ordinal()),
        "DDD" => write!(out, "{}", time.ordinal()),
        "DD" => write!(out, "{:02}", time.day()),
        "Do" => write!(out, "{}", ordinal(time.day())),
        "D" => write!(out, "{}", time.day()),
        "dddd" => write!(out, "{day}"),
        "ddd" => write!(out, "{}", &day[..3]),
        "dd" => write!(out, "{}", &day[..2]),
        "d" => write!(out, "{weekday}"),
        "E" => write!(out, "{}", time.weekday().number_from_monday()),
        "HH" => write!(out, "{:02}", time.hour()),
        "H" => write!(out, "{}", time.hour()),
        "hh" => write!(out, "{hour12:02}"),
        "h" => write!(out, "{hour12}"),
        "kk" => write!(out, "{:02}", (time.hour() + 23) % 24 + 1),
        "k" => write!(out, "{}", (time.hour() + 23) % 24 + 1),
        "mm" => write!(out, "{:02}", time.minute()),
        "m" => write!(out, "{}", time.minute()),
        "ss" => write!(out, "{:02}", time.second()),
        "s" => write!(out, "{}", time.second()),
        "SSS" => write!(out, "{millis:03}"),
        "SS" => write!(out, "{:02}", millis / 10),
        "S" => write!(out, "{}", millis / 100),
        "A" => write!(out, "{}", if time.hour() < 12 { "AM" } else { "PM" }),
        "a" => write!(out, "{}", if time.hour() < 12 { "am" } else { "pm" }),
        "ZZ" => write_offset(out, time, ""),
        "Z" => write_offset(out, time, ":"),
        "WW" => write!(out, "{:02}", time.iso_week().week()),
        "W" => write!(out, "{}", time.iso_week().week()),
        "Q" => write!(out, "{}", time.month0() / 3 + 1),
        "X" => write!(out, "{}", time.timestamp()),
        "x" => write!(out, "{}", time.timestamp_millis()),
        other => write!(out, "{other}"),
    };
}

fn write_offset<Tz: TimeZone>(out: &mut String, time: &DateTime<Tz>, separator: &str) -> std::fmt::Result {
    let seconds = chrono::Offset::fix(time.offset()).local_minus_utc();
    let sign = if seconds < 0 { '-' } else { '+' };
    let minutes = seconds.abs() / 60;
    write!(out, "{sign}{:02}{separator}{:02}", minutes / 60, minutes % 60)
}

fn ordinal(number: u32) -> String {
    let suffix = match (number % 10, number % 100) {
        (1, tens) if tens != 11 => "st",
        (2, tens) if tens != 12 => "nd",
        (3, tens) if tens != 13 => "rd",
        _ => "th",
    };
    format!("{number}{suffix}")
}

#[cfg(test)]
mod tests {
    use chrono::FixedOffset;

    use super::*;

    #[test]
    fn a_format_of_moment_js_is_followed() {
        let zone = FixedOffset::east_opt(-(3 * 3600 + 1800)).unwrap();
        let time = zone.with_ymd_and_hms(2024, 3, 2, 15, 4, 5).unwrap();
        for (format, expected) in [
            ("YYYY-MM-DD HH:mm:ss", "2024-03-02 15:04:05"),
            ("dddd, MMMM Do YY, h:mm a", "Saturday, March 2nd 24, 3:04 pm"),
            ("[at] H[h] SSS Z ZZ", "at 15h 000 -03:30 -0330"),
            ("DDDD k Q E é", "062 15 1 6 é"),
            ("[unclosed", "[unclo5e6"),
        ] {
            assert_eq!(formatted(format, &time), expected, "{format}");
        }
    }

    #[test]
    fn the_time_now_is_a_number_or_text() {
        assert!(Moment::parse("").now().as_i64().unwrap() > 1_600_000_000_000);
        let iso = Moment::parse("iso").now();
        assert!(iso.as_str().unwrap().ends_with('Z') && iso.as_str().unwrap().len() == 24, "{iso:?}");
        assert_eq!(Moment::parse("YYYY").now().as_str().unwrap().len(), 4);
    }
}

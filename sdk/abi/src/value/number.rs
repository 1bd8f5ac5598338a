//! Numbers as JavaScript sees them.

/// A number as JavaScript's `String(x)` prints it: `1`, `0.1`, `1e+21`, `NaN`, `-Infinity`; minus
/// zero is `0`.
pub fn number_to_js_string(number: f64) -> String {
    ryu_js::Buffer::new().format(number).to_owned()
}

/// The integer that a float is, exactly, if it is one that `i64` can hold.
#[inline]
pub(crate) fn float_as_i64(float: f64) -> Option<i64> {
    /// 2^63, the first value too large for `i64`.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    ((-LIMIT..LIMIT).contains(&float) && float as i64 as f64 == float).then_some(float as i64)
}

/// Appends the decimal digits of an integer.
pub(super) fn push_integer(out: &mut Vec<u8>, integer: i64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    let mut rest = integer.unsigned_abs();
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if integer < 0 {
        start -= 1;
        digits[start] = b'-';
    }
    out.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_in_javascript() {
        let rows: &[(f64, &str)] = &[
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (1.5e300, "1.5e+300"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
        ];
        for (number, expected) in rows {
            assert_eq!(number_to_js_string(*number), *expected);
        }
    }

    #[test]
    fn a_float_is_an_integer_only_when_it_is_exactly_one() {
        let rows: &[(f64, Option<i64>)] = &[
            (-0.0, Some(0)),
            (3.0, Some(3)),
            (3.5, None),
            (-9_223_372_036_854_775_808.0, Some(i64::MIN)),
            (9_223_372_036_854_775_808.0, None),
            (f64::NAN, None),
            (f64::INFINITY, None),
        ];
        for (float, expected) in rows {
            assert_eq!(float_as_i64(*float), *expected, "{float}");
        }
    }

    #[test]
    fn integers_print_in_full() {
        for integer in [0, 7, -7, 10, 255, 1_234_567_890, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            push_integer(&mut out, integer);
            assert_eq!(String::from_utf8(out).unwrap(), integer.to_string());
        }
    }
}

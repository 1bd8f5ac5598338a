//! Identifiers: 16 hexadecimal digits, as Node-RED's `_msgid` and session ids are.

use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
};

use flowbay_abi::Str;

/// A new identifier.
///
/// They need to be distinct, not secret: a xorshift generator per thread, seeded from std's random hasher keys, takes
/// no system call and no lock.
pub fn new_id() -> Str {
    let bits = next();
    let mut text = [0_u8; 16];
    for (at, digit) in text.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(bits >> (60 - 4 * at)) as usize & 15];
    }
    Str::from(str::from_utf8(&text).expect("hexadecimal digits are UTF-8"))
}

fn next() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(std::thread::current().id()) | 1);
    }
    STATE.with(|state| {
        let mut x = state.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        state.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_sixteen_hexadecimal_digits_and_distinct() {
        let ids: std::collections::HashSet<String> = (0..10_000).map(|_| new_id().to_string()).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit())));
    }
}

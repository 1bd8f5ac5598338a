//! What authors write, right and wrong: the compiler accepts the one, and names the mistake in the other.
//!
//! `TRYBUILD=overwrite cargo test -p flowbay-sdk --test authors` writes the expected messages anew, after a change of
//! the compiler for instance; read the difference.

#[test]
fn what_is_right_compiles_and_what_is_wrong_is_named() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/authors/right/*.rs");
    cases.compile_fail("tests/authors/wrong/*.rs");
}

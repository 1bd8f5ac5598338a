//! Printing, as this crate does it: [`print!`], `println!` and `eprintln!` that do not panic when nobody reads any more.
//!
//! `flowbay status | head` is no reason to end with a backtrace. What could not be printed is lost, and all else goes on.

/// As std's, but what cannot be written is left out.
macro_rules! print {
    ($($arg:tt)*) => {{
        let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!($($arg)*));
    }};
}

/// As std's, but what cannot be written is left out.
macro_rules! println {
    ($($arg:tt)*) => { print!("{}\n", format_args!($($arg)*)) };
}

/// As std's, but what cannot be written is left out.
macro_rules! eprintln {
    ($($arg:tt)*) => {{
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{}\n", format_args!($($arg)*)));
    }};
}

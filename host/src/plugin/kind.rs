//! What kind of file something is, by its first bytes: for those who wonder why it is no plugin.

use std::{
    fs::OpenOptions,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Bytes that tell the kinds apart: the file header of ELF, and the beginning of a text.
const HEAD_BYTES: usize = 64;
/// How the compiler names itself in what it makes.
const RUSTC_MARK: &[u8] = b"rustc version ";
/// Longest version that is looked for behind it.
const MAX_VERSION_BYTES: usize = 60;

/// What a file is, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileKind {
    /// As in "is …".
    pub text: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Version of the Rust compiler that made it, when one did.
    pub rustc: Option<String>,
    /// Whether it is a library or program of some machine, that is: something that a linker wrote.
    pub linked: bool,
}

/// Looks at a file without running any of it.
///
/// # Errors
/// It cannot be read, or is a folder, a pipe or a device.
pub fn file_kind(file: &Path) -> io::Result<FileKind> {
    let mut source = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(file)?;
    let metadata = source.metadata()?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "it is a folder" } else { "it is not a regular file" };
        return Err(io::Error::other(what));
    }
    let mut head = Vec::with_capacity(HEAD_BYTES);
    source.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    let (text, linked) = kind(&head);
    let rustc = if linked {
        source.seek(SeekFrom::Start(0))?;
        rustc_in(source)?
    } else {
        None
    };
    Ok(FileKind { text, bytes: metadata.len(), rustc, linked })
}

/// What begins like this, and whether a linker wrote it.
fn kind(head: &[u8]) -> (String, bool) {
    const MACH_O: [[u8; 4]; 4] = [
        [0xcf, 0xfa, 0xed, 0xfe],
        [0xce, 0xfa, 0xed, 0xfe],
        [0xfe, 0xed, 0xfa, 0xcf],
        [0xfe, 0xed, 0xfa, 0xce],
    ];
    let fixed = |text: &str, linked| (text.to_owned(), linked);
    if head.is_empty() {
        fixed("an empty file", false)
    } else if head.starts_with(b"\x7fELF") {
        (elf_kind(head), true)
    } else if MACH_O.iter().any(|magic| head.starts_with(magic))
        || head.starts_with(&[0xca, 0xfe, 0xba, 0xbe])
    {
        fixed("a library or program for macOS (Mach-O)", true)
    } else if head.starts_with(b"MZ") {
        fixed("a library or program for Windows (PE)", true)
    } else if head.starts_with(b"\0asm") {
        fixed("a WebAssembly module", false)
    } else if head.starts_with(b"!<arch>\n") {
        fixed("an archive, as a Rust library (rlib) or a static library is", false)
    } else if head.starts_with(b"#!") {
        fixed("a script", false)
    } else if head.trim_ascii_start().starts_with(b"[") || head.trim_ascii_start().starts_with(b"{") {
        fixed("a text, perhaps JSON", false)
    } else if head.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
        fixed("a text", false)
    } else {
        fixed("a file of no kind that is known here", false)
    }
}

/// What the file header of an ELF file says.
fn elf_kind(head: &[u8]) -> String {
    let (Some(class), Some(order)) = (head.get(4), head.get(5)) else {
        return "the beginning of a library or program (ELF)".to_owned();
    };
    let number = |at: usize| {
        let bytes = [*head.get(at)?, *head.get(at + 1)?];
        Some(if *order == 2 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    };
    let what = match number(16) {
        Some(1) => "an object file",
        Some(2) => "a program",
        // Programs are, too, by now; the host tells them from libraries by what they export.
        Some(3) => "a shared library or program",
        Some(4) => "a core dump",
        _ => "a file",
    };
    let machine = match number(18) {
        Some(3) => "x86".to_owned(),
        Some(8) => "MIPS".to_owned(),
        Some(21) => "PowerPC 64".to_owned(),
        Some(22) => "s390x".to_owned(),
        Some(40) => "ARM (32 bit)".to_owned(),
        Some(62) => "x86_64".to_owned(),
        Some(183) => "aarch64".to_owned(),
        Some(243) => "RISC-V".to_owned(),
        Some(258) => "LoongArch".to_owned(),
        Some(other) => format!("machine number {other}"),
        None => "an unknown machine".to_owned(),
    };
    let bits = if *class == 1 { "32" } else { "64" };
    format!("{what} for {machine} (ELF, {bits} bit)")
}

/// The compiler's version, wherever it stands in the file.
fn rustc_in(mut source: impl io::Read) -> io::Result<Option<String>> {
    let mut window = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = source.read(&mut buffer)?;
        window.extend_from_slice(&buffer[..read]);
        let found = window.windows(RUSTC_MARK.len()).position(|part| part == RUSTC_MARK);
        if let Some(at) = found
            && (read == 0 || window.len() >= at + RUSTC_MARK.len() + MAX_VERSION_BYTES)
        {
            let rest = &window[at + RUSTC_MARK.len()..];
            let version = rest.iter().take(MAX_VERSION_BYTES).take_while(|byte| !matches!(**byte, 0 | b'('));
            let version: Vec<u8> = version.copied().filter(u8::is_ascii_graphic).collect();
            return Ok(Some(String::from_utf8_lossy(&version).into_owned()));
        }
        if read == 0 {
            return Ok(None);
        }
        if found.is_none() {
            window.drain(..window.len().saturating_sub(RUSTC_MARK.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_like_this_is_named() {
        let mut foreign = *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\xb7\0";
        let cases: [(&[u8], &str); 9] = [
            (b"", "empty"),
            (b"[{\"id\"", "JSON"),
            (b"hello", "a text"),
            (b"#!/bin/sh", "script"),
            (b"!<arch>\n", "rlib"),
            (b"MZ\x90", "Windows"),
            (&[0xcf, 0xfa, 0xed, 0xfe, 7], "macOS"),
            (b"\x7fELF", "the beginning"),
            (&foreign, "shared library or program for aarch64 (ELF, 64 bit)"),
        ];
        for (head, expected) in cases {
            assert!(kind(head).0.contains(expected), "{expected}: {}", kind(head).0);
        }
        foreign[5] = 2;
        assert!(elf_kind(&foreign).contains("machine number 46848"), "{}", elf_kind(&foreign));
        for end in 0..foreign.len() {
            let _ = kind(&foreign[..end]);
        }
    }

    #[test]
    fn the_compiler_is_found_wherever_it_stands() {
        let mark = b"rustc version 1.95.0 (0123abc 2026-01-01)\0";
        for before in [0, 1, 64 * 1024 - 7, 64 * 1024, 200_000] {
            let mut bytes = vec![b'r'; before];
            bytes.extend_from_slice(mark);
            bytes.extend(vec![0; 100]);
            assert_eq!(rustc_in(&bytes[..]).unwrap().as_deref(), Some("1.95.0"), "{before}");
            bytes.truncate(before + 18);
            assert_eq!(rustc_in(&bytes[..]).unwrap().as_deref(), Some("1.95"), "{before}");
        }
        assert_eq!(rustc_in(&[b'r'; 300_000][..]).unwrap(), None);
    }
}

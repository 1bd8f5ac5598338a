//! What a library file says before any of it runs: whether it is whole, and which symbols matter to the loader.
//!
//! The dynamic linker maps a file by its headers without asking whether the file is long enough: a truncated one
//! kills the process with SIGBUS. So every header, segment and section must lie inside the file, first.

use std::{fs::File, path::Path};

use object::{
    elf,
    read::{
        ReadCache, ReadRef,
        elf::{FileHeader, ProgramHeader, SectionHeader, Sym},
    },
};

use super::error::Refusal;

#[cfg(target_pointer_width = "64")]
type Header = elf::FileHeader64<object::NativeEndian>;
#[cfg(target_pointer_width = "32")]
type Header = elf::FileHeader32<object::NativeEndian>;

/// The symbol by which a plugin is known.
pub(super) const ROOT_SYMBOL: &str = "flowbay_plugin_root";
/// What procedural macros export has this in its name.
const PROC_MACRO_MARK: &[u8] = b"rustc_proc_macro_decls_";
/// What a plugin imports when the SDK's TLS hook is not in it.
const TLS_SYMBOL: &[u8] = b"__cxa_thread_atexit_impl";

/// What the file says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ElfFacts {
    /// It exports data under [`ROOT_SYMBOL`], large enough for a header.
    pub has_root: bool,
    /// It is a procedural macro.
    pub is_proc_macro: bool,
    /// It registers thread-local destructors with the C library, which then never unmaps it.
    pub pins_itself: bool,
}

/// Reads the headers and the dynamic symbols of a library.
///
/// # Errors
/// The file is no library of this machine, or not all of it.
pub(super) fn inspect(file: &Path) -> Result<ElfFacts, Refusal> {
    let file = File::open(file).map_err(|error| Refusal::Io(error.to_string()))?;
    facts(&ReadCache::new(file))
}

fn facts<'data, R: ReadRef<'data>>(data: R) -> Result<ElfFacts, Refusal> {
    let len = data.len().map_err(|()| Refusal::Io("its length is unknown".into()))?;
    let header = checked_header(data, len)?;
    let endian = object::NativeEndian;

    let segments = header
        .program_headers(endian, data)
        .map_err(|_| incomplete("its program headers are not all there"))?;
    for segment in segments {
        // The file range of these two is what the dynamic linker reads and maps.
        if matches!(segment.p_type(endian), elf::PT_LOAD | elf::PT_DYNAMIC)
            && !inside(segment.p_offset(endian), segment.p_filesz(endian), len)
        {
            return Err(incomplete("a segment lies beyond the end of the file"));
        }
    }
    if !segments.iter().any(|segment| segment.p_type(endian) == elf::PT_DYNAMIC) {
        return Err(Refusal::NotALibrary("it has no dynamic segment".into()));
    }

    let sections = header
        .section_headers(endian, data)
        .map_err(|_| incomplete("its section headers are not all there"))?;
    if sections.is_empty() {
        // Linkers write them last: without them there is no telling how much of the file is missing.
        return Err(incomplete("it has no section headers"));
    }
    for section in sections {
        if let Some((offset, size)) = section.file_range(endian)
            && section.sh_type(endian) != elf::SHT_NULL
            && !inside(offset, size, len)
        {
            return Err(incomplete("a section lies beyond the end of the file"));
        }
    }

    let Some(symbols) = sections.iter().find(|section| section.sh_type(endian) == elf::SHT_DYNSYM) else {
        return Ok(ElfFacts::default());
    };
    let damaged = || incomplete("its dynamic symbols cannot be read");
    let names = usize::try_from(symbols.sh_link(endian)).ok().and_then(|index| sections.get(index));
    let names = names.ok_or_else(damaged)?.data(endian, data).map_err(|_| damaged())?;
    let symbols: &[<Header as FileHeader>::Sym] =
        symbols.data_as_array(endian, data).map_err(|_| damaged())?;

    let mut facts = ElfFacts::default();
    for symbol in symbols {
        let name = name_at(names, symbol.st_name(endian));
        if symbol.st_shndx(endian) == elf::SHN_UNDEF {
            facts.pins_itself |= name == TLS_SYMBOL;
            continue;
        }
        facts.is_proc_macro |= name.windows(PROC_MACRO_MARK.len()).any(|part| part == PROC_MACRO_MARK);
        facts.has_root |= name == ROOT_SYMBOL.as_bytes()
            && symbol.st_type() == elf::STT_OBJECT
            && symbol.st_size(endian) >= size_of::<abi_stable::library::AbiHeader>() as u64
            && segments.iter().any(|segment| {
                segment.p_type(endian) == elf::PT_LOAD && {
                    let start = segment.p_vaddr(endian);
                    let end = symbol.st_value(endian).checked_add(symbol.st_size(endian));
                    symbol.st_value(endian) >= start
                        && end.is_some_and(|end| end - start <= segment.p_memsz(endian))
                }
            });
    }
    Ok(facts)
}

/// The file header, when it is that of a shared library of this machine.
fn checked_header<'data, R: ReadRef<'data>>(data: R, len: u64) -> Result<&'data Header, Refusal> {
    if len == 0 {
        return Err(Refusal::Empty);
    }
    let magic = data.read_bytes_at(0, 4).unwrap_or_default();
    if magic != elf::ELFMAG {
        // A file of one to three bytes may be the beginning of a library, but nothing says so.
        return Err(Refusal::NotALibrary("it does not begin as one".into()));
    }
    let ident = data.read_bytes_at(0, 16).map_err(|()| incomplete("its header is not all there"))?;
    let class = if cfg!(target_pointer_width = "64") { elf::ELFCLASS64 } else { elf::ELFCLASS32 };
    let order = if cfg!(target_endian = "little") { elf::ELFDATA2LSB } else { elf::ELFDATA2MSB };
    if ident[4] != class.0 || ident[5] != order.0 {
        return Err(Refusal::OtherMachine);
    }
    let header = data.read_at::<Header>(0).map_err(|()| incomplete("its header is not all there"))?;
    let endian = object::NativeEndian;
    if !header.is_supported() {
        return Err(Refusal::NotALibrary("its header is of an unknown version".into()));
    }
    if let Some(machine) = this_machine()
        && header.e_machine(endian) != machine
    {
        return Err(Refusal::OtherMachine);
    }
    if header.e_type(endian) != elf::ET_DYN {
        return Err(Refusal::NotALibrary("it is a program or an object file".into()));
    }
    Ok(header)
}

const fn this_machine() -> Option<elf::Machine> {
    if cfg!(target_arch = "x86_64") {
        Some(elf::EM_X86_64)
    } else if cfg!(target_arch = "aarch64") {
        Some(elf::EM_AARCH64)
    } else {
        None
    }
}

fn inside(offset: u64, size: u64, len: u64) -> bool {
    offset.checked_add(size).is_some_and(|end| end <= len)
}

fn incomplete(what: &str) -> Refusal {
    Refusal::Incomplete(what.to_owned())
}

/// The NUL-terminated name at that offset; empty when there is none.
fn name_at(names: &[u8], offset: u32) -> &[u8] {
    let rest = usize::try_from(offset).ok().and_then(|offset| names.get(offset..)).unwrap_or_default();
    rest.iter().position(|byte| *byte == 0).map_or(&[][..], |end| &rest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A real shared library that every machine that runs these tests has: the C library's own.
    fn some_library() -> Vec<u8> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let path = maps
            .lines()
            .filter_map(|line| line.find('/').map(|at| &line[at..]))
            .find(|path| path.contains("libc.so") || path.contains("libc-"))
            .expect("the tests are linked to the C library");
        std::fs::read(path).unwrap()
    }

    fn check(bytes: &[u8]) -> Result<ElfFacts, Refusal> {
        facts(bytes)
    }

    #[test]
    fn a_whole_library_that_is_no_plugin_is_read() {
        assert_eq!(check(&some_library()), Ok(ElfFacts::default()));
    }

    #[test]
    fn a_library_cut_off_anywhere_is_refused() {
        let whole = some_library();
        let step = whole.len() / 2_000 + 1;
        for len in (0..whole.len()).step_by(step).chain([1, 3, 4, 15, 16, 63, 64, whole.len() - 1]) {
            let refusal = check(&whole[..len]).expect_err(&format!("{len} of {} bytes", whole.len()));
            assert!(refusal.may_be_unfinished(), "{len} bytes: {refusal}");
        }
    }

    #[test]
    fn what_is_not_a_library_is_named_as_such() {
        type Expected = fn(&Refusal) -> bool;
        let cases: [(&[u8], Expected); 4] = [
            (b"", |refusal| *refusal == Refusal::Empty),
            (b"[{\"id\":\"1\"}]", |refusal| matches!(refusal, Refusal::NotALibrary(_))),
            (b"!<arch>\nsome object files", |refusal| matches!(refusal, Refusal::NotALibrary(_))),
            (&[0x7f; 4096], |refusal| matches!(refusal, Refusal::NotALibrary(_))),
        ];
        for (bytes, expected) in cases {
            let refusal = check(bytes).expect_err("no library");
            assert!(expected(&refusal), "{refusal:?}");
        }
    }

    #[test]
    fn a_library_of_another_machine_is_refused() {
        let mut bytes = some_library();
        bytes[18] ^= 0xff;
        assert_eq!(check(&bytes), Err(Refusal::OtherMachine));
        let mut bytes = some_library();
        bytes[4] ^= 3;
        assert_eq!(check(&bytes), Err(Refusal::OtherMachine));
    }

    #[test]
    fn any_damage_to_the_headers_is_survived() {
        let whole = some_library();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % below as u64) as usize
        };
        for _ in 0..2_000 {
            let mut bytes = whole.clone();
            for _ in 0..1 + next(8) {
                // Half of the damage hits the file header and the program headers, half the section headers.
                let at = if next(2) == 0 { next(1_024) } else { bytes.len() - 1 - next(4_096) };
                bytes[at] = next(256) as u8;
            }
            let _ = check(&bytes);
        }
    }
}

//! The shape of the boundary, kept in `layout.txt`: whoever changes it sees that they do, and raises the version.
//!
//! A version that is released is written into `released.txt`; from then on its shape cannot be written anew without
//! raising the version. What may change within one ABI major is said in `flowbay_abi::version`. After a change that is allowed:
//! `FLOWBAY_UPDATE_LAYOUT=1 cargo test -p flowbay-abi --test layout`.

use std::{
    collections::{BTreeSet, HashSet},
    fmt::Write as _,
    path::Path,
};

use abi_stable::{
    StableAbi,
    std_types::utypeid::UTypeId,
    type_layout::{TLData, TLField, TypeLayout},
};
use flowbay_abi::{root::PluginRootRef, version::ABI_VERSION};

/// All types that cross, by name, each with what a library relies on.
fn shape() -> String {
    let mut types = BTreeSet::new();
    visit(<PluginRootRef as StableAbi>::LAYOUT, &mut HashSet::new(), &mut types);
    let mut text = format!("ABI {ABI_VERSION}\n");
    for (name, of_type) in types {
        let _ = write!(text, "\n{name}\n{of_type}");
    }
    text
}

/// Types by their name, which for generic ones is not all of it: there may be several of one name.
type Types = BTreeSet<(String, String)>;

fn visit(layout: &'static TypeLayout, seen: &mut HashSet<UTypeId>, types: &mut Types) {
    if !seen.insert(layout.get_utypeid()) {
        return;
    }
    let mut text = String::new();
    match layout.data() {
        // A table that grows at its end: its size is not fixed, its beginning is.
        TLData::PrefixType(table) => {
            let _ = writeln!(text, "  table, {} entries for every library", table.first_suffix_field);
        }
        _ => {
            let _ = writeln!(
                text,
                "  {} bytes, aligned to {}, {:?}",
                layout.size(),
                layout.alignment(),
                layout.repr_attr()
            );
        }
    }
    if let TLData::Enum(variants) = layout.data() {
        let _ = writeln!(text, "  discriminants {:?}", variants.discriminants);
    }
    let fields: Vec<TLField> = match layout.data() {
        TLData::Struct { fields } | TLData::Union { fields } => fields.to_vec(),
        TLData::Enum(variants) => variants.fields.to_vec(),
        TLData::PrefixType(table) => table.fields.to_vec(),
        TLData::Primitive(_) | TLData::Opaque => Vec::new(),
    };
    for field in &fields {
        let _ = write!(text, "  {}: ", field.name());
        let functions: Vec<String> =
            field.function_range().iter().map(|function| function.to_string().replace('\n', " ")).collect();
        let described =
            if functions.is_empty() { field.full_type().to_string() } else { functions.join(" | ") };
        let _ = writeln!(text, "{described}");
    }
    types.insert((layout.full_type().to_string().trim_end().to_owned(), text));
    for inner in layout.shared_vars().type_layouts() {
        visit(inner(), seen, types);
    }
    for phantom in layout.phantom_fields().iter() {
        visit(phantom.layout(), seen, types);
    }
}

#[test]
fn the_shape_of_the_boundary_is_the_one_that_was_agreed() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/layout.txt");
    let shape = shape();
    if std::env::var_os("FLOWBAY_UPDATE_LAYOUT").is_some() {
        let agreed = std::fs::read_to_string(&file).unwrap_or_default();
        let same_version = agreed.lines().next() == shape.lines().next();
        assert!(
            agreed == shape || !same_version || !is_released(),
            "ABI {ABI_VERSION} has been released with another shape: raise the version of flowbay-abi first"
        );
        std::fs::write(&file, &shape).unwrap();
        return;
    }
    let agreed = std::fs::read_to_string(&file).unwrap();
    let changed: Vec<String> = difference(&agreed, &shape);
    assert!(
        changed.is_empty(),
        "the boundary has changed:\n{}\nIf that is meant, raise the version in flowbay_abi::version (what may change \
         without a new major is said there) and write layout.txt anew: see the head of this file",
        changed.join("\n")
    );
}

/// Whether the version is one that others build against: its layout is kept for good. (`released.txt` has one a line.)
fn is_released() -> bool {
    include_str!("released.txt").lines().any(|version| version == ABI_VERSION)
}

/// Lines that are in one and not in the other.
fn difference(before: &str, after: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let gone = old.iter().filter(|line| !new.contains(line)).map(|line| format!("- {line}"));
    let come = new.iter().filter(|line| !old.contains(line)).map(|line| format!("+ {line}"));
    let changed: Vec<String> = gone.chain(come).collect();
    if changed.is_empty() && old != new { vec!["the order of lines".to_owned()] } else { changed }
}

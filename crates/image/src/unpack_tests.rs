//! What layers may hold, and what refuses them: each case is entries of a tar and what comes of it.

use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use types::Coded;

/// An entry: name, kind, link or content.
type Entry<'a> = (&'a str, EntryType, &'a str);

const FILE: EntryType = EntryType::Regular;
const DIR: EntryType = EntryType::Directory;
const SYMLINK: EntryType = EntryType::Symlink;
const LINK: EntryType = EntryType::Link;

fn limits() -> LayerLimits {
    LayerLimits::default()
}

fn append(builder: &mut tar::Builder<Vec<u8>>, (name, kind, more): Entry<'_>) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(if kind == DIR { 0o755 } else { 0o644 });
    header.set_mtime(1_000_000_000);
    let raw = header.as_gnu_mut().unwrap();
    let content = if kind == FILE { more } else { "" };
    if name.len() > raw.name.len() {
        let mut long = tar::Header::new_gnu();
        long.set_entry_type(EntryType::GNULongName);
        long.set_size(name.len() as u64 + 1);
        long.set_cksum();
        builder.append(&long, format!("{name}\0").as_bytes()).unwrap();
    }
    let short = name.len().min(raw.name.len());
    raw.name[..short].copy_from_slice(&name.as_bytes()[..short]);
    if kind != FILE {
        raw.linkname[..more.len()].copy_from_slice(more.as_bytes());
    }
    header.set_size(content.len() as u64);
    header.set_cksum();
    builder.append(&header, content.as_bytes()).unwrap();
}

fn tarred(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    entries.iter().for_each(|entry| append(&mut builder, *entry));
    builder.into_inner().unwrap()
}

fn open(dir: &Path) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(dir, flags, Mode::empty()).unwrap()
}

struct Unpacking {
    _around: tempfile::TempDir,
    dir: PathBuf,
    done: Result<Unpacked, ImageError>,
}

/// Unpacks into `around/layer`, with something to be found beside it.
fn unpacked(tar: &[u8], limits: &LayerLimits) -> Unpacking {
    let around = tempfile::tempdir().unwrap();
    let dir = around.path().join("layer");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(around.path().join("witness"), "untouched").unwrap();
    let done = unpack(tar, &open(&dir), limits);
    let witness = std::fs::read_to_string(around.path().join("witness")).unwrap();
    assert_eq!(witness, "untouched");
    assert_eq!(std::fs::read_dir(around.path()).unwrap().count(), 2, "nothing beside the layer");
    Unpacking { _around: around, dir, done }
}

fn code(entries: &[Entry<'_>], limits: &LayerLimits) -> &'static str {
    unpacked(&tarred(entries), limits).done.map_or_else(|error| error.code(), |_| "")
}

#[test]
fn what_layers_hold_is_there_afterwards() {
    let found = unpacked(
        &tarred(&[
            ("./", DIR, ""),
            ("bin/", DIR, ""),
            ("bin/tool", FILE, "#!"),
            ("bin/again", LINK, "bin/tool"),
            ("lib", SYMLINK, "../../usr/lib"),
            ("absolute", SYMLINK, "/etc/passwd"),
            ("deep/er/file", FILE, "x"),
            ("queue", EntryType::Fifo, ""),
            ("bin/tool", FILE, "#! new"),
        ]),
        &limits(),
    );
    let done = found.done.unwrap();
    assert_eq!((done.entries, done.bytes, done.opaque), (9, 9, false));
    assert_eq!(done.implicit, ["deep", "deep/er"]);
    let read = |name: &str| std::fs::read_to_string(found.dir.join(name)).unwrap();
    assert_eq!((read("bin/tool"), read("bin/again")), ("#! new".into(), "#!".into()));
    let meta = |name: &str| std::fs::symlink_metadata(found.dir.join(name)).unwrap();
    assert_eq!(meta("bin/tool").mtime(), 1_000_000_000);
    assert_eq!(meta("bin").mtime(), 1_000_000_000, "set after what was made in it");
    assert_eq!(meta("deep").permissions().mode() & 0o7777, MODE_IMPLICIT);
    assert_eq!(std::fs::read_link(found.dir.join("lib")).unwrap(), Path::new("../../usr/lib"));
    use std::os::unix::fs::FileTypeExt;
    assert!(meta("queue").file_type().is_fifo());
}

#[test]
fn paths_that_lead_out_are_refused() {
    for name in ["/etc/passwd", "../witness", "a/../../witness", "a/..", ".."] {
        assert_eq!(code(&[(name, FILE, "x")], &limits()), "BP-IMAGE-008", "{name}");
        assert_eq!(code(&[(name, DIR, "")], &limits()), "BP-IMAGE-008", "{name}");
        assert_eq!(code(&[(name, SYMLINK, "x")], &limits()), "BP-IMAGE-008", "{name}");
    }
    assert_eq!(code(&[("", FILE, "x")], &limits()), "BP-IMAGE-008", "a file in the root's place");
    let full = [("d", DIR, ""), ("d/f", FILE, ""), ("d", FILE, "")];
    assert_eq!(code(&full, &limits()), "BP-IMAGE-008", "a full directory is not replaced");
}

#[test]
fn links_that_lead_out_are_refused() {
    let check = |entries: &[Entry<'_>]| {
        assert_eq!(code(entries, &limits()), "BP-IMAGE-009", "{entries:?}");
    };
    for target in ["..", "/", "../witness", "."] {
        let through = [("out", SYMLINK, target), ("out/witness", FILE, "overwritten")];
        check(&through);
        check(&[("out", SYMLINK, target), ("out/dir/", DIR, "")]);
        check(&[("out", SYMLINK, target), ("a/b", FILE, ""), ("out/l", LINK, "a/b")]);
        check(&[("out", SYMLINK, target), ("out/.wh.witness", FILE, "")]);
        check(&[("out", SYMLINK, target), ("out/.wh..wh..opq", FILE, "")]);
        check(&[("out", SYMLINK, target), ("mine", LINK, "out/witness")]);
    }
    check(&[("mine", LINK, "../witness")]);
    check(&[("mine", LINK, "/etc/passwd")]);
    check(&[("mine", LINK, "nothing")]);
    check(&[("mine", LINK, ".")]);
    check(&[("d", DIR, ""), ("mine", LINK, "d")]);
    check(&[("mine", LINK, "mine")]);
    check(&[("f", FILE, ""), ("f/below", FILE, "")]);
    check(&[("empty", SYMLINK, "")]);
}

#[test]
fn a_file_in_a_link_s_place_replaces_the_link() {
    let tar = tarred(&[("l", SYMLINK, "../witness"), ("l", FILE, "own")]);
    let found = unpacked(&tar, &limits());
    found.done.unwrap();
    assert!(std::fs::symlink_metadata(found.dir.join("l")).unwrap().is_file());
    let tar = tarred(&[("l", SYMLINK, ".."), ("l/", DIR, ""), ("l/witness", FILE, "own")]);
    let found = unpacked(&tar, &limits());
    found.done.unwrap();
    assert!(std::fs::symlink_metadata(found.dir.join("l")).unwrap().is_dir());
}

#[test]
fn a_hard_link_to_a_link_is_that_link() {
    let tar = tarred(&[("l", SYMLINK, "../witness"), ("again", LINK, "l"), ("again", FILE, "x")]);
    let found = unpacked(&tar, &limits());
    found.done.unwrap();
    assert!(std::fs::symlink_metadata(found.dir.join("l")).unwrap().is_symlink());
}

#[test]
fn devices_and_unknown_kinds_are_refused() {
    for kind in [EntryType::Char, EntryType::Block, EntryType::new(b'Z')] {
        assert_eq!(code(&[("dev/x", kind, "")], &limits()), "BP-IMAGE-010", "{kind:?}");
    }
    assert_eq!(code(&[(".wh.x", SYMLINK, "y")], &limits()), "BP-IMAGE-010");
}

#[test]
fn each_limit_holds_at_its_edge() {
    let edge = |entries: &[Entry<'_>], set: &dyn Fn(&mut LayerLimits, u64), enough: u64| {
        let mut at = limits();
        set(&mut at, enough);
        assert_eq!(code(entries, &at), "", "{at:?}");
        set(&mut at, enough - 1);
        assert_eq!(code(entries, &at), "BP-IMAGE-011", "{at:?}");
    };
    edge(&[("a", FILE, "12345"), ("b", FILE, "678")], &|limits, n| limits.bytes = n, 8);
    edge(&[("a", FILE, ""), ("b", DIR, "")], &|limits, n| limits.entries = n, 2);
    edge(&[("a/bc", FILE, "")], &|limits, n| limits.path_bytes = n, 4);
    edge(&[("a", SYMLINK, "12345")], &|limits, n| limits.path_bytes = n, 5);
    edge(&[("ab", FILE, ""), ("c", SYMLINK, "d")], &|limits, n| limits.paths_bytes = n, 4);
    edge(&[("a/b/c", FILE, "")], &|limits, n| limits.depth = n, 3);
    let name = "n".repeat(NAME_BYTES_MAX);
    assert_eq!(code(&[(&name, FILE, "")], &limits()), "");
    assert_eq!(code(&[(&format!("{name}n"), FILE, "")], &limits()), "BP-IMAGE-011");
}

#[test]
fn a_file_that_only_seems_large_counts_as_large() {
    // A sparse entry of the old GNU form: 1 TiB of hole behind five bytes.
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_mode(0o644);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.name[0] = b's';
    let field = |to: &mut [u8; 12], value: u64| {
        to.copy_from_slice(&[0; 12]);
        to[0] = 0x80;
        to[4..].copy_from_slice(&value.to_be_bytes());
    };
    field(&mut gnu.sparse[0].numbytes, 5);
    field(&mut gnu.sparse[0].offset, 0);
    field(&mut gnu.sparse[1].numbytes, 0);
    field(&mut gnu.sparse[1].offset, 1 << 40);
    field(&mut gnu.realsize, 1 << 40);
    header.set_size(5);
    header.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&header, b"hello".as_slice()).unwrap();
    let tar = builder.into_inner().unwrap();
    let small = LayerLimits { bytes: 1 << 20, ..limits() };
    assert_eq!(unpacked(&tar, &small).done.unwrap_err().code(), "BP-IMAGE-011");
}

#[test]
fn zeros_become_holes() {
    let content = format!("a{}b", "\0".repeat(1 << 20));
    let found = unpacked(&tarred(&[("f", FILE, &content)]), &limits());
    found.done.unwrap();
    let path = found.dir.join("f");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
    assert!(std::fs::metadata(&path).unwrap().blocks() * 512 < 1 << 18, "most of it is a hole");
    let zeros = "\0".repeat(HOLE_BYTES * 2);
    let found = unpacked(&tarred(&[("f", FILE, &zeros)]), &limits());
    found.done.unwrap();
    assert_eq!(std::fs::metadata(found.dir.join("f")).unwrap().len(), zeros.len() as u64);
}

#[test]
fn no_bit_that_makes_a_program_privileged_is_kept() {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(FILE);
    header.set_mode(0o6755);
    header.as_gnu_mut().unwrap().name[0] = b's';
    header.set_size(0);
    header.set_cksum();
    builder.append(&header, [].as_slice()).unwrap();
    let found = unpacked(&builder.into_inner().unwrap(), &limits());
    found.done.unwrap();
    let mode = std::fs::metadata(found.dir.join("s")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 64];
    let count = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(count);
    Some(value)
}

#[test]
fn only_plain_attributes_are_kept() {
    let mut builder = tar::Builder::new(Vec::new());
    let pairs = [
        ("SCHILY.xattr.user.note", b"kept".as_slice()),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.security.capability", b"x"),
    ];
    builder.append_pax_extensions(pairs).unwrap();
    append(&mut builder, ("d/", DIR, ""));
    let tar = builder.into_inner().unwrap();
    let found = unpacked(&tar, &limits());
    found.done.unwrap();
    let dir = found.dir.join("d");
    assert_eq!(attribute(&dir, "user.note").unwrap(), b"kept");
    for name in ["user.overlay.opaque", "trusted.overlay.opaque", "security.capability"] {
        assert_eq!(attribute(&dir, name), None, "{name}");
    }
    let none = LayerLimits { xattrs: 0, ..limits() };
    assert_eq!(unpacked(&tar, &none).done.unwrap_err().code(), "BP-IMAGE-011");
}

#[test]
fn what_a_layer_hides_becomes_marks() {
    let found = unpacked(
        &tarred(&[
            ("etc/.wh.gone", FILE, ""),
            ("etc/kept", FILE, "x"),
            (".wh.etc/kept", FILE, ""),
            ("own/", DIR, ""),
            (".wh.own", FILE, ""),
            ("all/", DIR, ""),
            ("all/.wh..wh..opq", FILE, ""),
            (".wh..wh.plnk", FILE, ""),
            ("etc/.wh.kept", FILE, ""),
        ]),
        &limits(),
    );
    // A mark in the name of a directory is an odd name, not a mark.
    assert!(found.dir.join(".wh.etc/kept").exists());
    let done = found.done.unwrap();
    assert_eq!((done.opaque, done.implicit), (false, vec![".wh.etc".into(), "etc".into()]));
    let gone = std::fs::symlink_metadata(found.dir.join("etc/gone")).unwrap();
    use std::os::unix::fs::FileTypeExt;
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(std::fs::read_to_string(found.dir.join("etc/kept")).unwrap(), "x");
    for dir in ["own", "all"] {
        assert_eq!(attribute(&found.dir.join(dir), "user.overlay.opaque").unwrap(), b"y");
    }
    assert!(!found.dir.join(".wh..wh.plnk").exists());
    let whole = unpacked(&tarred(&[(".wh..wh..opq", FILE, "")]), &limits());
    assert!(whole.done.unwrap().opaque);
    for bad in [".wh.", ".wh..", ".wh...", "d/.wh..wh.other"] {
        assert_eq!(code(&[(bad, FILE, "")], &limits()), "BP-IMAGE-008", "{bad}");
    }
}

#[test]
fn what_is_cut_off_is_damaged() {
    let tar = tarred(&[("a", FILE, &"x".repeat(2000))]);
    for end in [300, 700, 1500] {
        let error = unpacked(&tar[..end], &limits()).done.unwrap_err();
        assert_eq!(error.code(), "BP-IMAGE-012", "{end}: {error}");
    }
}

fn order(packed: &[u8], plain: &[u8], packing: crate::metadata::Packing) -> crate::order::Unpack {
    crate::order::Unpack {
        file: PathBuf::new(),
        offset: 0,
        bytes: packed.len() as u64,
        packing,
        digest: Some(types::Digest::of(packed)),
        diff_id: types::Digest::of(plain),
        out: PathBuf::new(),
        limits: limits(),
    }
}

#[test]
fn both_digests_of_a_layer_are_checked_to_its_last_byte() {
    use crate::metadata::Packing;
    let check = |packed: &[u8], order: &crate::order::Unpack| {
        let dir = tempfile::tempdir().unwrap();
        layer(packed, order, &open(dir.path())).map_or_else(|error| error.code(), |_| "")
    };
    let plain = tarred(&[("a", FILE, "hello")]);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&plain).unwrap();
    let packed = encoder.finish().unwrap();
    let good = order(&packed, &plain, Packing::Gzip);
    assert_eq!(check(&packed, &good), "");
    let mut changed = packed.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    assert_eq!(check(&changed, &good), "BP-IMAGE-004", "told as another digest, not as damage");
    let other = crate::order::Unpack { diff_id: types::Digest::of(b"x"), ..good.clone() };
    assert_eq!(check(&packed, &other), "BP-IMAGE-004");
    let other = crate::order::Unpack { digest: Some(types::Digest::of(b"x")), ..good.clone() };
    assert_eq!(check(&packed, &other), "BP-IMAGE-004");
    // Bytes after the end of the archive count: they are part of what was promised.
    let mut longer = plain.clone();
    longer.extend([0; 512]);
    let with_more = order(&longer, &plain, Packing::Plain);
    assert_eq!(check(&longer, &with_more), "BP-IMAGE-004");
    let honest = order(&longer, &longer, Packing::Plain);
    assert_eq!(check(&longer, &honest), "");
    let small = LayerLimits { bytes: plain.len() as u64 - 1, ..limits() };
    let bomb = crate::order::Unpack { limits: small, ..good };
    assert_eq!(check(&packed, &bomb), "BP-IMAGE-011", "padding is bytes too");
}

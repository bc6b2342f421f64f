//! What lies where in an archive of `docker save`: the outer tar, looked at and not unpacked.
//!
//! Hostile bytes, so this runs in a confined process. What always holds: no name stands for two
//! things, and only plain files and links to them have one.

use crate::ImageError;
use crate::error::quoted;
use crate::limits::MEMBERS_MAX;
use crate::order::Extent;
use std::collections::BTreeMap;
use std::io::{Read, Seek};
use tar::EntryType;

/// Bytes of a member's name.
const NAME_BYTES_MAX: usize = 512;

/// The members of an archive by name, `./` taken off.
pub(crate) fn survey(archive: impl Read + Seek) -> Result<BTreeMap<String, Extent>, ImageError> {
    let damaged = |error: std::io::Error| {
        ImageError::metadata("the archive", format!("it is no tar: {error}"))
    };
    let mut archive = tar::Archive::new(archive);
    let mut files: BTreeMap<String, Extent> = BTreeMap::new();
    let mut links: BTreeMap<String, String> = BTreeMap::new();
    let mut count = 0;
    for entry in archive.entries_with_seek().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        count += 1;
        if count > MEMBERS_MAX {
            return Err(ImageError::limit("members in its archive", MEMBERS_MAX as u64));
        }
        let name = name(&entry.path_bytes())?;
        match entry.header().entry_type() {
            EntryType::Directory | EntryType::XGlobalHeader => continue,
            EntryType::Regular | EntryType::Continuous => {
                let extent = Extent { offset: entry.raw_file_position(), bytes: entry.size() };
                if links.contains_key(&name) || files.insert(name.clone(), extent).is_some() {
                    return Err(twice(&name));
                }
            }
            EntryType::Symlink | EntryType::Link => {
                let from = match entry.header().entry_type() {
                    EntryType::Link => "",
                    _ => name.rsplit_once('/').map_or("", |(dir, _)| dir),
                };
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                let target = within(from, &target)?;
                if files.contains_key(&name) || links.insert(name.clone(), target).is_some() {
                    return Err(twice(&name));
                }
            }
            _ => {
                let kind = "no file of an image's archive".to_owned();
                return Err(ImageError::Kind { path: quoted(name.as_bytes()), kind });
            }
        }
    }
    // Older archives link equal layers to one another. A link to a link is none.
    for (name, target) in links {
        if let Some(extent) = files.get(&target).copied() {
            files.insert(name, extent);
        }
    }
    Ok(files)
}

fn twice(name: &str) -> ImageError {
    let why = format!("{} is in it twice", quoted(name.as_bytes()));
    ImageError::metadata("the archive", why)
}

fn name(bytes: &[u8]) -> Result<String, ImageError> {
    within("", bytes)
}

/// A path relative to a directory of the archive, and in it.
fn within(from: &str, path: &[u8]) -> Result<String, ImageError> {
    let refuse = |why: &str| ImageError::Path { path: quoted(path), why: why.to_owned() };
    if path.len() > NAME_BYTES_MAX {
        return Err(ImageError::limit("bytes in a member's name", NAME_BYTES_MAX as u64));
    }
    let text = std::str::from_utf8(path).map_err(|_| refuse("is no UTF-8"))?;
    if text.starts_with('/') || text.contains('\0') {
        return Err(refuse("is absolute, or holds a NUL"));
    }
    let mut parts: Vec<&str> = from.split('/').filter(|part| !part.is_empty()).collect();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." if from.is_empty() || parts.pop().is_none() => {
                return Err(refuse("leads upward"));
            }
            ".." => {}
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;
    use types::Coded;

    fn archive(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Cursor<Vec<u8>> {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        Cursor::new(builder.into_inner().unwrap())
    }

    fn add(builder: &mut tar::Builder<Vec<u8>>, name: &str, kind: EntryType, more: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            header.as_gnu_mut().unwrap().linkname[..more.len()].copy_from_slice(more);
        }
        let content = if kind == EntryType::Regular { more } else { &[] };
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }

    #[test]
    fn members_are_found_where_they_lie() {
        let mut bytes = archive(|tar| {
            add(tar, "./a/layer.tar", EntryType::Regular, b"hello");
            add(tar, "b", EntryType::Directory, b"");
            add(tar, "b/layer.tar", EntryType::Symlink, b"../a/layer.tar");
        });
        let members = survey(&mut bytes).unwrap();
        let extent = members["a/layer.tar"];
        assert_eq!(members["b/layer.tar"], extent);
        let start = extent.offset as usize;
        assert_eq!(&bytes.get_ref()[start..start + extent.bytes as usize], b"hello");
    }

    #[test]
    fn what_is_no_archive_of_an_image_is_refused() {
        let check = |code: &str, entries: &[(&str, EntryType, &[u8])]| {
            let bytes = archive(|tar| {
                entries.iter().for_each(|(name, kind, more)| add(tar, name, *kind, more));
            });
            assert_eq!(survey(bytes).unwrap_err().code(), code, "{entries:?}");
        };
        let file = EntryType::Regular;
        check("BP-IMAGE-006", &[("manifest.json", file, b"1"), ("./manifest.json", file, b"2")]);
        check("BP-IMAGE-006", &[("a", EntryType::Symlink, b"b"), ("a", file, b"2")]);
        check("BP-IMAGE-008", &[("/a", file, b"")]);
        check("BP-IMAGE-008", &[("a/../../b", file, b"")]);
        check("BP-IMAGE-008", &[("a/b", EntryType::Symlink, b"../../x")]);
        check("BP-IMAGE-008", &[("a/b", EntryType::Symlink, b"/etc/passwd")]);
        check("BP-IMAGE-010", &[("a", EntryType::Char, b"")]);
        let noise = Cursor::new(vec![b'x'; 2048]);
        assert_eq!(survey(noise).unwrap_err().code(), "BP-IMAGE-006");
    }

    #[test]
    fn members_have_a_limit_at_its_edge() {
        let with = |count: usize| {
            survey(archive(|tar| {
                for number in 0..count {
                    add(tar, &number.to_string(), EntryType::Regular, b"");
                }
            }))
        };
        assert_eq!(with(MEMBERS_MAX).unwrap().len(), MEMBERS_MAX);
        assert_eq!(with(MEMBERS_MAX + 1).unwrap_err().code(), "BP-IMAGE-011");
    }
}

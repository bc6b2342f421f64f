//! Host names and paths as actions carry them, and the checks that fail closed on anything else.

use std::net::IpAddr;

/// Longest host name, in bytes.
pub const HOST_BYTES_MAX: usize = 253;
/// Longest label of a host name, in bytes.
const LABEL_BYTES_MAX: usize = 63;
/// Longest path, in bytes.
pub const PATH_BYTES_MAX: usize = 16 * 1024;
/// Most directories in one file path.
pub const PATH_DEPTH_MAX: usize = 256;

/// Whether this is a lower-case host name or IP address without port, brackets and final dot.
pub(crate) fn check(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > HOST_BYTES_MAX {
        return Err("it must have 1 to 253 bytes");
    }
    if is_address(name) {
        return Ok(());
    }
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    for label in name.split('.') {
        if label.is_empty() || label.len() > LABEL_BYTES_MAX {
            return Err("each part between dots must have 1 to 63 bytes");
        }
        if !label.bytes().all(good) {
            return Err("it may have lower-case letters, digits, `-`, `_` and dots only");
        }
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") {
        return Err("it looks like an address but is none in canonical form");
    }
    Ok(())
}

fn is_address(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok_and(|address| address.to_string() == name)
}

/// The domains a host lies in: its own name and every parent. An address lies in none.
pub(crate) fn domains(name: &str) -> impl Iterator<Item = &str> {
    let none = is_address(name);
    std::iter::successors(Some(name), |rest| rest.split_once('.').map(|(_, rest)| rest))
        .take_while(move |_| !none)
}

/// Whether this is an absolute, normalised file path.
pub(crate) fn check_file_path(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') || path.len() > PATH_BYTES_MAX {
        return Err("it must be absolute and at most 16384 bytes");
    }
    if path.contains('\0') {
        return Err("it has a NUL byte");
    }
    if path == "/" {
        return Ok(());
    }
    if path[1..].split('/').count() > PATH_DEPTH_MAX {
        return Err("it is deeper than 256 directories");
    }
    if path[1..].split('/').any(|s| matches!(s, "" | "." | "..")) {
        return Err("it is not normalised (`//`, `.`, `..` or a final `/`)");
    }
    Ok(())
}

/// The directories above a path, nearest first: `/a/b` gives `/a`, `/`.
pub(crate) fn directories(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(parent(path), |above| parent(above))
}

fn parent(path: &str) -> Option<&str> {
    match path.rfind('/')? {
        0 if path.len() > 1 => Some("/"),
        0 => None,
        slash => Some(&path[..slash]),
    }
}

/// Whether this is the path of an HTTP request, decoded and with its dots resolved.
pub(crate) fn check_http_path(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') || path.len() > PATH_BYTES_MAX {
        return Err("it must begin with `/` and have at most 16384 bytes");
    }
    if path.contains('\0') {
        return Err("it has a NUL byte");
    }
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err("its dots are not resolved");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names() {
        for good in
            ["a", "localhost", "api.example.test", "x_y-z.test", "127.0.0.1", "::1", "a1.2b"]
        {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let long = "a".repeat(64);
        for bad in [
            "",
            "A.test",
            "a.test.",
            ".a",
            "a..b",
            "a b",
            "a\0b",
            "a/b",
            "a:1",
            "[::1]",
            "ok@evil",
            "127.1",
            "0x7f.1",
            "0x7f000001",
            "2130706433",
            "1.2.3.04",
            "*.a",
            "é.test",
            &long,
            "::ffff:7f00:1",
            "a%2e",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn domains_are_the_name_and_its_parents() {
        let of = |name| domains(name).collect::<Vec<_>>();
        assert_eq!(of("a.b.c"), ["a.b.c", "b.c", "c"]);
        assert_eq!(of("127.0.0.1"), Vec::<&str>::new());
    }

    #[test]
    fn paths() {
        for good in ["/", "/a", "/a b/ü", "/workspace/x.md"] {
            assert_eq!(check_file_path(good), Ok(()), "{good}");
        }
        for bad in ["", "a", "/a/", "//a", "/a/../b", "/./a", "/a\0"] {
            assert!(check_file_path(bad).is_err(), "{bad}");
        }
        assert_eq!(directories("/a/b/c").collect::<Vec<_>>(), ["/a/b", "/a", "/"]);
        assert_eq!(directories("/").count(), 0);
        for bad in ["", "*", "a", "/a/../b", "/.", "/\0"] {
            assert!(check_http_path(bad).is_err(), "{bad}");
        }
        assert_eq!(check_http_path("/a//b/"), Ok(()));
    }
}

//! What root file system a sandbox has: the host's, or that of an image somewhere.
//!
//! Only the words; nothing is looked up. A reference says where an image lies at this moment, its
//! digest says what it is for ever: a run keeps both.

use std::fmt;
use std::str::FromStr;

/// Bytes of a reference.
pub const IMAGE_REFERENCE_BYTES_MAX: usize = 1024;
/// Bytes of a tag.
const TAG_BYTES_MAX: usize = 128;
/// Bytes of a repository's name, as registries take it.
const REPOSITORY_BYTES_MAX: usize = 255;
/// What is meant when no tag is said.
const TAG_DEFAULT: &str = "latest";

/// Where an image comes from, as a person writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// `host`: the host's own `/usr`.
    Host,
    /// `oci:DIR[:TAG]`: a directory of the OCI image layout.
    Layout {
        /// The directory.
        dir: String,
        /// Which of its images; without one there must be one only.
        tag: Option<String>,
    },
    /// `archive:FILE`: what `docker save` writes.
    Archive {
        /// The file.
        file: String,
    },
    /// `REGISTRY/NAME[:TAG]` or `REGISTRY/NAME@sha256:DIGEST`.
    Registry {
        /// Host, with a port if one was written.
        host: String,
        /// The repository.
        name: String,
        /// Its tag, or `sha256:` and a digest.
        version: String,
    },
}

/// A text that names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' names no image: {why}")]
pub struct ImageSourceError {
    /// The text, cut.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

impl FromStr for ImageSource {
    type Err = ImageSourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = match text {
            _ if text.len() > IMAGE_REFERENCE_BYTES_MAX => {
                Err(format!("it is longer than {IMAGE_REFERENCE_BYTES_MAX} bytes"))
            }
            _ if text.chars().any(char::is_control) => {
                Err("it holds a control character".to_owned())
            }
            "host" => Ok(Self::Host),
            _ => match text.split_once(':') {
                Some(("oci", rest)) => layout(rest),
                Some(("archive", "")) => Err("archive: wants a file".to_owned()),
                Some(("archive", file)) => Ok(Self::Archive { file: file.to_owned() }),
                _ => registry(text),
            },
        };
        parsed.map_err(|why| ImageSourceError { text: text.chars().take(80).collect(), why })
    }
}

fn layout(rest: &str) -> Result<ImageSource, String> {
    let (dir, tag) = match rest.rsplit_once(':') {
        Some((dir, tag)) if is_tag(tag) => (dir, Some(tag.to_owned())),
        _ => (rest, None),
    };
    match dir {
        "" => Err("oci: wants a directory".to_owned()),
        _ => Ok(ImageSource::Layout { dir: dir.to_owned(), tag }),
    }
}

fn registry(text: &str) -> Result<ImageSource, String> {
    let Some((host, rest)) = text.split_once('/').filter(|(host, _)| is_host(host)) else {
        return Err("write host, oci:DIR, archive:FILE, or a name with its registry, such as \
                    docker.io/library/debian:12"
            .to_owned());
    };
    let (name, version) = match rest.split_once('@') {
        Some((name, digest)) => match digest.strip_prefix("sha256:") {
            Some(hex) if hex.parse::<crate::Digest>().is_ok() => {
                // A tag beside a digest says nothing more.
                (name.split(':').next().unwrap_or_default(), digest)
            }
            _ => return Err("what follows @ is sha256: and 64 hexadecimal digits".to_owned()),
        },
        None => rest.rsplit_once(':').unwrap_or((rest, TAG_DEFAULT)),
    };
    if !is_repository(name) {
        return Err(format!("'{name}' is no name of a repository"));
    }
    if !version.starts_with("sha256:") && !is_tag(version) {
        return Err(format!("'{version}' is no tag"));
    }
    Ok(ImageSource::Registry {
        host: host.to_owned(),
        name: name.to_owned(),
        version: version.to_owned(),
    })
}

/// Letters, digits, `_`, `-` and `.`, not beginning with one of the last two.
fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= TAG_BYTES_MAX
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'-' || b == b'.')
}

/// A host name or address: with a dot or a port, or `localhost`, so that no user's name is one.
fn is_host(text: &str) -> bool {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => (address, None),
            Some((address, rest)) => (address, rest.strip_prefix(':')),
            None => return false,
        },
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    let of_address = |b: u8| b.is_ascii_hexdigit() || b == b':' || b == b'.';
    let address = text.starts_with('[') && name.contains(':') && name.bytes().all(of_address);
    let labels = |name: &str| {
        name.split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
    };
    (address || labels(name))
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
        && (address || name.contains('.') || port.is_some() || name == "localhost")
}

/// Parts of small letters and digits, joined by `.`, `_`, `-` and `/`.
fn is_repository(text: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let part = |part: &str| {
        let (first, last) = (part.bytes().next(), part.bytes().last());
        first.is_some_and(alnum)
            && last.is_some_and(alnum)
            && part.bytes().all(|b| alnum(b) || matches!(b, b'.' | b'_' | b'-'))
            && !part.contains("..")
    };
    text.len() <= REPOSITORY_BYTES_MAX && text.split('/').all(part)
}

impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => write!(f, "host"),
            Self::Layout { dir, tag: None } => write!(f, "oci:{dir}"),
            Self::Layout { dir, tag: Some(tag) } => write!(f, "oci:{dir}:{tag}"),
            Self::Archive { file } => write!(f, "archive:{file}"),
            Self::Registry { host, name, version } if version.starts_with("sha256:") => {
                write!(f, "{host}/{name}@{version}")
            }
            Self::Registry { host, name, version } => write!(f, "{host}/{name}:{version}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> ImageSource {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn references_are_read_and_written_again() {
        let hex = "0".repeat(64);
        let same = |text: &str| assert_eq!(source(text).to_string(), text);
        same("host");
        same("oci:images/base");
        same("oci:/srv/images:12-slim");
        same("oci:a:b/c");
        same("archive:/tmp/save.tar");
        same("docker.io/library/debian:12");
        same("localhost/x:1");
        same("127.0.0.1:5000/a/b:latest");
        same("[::1]:5000/a:latest");
        same(&format!("ghcr.io/a/b@sha256:{hex}"));
        assert_eq!(source("quay.io/a").to_string(), "quay.io/a:latest");
        let both = source(&format!("ghcr.io/a/b:1@sha256:{hex}"));
        assert_eq!(both.to_string(), format!("ghcr.io/a/b@sha256:{hex}"));
        let layout = ImageSource::Layout { dir: "d".into(), tag: Some("t".into()) };
        assert_eq!(source("oci:d:t"), layout);
    }

    #[test]
    fn what_names_no_image_says_why() {
        let check = |text: &str, why: &str| {
            let error = text.parse::<ImageSource>().expect_err(text);
            assert!(error.why.contains(why), "{text}: {error}");
        };
        check("", "docker.io");
        check("debian", "docker.io");
        check("debian:12", "docker.io");
        check("user/name", "docker.io");
        check("oci:", "directory");
        check("archive:", "file");
        check("a.b/Upper", "repository");
        check("a.b/../x", "repository");
        check("a.b/x:", "tag");
        check("a.b/x:-1", "tag");
        check("a.b/x@sha256:12", "64");
        check("a.b:0/x", "docker.io");
        check("a..b/x", "docker.io");
        check("oci:a\nb", "control");
        check(&"x".repeat(IMAGE_REFERENCE_BYTES_MAX + 1), "longer");
        let longest = format!("archive:{}", "x".repeat(IMAGE_REFERENCE_BYTES_MAX - 8));
        assert!(longest.parse::<ImageSource>().is_ok());
    }
}

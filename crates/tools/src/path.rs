//! Paths as tools take them: relative ones stand in the workspace, `..` is resolved here, so that
//! policy and sandbox see one spelling.

/// Where the workspace is in every sandbox.
pub const WORKSPACE: &str = "/workspace";
/// A kept output is read as `artifact:ACTION`.
pub const ARTIFACT_PREFIX: &str = "artifact:";
/// Longest path, in bytes.
const PATH_BYTES_MAX: usize = 4096;

/// The absolute, normalised path in the sandbox; `None` when it is empty, too long, has a NUL, or
/// leaves the root.
pub fn in_workspace(path: &str) -> Option<String> {
    if path.is_empty() || path.len() > PATH_BYTES_MAX || path.contains('\0') {
        return None;
    }
    let joined =
        if path.starts_with('/') { path.to_owned() } else { format!("{WORKSPACE}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::in_workspace;

    #[test]
    fn paths_have_one_spelling() {
        let check = |path: &str, expected: Option<&str>| {
            assert_eq!(in_workspace(path).as_deref(), expected, "{path}");
        };
        check("a.txt", Some("/workspace/a.txt"));
        check("./a//b/../c", Some("/workspace/a/c"));
        check("/workspace/x", Some("/workspace/x"));
        check("../etc/passwd", Some("/etc/passwd"));
        check("../../..", None);
        check("", None);
        check("a\0b", None);
    }
}

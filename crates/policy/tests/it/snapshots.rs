//! The Cedar text and the table of each preset, whole.

use crate::support::{compile, list, sources};
use types::manifest::{Guard, Permissions, Preset};

fn shown(permissions: Option<Permissions>) -> String {
    let set = compile(&sources(permissions));
    let mut out = set.cedar_source();
    out.push_str("--- table\n");
    for row in set.table() {
        let when = if row.when.is_empty() { String::new() } else { format!(" when {}", row.when) };
        out.push_str(&format!(
            "{:?} {} {}{when}  <- {} ({})\n",
            row.verdict, row.action, row.resource, row.source, row.policy
        ));
    }
    out
}

fn preset(preset: Preset) -> Option<Permissions> {
    Some(Permissions { preset: Some(preset), ..Permissions::default() })
}

#[test]
fn nothing_said() {
    insta::assert_snapshot!(shown(None));
}

#[test]
fn observe() {
    insta::assert_snapshot!(shown(preset(Preset::Observe)));
}

#[test]
fn draft() {
    insta::assert_snapshot!(shown(preset(Preset::Draft)));
}

#[test]
fn act() {
    insta::assert_snapshot!(shown(preset(Preset::Act)));
}

#[test]
fn entries() {
    insta::assert_snapshot!(shown(Some(Permissions {
        allow: list(&[
            "shell",
            "GET api.example.test/v1/*",
            "docs.example.test",
            "secret:api@api.example.test",
            "read_file"
        ]),
        ask: list(&["open_ticket", "POST api.example.test:8443/v1/issues"]),
        deny: list(&["api.example.test/v1/admin/*", "*.evil.test"]),
        ..Permissions::default()
    })));
}

#[test]
fn operations_and_guards() {
    insta::assert_snapshot!(shown(Some(Permissions {
        allow: list(&[
            "git fetch git.example.test/team/*",
            "git push git.example.test/team/app refs/heads/agent/*",
            "install registry.example.test",
            "publish registry.example.test/@team/app",
        ]),
        ask: list(&["git force-push git.example.test:8443/team/app refs/heads/agent/x"]),
        deny: list(&[
            "git fetch git.example.test/team/secret",
            "git push *.example.test/team/app refs/heads/main",
            "git force-push git.example.test/* refs/tags/*",
            "install evil.test",
            "publish registry.example.test/core",
        ]),
        guard: vec![Guard::Trifecta, Guard::Stale { seconds: 900 }],
        ..Permissions::default()
    })));
}

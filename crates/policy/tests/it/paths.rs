//! File rules for the sandbox, and which names may be resolved.

use crate::support::{cedar, cedar_sources, compile, list, sources};
use policy::{FsRules, PolicySet};
use types::Coded;
use types::manifest::{Permissions, Preset};

const SHELL: &str = "permit(principal, action == Action::\"run_command\", resource);\n";

fn rules(text: &str) -> Result<FsRules, String> {
    cedar(text).fs_rules().map_err(|error| format!("{} {error}", error.code()))
}

fn fs(
    read: Option<&[&str]>,
    write: Option<&[&str]>,
    deny_read: &[&str],
    deny_write: &[&str],
) -> FsRules {
    FsRules {
        read: read.map(list),
        write: write.map(list),
        deny_read: list(deny_read),
        deny_write: list(deny_write),
        mounts: vec![],
    }
}

#[test]
fn path_rules_become_directories_and_files() {
    let permit = |action: &str, scope: &str, clause: &str| {
        format!(
            "{SHELL}permit(principal, action == Action::\"{action}\", resource{scope}){clause};\n"
        )
    };
    for (text, expected) in [
        (SHELL.to_owned(), fs(None, None, &[], &[])),
        (permit("read_file", "", ""), fs(Some(&["/"]), None, &[], &[])),
        (
            permit("read_file", " == Path::\"/workspace/a.md\"", ""),
            fs(Some(&["/workspace/a.md"]), None, &[], &[]),
        ),
        (
            permit("read_file", " in Path::\"/workspace/a\"", ""),
            fs(Some(&["/workspace/a/"]), None, &[], &[]),
        ),
        (
            permit("read_file", "", " when { context.path like \"/workspace/a/*\" }"),
            fs(Some(&["/workspace/a/"]), None, &[], &[]),
        ),
        (
            permit("write_file", "", " when { context.path == \"/workspace/a.md\" }"),
            fs(None, Some(&["/workspace/a.md"]), &[], &[]),
        ),
        (
            permit(
                "read_file",
                "",
                " when { context.path like \"/a/*\" || resource == Path::\"/b\" }",
            ),
            fs(Some(&["/a/", "/b"]), None, &[], &[]),
        ),
        (
            permit("read_file", " in Path::\"/a\"", " when { context.path like \"/a/b/*\" }"),
            fs(Some(&["/a/b/"]), None, &[], &[]),
        ),
        (
            permit("read_file", " in Path::\"/a\"", " when { context.path like \"/c/*\" }"),
            fs(None, None, &[], &[]),
        ),
        (
            permit("read_file", " in Path::\"/a\"", " unless { resource in Path::\"/a/.git\" }"),
            fs(Some(&["/a/"]), None, &["/a/.git/"], &[]),
        ),
    ] {
        assert_eq!(rules(&text), Ok(expected), "{text}");
    }
}

#[test]
fn forbids_and_principals_narrow_path_rules() {
    let permit = |action: &str, scope: &str, clause: &str| {
        format!(
            "{SHELL}permit(principal, action == Action::\"{action}\", resource{scope}){clause};\n"
        )
    };
    let forbid = |scope: &str, clause: &str| {
        format!("forbid(principal, action == Action::\"read_file\", resource{scope}){clause};\n")
    };
    for (text, expected) in [
        (
            permit("read_file", " in Path::\"/a\"", "")
                + &permit("read_file", " in Path::\"/a/b\"", "").replace(SHELL, ""),
            fs(Some(&["/a/"]), None, &[], &[]),
        ),
        (
            permit("read_file", " in Path::\"/a\"", "") + &forbid(" in Path::\"/a/x\"", ""),
            fs(Some(&["/a/"]), None, &["/a/x/"], &[]),
        ),
        (
            SHELL.to_owned() + &forbid(" == Path::\"/workspace/.env\"", ""),
            fs(None, None, &["/workspace/.env"], &[]),
        ),
        (
            SHELL.to_owned() + &forbid("", " unless { context.path like \"/workspace/pub/*\" }"),
            fs(Some(&["/workspace/pub/"]), None, &[], &[]),
        ),
        (
            permit("read_file", "", " when { principal == Agent::\"other\" }"),
            fs(None, None, &[], &[]),
        ),
        (
            permit("read_file", "", " when { principal in Team::\"support\" }"),
            fs(Some(&["/"]), None, &[], &[]),
        ),
        (
            SHELL.to_owned()
                + "forbid(principal in Team::\"sales\", action == Action::\"read_file\", resource);",
            fs(None, None, &[], &[]),
        ),
    ] {
        assert_eq!(rules(&text), Ok(expected), "{text}");
    }
}

#[test]
fn what_no_sandbox_can_enforce_is_refused() {
    let permit = "permit(principal, action == Action::\"read_file\", resource)";
    let forbid = "forbid(principal, action == Action::\"write_file\", resource)";
    for text in [
        format!("{permit} when {{ context.approved }};"),
        format!("{permit} when {{ context.labels.contains(\"pii\") }};"),
        format!("{permit} when {{ context.path like \"/workspace/*.md\" }};"),
        format!("{permit} when {{ context.path like \"/workspace/a*\" }};"),
        format!("{permit} when {{ context.on_behalf_of == \"ada\" }};"),
        format!("{permit} when {{ context.path like \"/a/*\" || !(context.path like \"/a/b/*\") }};"),
        format!("{permit} when {{ resource == Path::\"/\" }};"),
        format!("{permit} when {{ context.path like \"/a/../b/*\" }};"),
        format!("{permit} unless {{ resource in Path::\"/a\" }};\npermit(principal, action == Action::\"read_file\", resource in Path::\"/a/b\");"),
        format!("{forbid} unless {{ context.approved }};"),
        "forbid(principal, action, resource) unless { context.approved };".to_owned(),
        "forbid(principal, action == Action::\"write_file\", resource in Path::\"/a\") unless { resource in Path::\"/a/b\" };".to_owned(),
        "forbid(principal, action, resource) when { resource is Path && context.path like \"*.env\" };".to_owned(),
    ] {
        let refused = rules(&format!("{SHELL}{text}"));
        assert!(refused.as_ref().is_err_and(|e| e.starts_with("BP-POLICY-008 policy policy.cedar[1] cannot bind a shell")), "{text}: {refused:?}");
        assert!(PolicySet::compile(&cedar_sources(&text)).expect("a good policy").fs_rules().is_ok(), "without commands: {text}");
    }
}

#[test]
fn a_forbid_of_commands_too_needs_no_path() {
    let text = format!(
        "{SHELL}forbid(principal, action, resource) when {{ context.labels.contains(\"untrusted\") }};"
    );
    assert_eq!(rules(&text), Ok(fs(None, None, &[], &[])));
}

#[test]
fn mounts_are_listed() {
    let text = "permit(principal, action == Action::\"mount\", resource in Path::\"/data\");
        permit(principal, action == Action::\"mount\", resource == Path::\"/etc/x\");
        forbid(principal, action == Action::\"mount\", resource in Path::\"/etc\");";
    assert_eq!(rules(text).map(|rules| rules.mounts), Ok(list(&["/data/"])));
}

#[test]
fn presets_and_entries_as_paths() {
    let of = |preset, allow: &[&str], ask: &[&str], deny: &[&str]| {
        let permissions = Permissions {
            preset,
            allow: list(allow),
            ask: list(ask),
            deny: list(deny),
            ..Permissions::default()
        };
        compile(&sources(Some(permissions))).fs_rules().map_err(|error| error.code())
    };
    let whole: Option<&[&str]> = Some(&["/workspace/"]);
    for preset in [Preset::Observe, Preset::Draft, Preset::Act] {
        assert_eq!(of(Some(preset), &[], &[], &[]), Ok(fs(whole, whole, &[], &[])));
    }
    assert_eq!(of(None, &["shell"], &[], &[]), Ok(fs(None, None, &[], &[])));
    assert_eq!(of(None, &["shell", "read_file"], &[], &[]), Ok(fs(whole, None, &[], &[])));
    assert_eq!(
        of(Some(Preset::Observe), &[], &[], &["write_file"]),
        Ok(fs(whole, whole, &[], &["/workspace/"]))
    );
    assert_eq!(of(Some(Preset::Observe), &[], &["write_file"], &[]), Err("BP-POLICY-008"));
    assert_eq!(
        of(None, &[], &["write_file"], &[]),
        Ok(fs(None, None, &[], &[])),
        "no command can run"
    );
    assert_eq!(
        of(Some(Preset::Observe), &[], &["write_file"], &["shell", "python", "check"]),
        Ok(fs(whole, None, &[], &[]))
    );
}

#[test]
fn covering_is_by_whole_names() {
    let rules = list(&["/workspace/", "/etc/hosts"]);
    for (path, covered) in [
        ("/workspace", true),
        ("/workspace/a/b", true),
        ("/workspace2", false),
        ("/etc/hosts", true),
        ("/etc/hosts/x", false),
        ("/", false),
    ] {
        assert_eq!(FsRules::covers(&rules, path), covered, "{path}");
    }
    assert!(FsRules::covers(&list(&["/"]), "/any/thing"));
}

#[test]
fn names_that_no_rule_may_permit_are_known() {
    let set = compile(&sources(Some(Permissions {
        allow: list(&["GET api.example.test/v1/*", "*.cdn.example.test", "evil.cdn.example.test"]),
        ask: list(&["POST asked.test/x"]),
        deny: list(&["evil.cdn.example.test", "part.cdn.example.test/x"]),
        ..Permissions::default()
    })));
    for (host, may) in [
        ("api.example.test", true),
        ("example.test", false),
        ("a.cdn.example.test", true),
        ("evil.cdn.example.test", false),
        ("part.cdn.example.test", true),
        ("asked.test", true),
        ("other.test", false),
        ("API.example.test", false),
        ("api.example.test.", false),
        ("127.0.0.1", false),
    ] {
        assert_eq!(set.may_permit_host(host), may, "{host}");
    }
}

#[test]
fn a_condition_on_nothing_but_the_host_is_decided_before_a_name_is_resolved() {
    let http = "action == Action::\"http_request\", resource";
    let permit = |when: &str| format!("permit(principal, {http}) when {{ {when} }};");
    let forbid = |when: &str| {
        format!("permit(principal, {http}); forbid(principal, {http}) when {{ {when} }};")
    };
    let a = "resource == Host::\"a.test\"";
    for (text, may) in [
        (permit(a), true),
        (permit(&format!("!({a})")), false),
        (permit("Host::\"b.test\" == resource"), false),
        (permit("resource in Domain::\"test\" && context.approved"), true),
        (permit("resource in Domain::\"other\" || false"), false),
        (permit("resource in Domain::\"other\" || context.method == \"GET\""), true),
        (forbid(a), false),
        (forbid("resource != Host::\"b.test\""), false),
        (forbid(&format!("{a} && context.method == \"GET\"")), true),
        (forbid(&format!("{a} || context.method == \"GET\"")), false),
        (forbid("resource in Domain::\"a.test\""), false),
        (forbid("resource in Domain::\"b.a.test\""), true),
        (format!("permit(principal, {http}); forbid(principal, {http}) unless {{ {a} }};"), true),
        (
            format!(
                "permit(principal, {http}); forbid(principal, action, resource in Domain::\"test\") unless {{ context.approved }};"
            ),
            true,
        ),
        (format!("permit(principal == Agent::\"another\", {http});"), false),
        (
            format!(
                "permit(principal, {http}); forbid(principal == Agent::\"another\", action, resource);"
            ),
            true,
        ),
        (
            "permit(principal, action == Action::\"connect\", resource == Host::\"a.test\");"
                .to_owned(),
            true,
        ),
        ("permit(principal, action, resource is Tool);".to_owned(), false),
    ] {
        assert_eq!(cedar(&text).may_permit_host("a.test"), may, "{text}");
    }
}

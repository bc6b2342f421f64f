//! Entries for git and package registries: what they open, what they close, what they suggest.

use crate::support::{compile, fetch, list, package, push, request, sources, unread_push, wrong};
use policy::{Because, DecisionInput, PolicySet, Principal, Suggestion, explain_denial};
use types::manifest::Permissions;
use types::{ActionRequest, Verdict};

fn set(allow: &[&str], ask: &[&str], deny: &[&str]) -> PolicySet {
    compile(&sources(Some(Permissions {
        allow: list(allow),
        ask: list(ask),
        deny: list(deny),
        ..Permissions::default()
    })))
}

fn verdict(set: &PolicySet, request: ActionRequest) -> Verdict {
    let input = DecisionInput::new(Principal::agent("triage", "support"), request);
    let decision = set.decide(&input);
    assert_eq!(decision.errors, []);
    decision.verdict
}

/// The first question of a push, as the boundary tells it, and where nothing looked.
fn asks(repository: &str) -> [ActionRequest; 2] {
    let mut bare = push(repository, &[]);
    let ActionRequest::HttpRequest { method, path, query, .. } = &mut bare else { unreachable!() };
    *method = "GET".to_owned();
    *path = format!("{repository}.git/info/refs");
    *query = "service=git-receive-pack".to_owned();
    let told = bare.clone();
    let ActionRequest::HttpRequest { facts, .. } = &mut bare else { unreachable!() };
    *facts = None;
    [told, bare]
}

const NEW: (&str, &str) = ("create", "refs/heads/agent/x");
const MOVED: (&str, &str) = ("update", "refs/heads/agent/x");
const GONE: (&str, &str) = ("delete", "refs/heads/agent/x");
const MAIN: (&str, &str) = ("create", "refs/heads/main");

#[test]
fn what_entries_open_of_git() {
    use Verdict::{Deny, Permit};
    let check = |entry: &str, cases: &[(ActionRequest, Verdict)]| {
        let set = set(&[entry], &[], &[]);
        for (request, expected) in cases {
            assert_eq!(verdict(&set, request.clone()), *expected, "{entry}: {request:?}");
        }
    };
    let [told, bare] = asks("/o/r");
    let plain = [
        (told.clone(), Deny),
        (bare.clone(), Deny),
        (push("/o/r", &[NEW]), Deny),
        (unread_push("/o/r"), Deny),
        (request("GET git.test/o/r"), Permit),
    ];
    for entry in ["git.test", "GET git.test", "GET git.test/*", "GET git.test/o/*"] {
        check(entry, &plain);
    }
    check("POST git.test", &[(push("/o/r", &[NEW]), Deny), (unread_push("/o/r"), Deny)]);
    check("GET git.test/o/r.git/info/refs", &[(told.clone(), Deny), (bare.clone(), Deny)]);
    check(
        "git push git.test/o/r refs/heads/agent/*",
        &[
            (told.clone(), Permit),
            (bare.clone(), Permit),
            (push("/o/r", &[]), Permit),
            (push("/o/r", &[NEW]), Permit),
            (push("/o/r", &[NEW, ("create", "refs/heads/agent/b/y")]), Permit),
            (push("/o/r", &[NEW, MAIN]), Deny),
            (push("/o/r", &[MOVED]), Deny),
            (push("/o/r", &[GONE]), Deny),
            (push("/o/r", &[("create", "refs/heads/agents")]), Deny),
            (push("/o/other", &[NEW]), Deny),
            (unread_push("/o/r"), Deny),
            (fetch("/o/r"), Deny),
            (request("GET git.test/o/r"), Deny),
        ],
    );
    check(
        "git force-push git.test/o/r refs/heads/agent/x",
        &[
            (push("/o/r", &[NEW]), Permit),
            (push("/o/r", &[MOVED]), Permit),
            (push("/o/r", &[GONE]), Permit),
            (push("/o/r", &[("update", "refs/heads/agent/y")]), Deny),
            (unread_push("/o/r"), Deny),
        ],
    );
    check(
        "git push git.test/o/* *",
        &[(push("/o/z", &[MAIN]), Permit), (push("/p/z", &[MAIN]), Deny)],
    );
    check(
        "git fetch git.test/o/r.git",
        &[(fetch("/o/r"), Permit), (fetch("/o/x"), Deny), (bare, Deny), (told, Deny)],
    );
}

#[test]
fn a_push_in_disguise_is_a_push() {
    let set = set(&["GET git.test", "POST git.test", "git fetch git.test/*"], &[], &[]);
    for (text, query) in [
        ("GET git.test/o/r/info/refs", "service=git%2Dreceive%2Dpack"),
        ("GET git.test/o/r/info/refs", "service=git-upload-pack&service=git-receive-pack"),
        ("GET git.test/o/r//info//refs", "service=git-receive-pack"),
        ("GET git.test/o/r/info/refs/", "service=GIT-RECEIVE-PACK"),
        ("POST git.test/o/r/git-receive-pack/", ""),
        ("POST git.test/o/r//git-receive-pack", ""),
        ("POST git.test/o/r/Git-Receive-Pack", ""),
    ] {
        let mut disguised = request(text);
        let ActionRequest::HttpRequest { query: of, .. } = &mut disguised else { unreachable!() };
        *of = query.to_owned();
        assert_eq!(verdict(&set, disguised), Verdict::Deny, "{text}?{query}");
    }
}

#[test]
fn what_entries_close_of_git() {
    use Verdict::{Ask, Deny, Permit};
    let all = "git force-push git.test/* *";
    let [told, _] = asks("/o/r");
    let check = |deny: &str, cases: &[(ActionRequest, Verdict)]| {
        let set = set(&[all, "git fetch git.test/*", "CONNECT git.test"], &[], &[deny]);
        for (request, expected) in cases {
            assert_eq!(verdict(&set, request.clone()), *expected, "{deny}: {request:?}");
        }
    };
    let main = [
        (push("/o/r", &[MAIN]), Deny),
        (push("/O/R", &[MAIN]), Deny),
        (push("/o/r", &[NEW, MAIN]), Deny),
        (unread_push("/o/r"), Deny),
        (push("/o/r", &[MOVED]), Permit),
        (push("/o/z", &[MAIN]), Permit),
        (told, Permit),
        (fetch("/o/r"), Permit),
        (request("connect git.test"), Deny),
    ];
    check("git push git.test/o/r refs/heads/main", &main);
    check(
        "git force-push git.test/o/* refs/heads/*",
        &[
            (push("/o/r", &[MAIN]), Permit),
            (push("/o/r", &[MOVED]), Deny),
            (push("/o/r", &[GONE]), Deny),
            (push("/o/r", &[("update", "refs/tags/v1")]), Permit),
            (push("/p/r", &[MOVED]), Permit),
        ],
    );
    check("git fetch git.test/o/r", &[(fetch("/O/r"), Deny), (fetch("/o/z"), Permit)]);
    let asked = set(&[], &["git push git.test/o/r refs/heads/agent/*"], &[]);
    assert_eq!(verdict(&asked, push("/o/r", &[NEW])), Ask);
    assert_eq!(verdict(&asked, push("/o/r", &[MOVED])), Deny);
    assert_eq!(verdict(&asked, asks("/o/r")[0].clone()), Permit);
}

#[test]
fn a_denied_push_stays_closed_where_everything_else_is_open() {
    let all =
        "permit(principal, action in [Action::\"http_request\", Action::\"connect\"], resource);";
    for deny in ["git push git.test/o/r refs/heads/main", "git force-push git.test/o/r *"] {
        let mut of = sources(Some(Permissions { deny: list(&[deny]), ..Permissions::default() }));
        of.cedar = Some(("policy.cedar".into(), all.into()));
        let set = compile(&of);
        let mut unnamed = unread_push("/o/r");
        let ActionRequest::HttpRequest { path, facts, .. } = &mut unnamed else { unreachable!() };
        (*path, *facts) = ("/a*b/git-receive-pack/".to_owned(), None);
        for (request, expected) in [
            (unread_push("/o/r"), Verdict::Deny),
            (unnamed, Verdict::Deny),
            (push("/O/r", &[("delete", "refs/heads/main")]), Verdict::Deny),
            (request("connect git.test"), Verdict::Deny),
            (unread_push("/o/other"), Verdict::Permit),
            (push("/o/r", &[NEW]), Verdict::Permit),
            (asks("/o/r")[0].clone(), Verdict::Permit),
        ] {
            assert_eq!(verdict(&set, request.clone()), expected, "{deny}: {request:?}");
        }
    }
}

#[test]
fn installing_is_not_publishing() {
    use Verdict::{Deny, Permit};
    let audit = package("POST", "/-/npm/v1/security/audits", "package install");
    let publish = |name: &str| package("PUT", &format!("/{name}"), "package publish");
    let unnamed = package("POST", "/legacy/", "package publish");
    let push = push("/o/r", &[NEW]);
    let check = |allow: &[&str], deny: &[&str], cases: &[(&ActionRequest, Verdict)]| {
        let set = set(allow, &[], deny);
        for (request, expected) in cases {
            assert_eq!(
                verdict(&set, (*request).clone()),
                *expected,
                "{allow:?} {deny:?} {request:?}"
            );
        }
    };
    let get = package("GET", "/lodash", "package install");
    let (mine, scoped) = (publish("mine"), publish("@me/mine"));
    let delete = package("DELETE", "/mine/-rev/1", "package publish");
    let any_post = request("POST git.test/x");
    check(
        &["install git.test"],
        &[],
        &[
            (&get, Permit),
            (&audit, Permit),
            (&mine, Deny),
            (&unnamed, Deny),
            (&push, Deny),
            (&any_post, Deny),
        ],
    );
    check(
        &["publish git.test/mine"],
        &[],
        &[(&mine, Permit), (&scoped, Deny), (&unnamed, Deny), (&get, Deny), (&delete, Deny)],
    );
    check(&["publish git.test/@me/mine"], &[], &[(&scoped, Permit), (&mine, Deny)]);
    check(&["publish git.test/*"], &[], &[(&mine, Permit), (&unnamed, Permit), (&delete, Deny)]);
    let open = ["PUT git.test", "POST git.test", "git.test", "CONNECT git.test"];
    check(
        &open,
        &["publish git.test/mine"],
        &[
            (&mine, Deny),
            (&scoped, Permit),
            (&unnamed, Deny),
            (&get, Permit),
            (&any_post, Deny),
            (&request("connect git.test"), Deny),
        ],
    );
    check(&open, &["install git.test"], &[(&get, Deny), (&audit, Deny), (&mine, Permit)]);
}

#[test]
fn entries_that_say_something_else_are_refused() {
    for (entry, says) in [
        ("git clone git.test/o/r", "write `git fetch host/owner/repo`"),
        ("git push git.test/o/r", "say which references"),
        ("git push git.test/o/r main", "written whole, as in `refs/heads/main`"),
        ("git push git.test/o/r refs/heads/../main", "is no reference"),
        ("git push git.test/o/r refs/heads/a*b", "is no reference"),
        ("git push git.test/o/r refs/*/main", "is no reference"),
        ("git push git.test/o/r refs/heads/\"x", "is no reference"),
        ("git push git.test/o/r  refs/heads/x", "write `git fetch"),
        ("git push git.test/o/r refs/heads/x\n", "control character"),
        ("git push git.test/o/../r refs/heads/x", "is no repository"),
        ("git push git.test/o/\"r refs/heads/x", "is no repository"),
        ("git push git.test/o/r*/x refs/heads/x", "is no repository"),
        ("git push git.test//r refs/heads/x", "is no repository"),
        ("git fetch git.test", "say which repository"),
        ("git fetch https://git.test/o/r", "without `https://`"),
        ("git fetch */o/r", "every host"),
        ("git fetch git.test:0/o/r", "no port"),
        ("install git.test/x", "no path"),
        ("install *", "every host"),
        ("install a b", "write `install host`"),
        ("publish git.test", "say what is published"),
        ("publish git.test/a/../b", "is no package"),
        ("publish git.test/a\"b", "is no package"),
        ("POST git.test/o/r.git/git-receive-pack", "pushes are opened by `git push"),
    ] {
        let mut of = sources(None);
        of.extra_allow = vec![entry.to_owned()];
        let errors = wrong(&of);
        assert!(errors[0].starts_with("BP-POLICY-004"), "{entry}: {errors:?}");
        assert!(errors[0].contains(says), "{entry}: {errors:?}");
    }
}

fn suggested(request: &ActionRequest) -> Suggestion {
    let input = DecisionInput::new(Principal::agent("triage", ""), request.clone());
    let decision = compile(&sources(None)).decide(&input);
    assert_eq!(decision.because, Because::NoRule);
    explain_denial(&decision, request).suggestion.expect("a rule")
}

#[test]
fn the_narrowest_rules_for_git_and_registries() {
    let ports = ", any port";
    let asking = format!(", and asking which references there are{ports}");
    for (request, entry, opens) in [
        (fetch("/o/r"), Some("git fetch git.test/o/r"), format!("cloning and fetching all of git.test/o/r{ports}")),
        (push("/o/r", &[NEW]), Some("git push git.test/o/r refs/heads/agent/x"), format!("creating refs/heads/agent/x in git.test/o/r{asking}")),
        (push("/o/r", &[MOVED]), Some("git force-push git.test/o/r refs/heads/agent/x"), format!("creating, moving (also by force) and deleting refs/heads/agent/x in git.test/o/r{asking}")),
        (push("/o/r", &[NEW, MAIN]), None, "creating refs/heads/agent/x, refs/heads/main in git.test/o/r".to_owned()),
        (unread_push("/o/r"), None, "any change of any reference of git.test/o/r: what is pushed cannot be read".to_owned()),
        (asks("/o/r")[1].clone(), None, "asking which references git.test/o/r has, as every push does first, and changing nothing; `git push git.test/o/r refs/heads/NAME` also opens creating that branch".to_owned()),
        (package("GET", "/x", "package install"), Some("install git.test"), format!("reading everything at git.test, and what installers ask of it; nothing is published{ports}")),
        (package("PUT", "/@me/x", "package publish"), Some("publish git.test/@me/x"), format!("publishing any version of @me/x at git.test{ports}")),
        (package("POST", "/legacy/", "package publish"), Some("POST git.test/legacy/"), format!("POST git.test/legacy/ with any query and body{ports}")),
    ] {
        let got = suggested(&request);
        assert_eq!((got.entry.as_deref(), got.opens), (entry, opens));
    }
}

#[test]
fn every_suggestion_permits_what_was_denied_and_little_else() {
    let all = [
        fetch("/o/r"),
        push("/o/r", &[NEW]),
        push("/o/r", &[MOVED]),
        push("/o/r", &[NEW, MAIN]),
        push("/o/r", &[GONE, ("update", "refs/tags/v1")]),
        push("/o/r", &[]),
        unread_push("/o/r"),
        asks("/o/r")[1].clone(),
        package("GET", "/x", "package install"),
        package("POST", "/-/npm/v1/security/audits", "package install"),
        package("PUT", "/x", "package publish"),
        package("POST", "/legacy/", "package publish"),
        request("POST hooks.test/T1/B2"),
    ];
    for (at, denied) in all.iter().enumerate() {
        let suggestion = suggested(denied);
        let mut with = sources(None);
        with.cedar = Some(("policy.cedar".into(), suggestion.cedar.clone().expect("always")));
        let by_cedar = compile(&with);
        assert_eq!(verdict(&by_cedar, denied.clone()), Verdict::Permit, "{suggestion:?}");
        let by_entry = suggestion.entry.as_ref().map(|entry| set(&[entry], &[], &[]));
        if let Some(set) = &by_entry {
            assert_eq!(verdict(set, denied.clone()), Verdict::Permit, "{suggestion:?}");
        }
        for (other, request) in all.iter().enumerate().filter(|(other, _)| *other != at) {
            let (cedar, entry) = (
                verdict(&by_cedar, request.clone()),
                by_entry.as_ref().map_or(Verdict::Permit, |set| verdict(set, request.clone())),
            );
            assert!(entry <= cedar, "the entry opens at least what its Cedar does: {at} {other}");
        }
    }
}

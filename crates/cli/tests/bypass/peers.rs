//! The same cases against what others use, side by side.
//!
//! A peer decides by host name, so the cases are those in which a host, an address or a channel is
//! not permitted; what is inside a permitted request (paths, methods, framing, secrets) is left out,
//! because no peer claims to look there. Each peer gets the same list of permitted names. A case
//! counts for a sandbox only when its positive control works there. What got through is what the
//! world outside saw: nobody is asked.

use crate::outside::{Found, Opened, Sandbox, Seen, World};
use crate::through;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Addresses that permitted names lead to, and where proxies of the peers listen.
const PERMITTED: [&str; 4] = ["93.184.216.34:", "93.184.216.35:", "93.184.216.36:", "127.0.0.1:"];

/// What became of the cases in one sandbox.
#[derive(Debug, Default)]
pub(crate) struct Score {
    /// Held, got through, without a control that works there; by row of the corpus.
    rows: BTreeMap<char, [usize; 3]>,
    pub(crate) through: Vec<String>,
    why_not: Option<String>,
}

impl Score {
    /// Cases that counted.
    pub(crate) fn counted(&self) -> usize {
        self.rows.values().map(|[held, through, _]| held + through).sum()
    }

    fn cell(&self, row: char) -> String {
        match (&self.why_not, self.rows.get(&row)) {
            (Some(_), _) => "not run".to_owned(),
            (None, Some([held, through, without])) => format!("{held} / {through} / {without}"),
            (None, None) => "-".to_owned(),
        }
    }
}

/// Acts whose success is not seen outside: they reach into the kernel, and no peer speaks of them.
const INWARD: [&str; 7] =
    ["open_socket", "packet", "unshare", "setns", "netlink", "write_file", "read_file"];

/// Whether a case is one that a filter of host names speaks to: it leads to somebody who is not
/// permitted, and shows outside when it gets through.
pub(crate) fn is_common(case: &Value) -> bool {
    let name = case["name"].as_str().unwrap_or_default();
    let row = name.split(' ').next().unwrap_or_default();
    let attack = case["attack"].to_string();
    let inward = INWARD.iter().any(|act| case["attack"]["do"] == *act);
    let permitted = name.contains("to a permitted host") || name.contains("a permitted name at");
    // Where a permitted host is spoken to, another must be meant.
    let meant = ["T1", "T2", "H16", "D13", "N5", "N6"].contains(&row)
        && case["attack"]["do"] != "dns"
        && !(attack.contains("evil") || attack.contains(&crate::hex(b"evil")));
    let speaks = row.starts_with('N')
        || row.starts_with('D')
        || ["T1", "T2", "H16", "H21"].contains(&row) && !name.contains("denied path");
    speaks && row != "N21" && case["own"] != true && !inward && !permitted && !meant
}

fn got_through(case: &Value, found: &Found) -> bool {
    let new = |of: fn(&Seen) -> &Vec<String>| {
        of(&found.between).get(of(&found.before).len()..).unwrap_or_default().to_vec()
    };
    let permitted = |to: &String| PERMITTED.iter().any(|known| to.starts_with(known));
    let own = |name: &String| name.ends_with("ok.test") || name == "internal.evil.test";
    let asked = case["requests"].as_u64().unwrap_or(0);
    found.attack.get("reached").is_some()
        || found.between.requests > found.before.requests + asked
        || !new(|seen| &seen.other).is_empty()
        || !new(|seen| &seen.syn).iter().all(permitted)
        || !new(|seen| &seen.names).iter().all(own)
}

/// Runs the cases in one sandbox.
pub(crate) fn score(sandbox: Sandbox, cases: &[Value]) -> Score {
    let mut score = Score::default();
    let mut world = World::start(&Opened { sandbox, ..Opened::default() }, cases);
    for case in cases {
        let Some(found) = world.next() else {
            score.why_not = Some(format!("it ended early: {}", world.trouble()));
            return score;
        };
        let row = found.name.chars().next().unwrap_or(' ');
        let counts = score.rows.entry(row).or_default();
        if got_through(case, &found) {
            counts[1] += 1;
            score.through.push(found.name);
        } else if through(&found.control, &found.between, &found.after) {
            counts[0] += 1;
        } else {
            counts[2] += 1;
        }
    }
    world.end();
    score
}

fn not_run(why: &str) -> Score {
    Score { why_not: Some(why.to_owned()), ..Score::default() }
}

fn in_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

fn bwrap(cases: &[Value]) -> Score {
    if in_path("bwrap") { score(Sandbox::Bwrap, cases) } else { not_run("bwrap is not installed") }
}

fn srt(cases: &[Value]) -> Score {
    let Some(folder) = std::env::var_os("BEDPLATE_SRT_DIR").map(PathBuf::from) else {
        return not_run("BEDPLATE_SRT_DIR names no installation");
    };
    let cli = folder.join("node_modules/@anthropic-ai/sandbox-runtime/dist/cli.js");
    let missing = ["node", "bwrap", "socat", "rg"].into_iter().find(|name| !in_path(name));
    match missing {
        _ if !cli.is_file() => not_run("it is not installed"),
        Some(name) => not_run(&format!("it wants {name}, which is not installed")),
        None => score(Sandbox::Srt(cli), cases),
    }
}

/// All three, and the table.
pub(crate) fn side_by_side(cases: &[Value]) -> (Vec<(&'static str, Score)>, Vec<String>) {
    let all = vec![
        ("bedplate", score(Sandbox::Bedplate, cases)),
        ("bwrap + proxy", bwrap(cases)),
        ("srt", srt(cases)),
    ];
    let mut lines = vec![format!("{} cases: held / got through / no control there", cases.len())];
    let head: Vec<String> = all.iter().map(|(name, _)| format!("{name:>18}")).collect();
    lines.push(format!("{:42}{}", "", head.join("")));
    for (row, what) in [
        ('N', "addresses, protocols, channels, the host"),
        ('D', "names"),
        ('T', "TLS: who is meant"),
        ('H', "HTTP: who is meant, redirects"),
    ] {
        let cells: Vec<String> = all.iter().map(|(_, s)| format!("{:>18}", s.cell(row))).collect();
        lines.push(format!("{what:42}{}", cells.join("")));
    }
    for (name, score) in &all {
        lines.extend(score.why_not.iter().map(|why| format!("{name} was not run: {why}")));
        lines.extend(score.through.iter().map(|case| format!("through {name}: {case}")));
    }
    (all, lines)
}

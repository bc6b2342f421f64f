//! One fault is put into a run, and `explain` must name the record it came in with. The run does
//! the same every time; only the faulty outcome differs.

use super::explain;
use crate::fixture::{Log, Outcome, manifest, run_id};
use serde_json::json;
use types::{EndStatus, Verdict};

const TOOLS: &str = "
[[tool]]
name = \"station\"
description = \"The elevation of a weather station, in feet.\"
command = [\"./station\"]
effect = \"read\"
[[tool]]
name = \"notify\"
description = \"Tells the field team.\"
command = [\"./notify\"]
effect = \"irreversible\"
[[check]]
name = \"elevations are plausible\"
command = \"python3 check.py report.md\"
";
const INSTRUCTIONS: &str =
    "Ask for the elevation of every station and write report.md with elevations in feet.";

fn survey() -> Log {
    Log::start(manifest(INSTRUCTIONS, TOOLS), "Report on the stations north, east and south.")
}

fn station(log: &mut Log, name: &str, outcome: Outcome) -> u64 {
    log.act("station", json!({ "name": name }), outcome)
}

fn elevation(name: &str, elevation: &str, unit: &str) -> Outcome {
    Outcome::ok(format!("{{\"station\":\"{name}\",\"elevation\":{elevation},\"unit\":\"{unit}\"}}"))
}

fn report(log: &mut Log, content: &str) -> u64 {
    log.act(
        "write_file",
        json!({ "path": "report.md", "content": content }),
        Outcome::wrote("written"),
    )
}

fn finish(log: &mut Log, output: &str) -> u64 {
    log.say("The report is written.");
    let failed = log.check("elevations are plausible", "python3 check.py report.md", false, output);
    let why = ("BP-RUN-006", "the check 'elevations are plausible' did not pass");
    log.end(EndStatus::Failed, "The report is written.", Some(why));
    failed
}

/// The fault's record is the root, and the failed check is what is explained.
fn check(log: &Log, failed: u64, fault: u64) {
    let finding = explain(&log.records, None).finding.expect("a finding");
    assert_eq!(finding.of, failed);
    assert_eq!(finding.root, fault, "{finding:#?}");
}

#[test]
fn a_tool_answers_in_the_wrong_unit_and_the_check_prints_the_value() {
    for (faulty, name) in ["north", "east", "south"].into_iter().enumerate() {
        let values = [("4183", "1275"), ("2517", "767.2"), ("3390", "1033.3")];
        let mut log = survey();
        let mut lines = Vec::new();
        let mut seqs = Vec::new();
        for (index, station_name) in ["north", "east", "south"].into_iter().enumerate() {
            let (feet, metres) = values[index];
            let (value, unit) = if index == faulty { (metres, "m") } else { (feet, "ft") };
            seqs.push(station(&mut log, station_name, elevation(station_name, value, unit)));
            lines.push(format!("- {station_name}: {value} ft"));
        }
        report(&mut log, &lines.join("\n"));
        let output =
            format!("AssertionError: {name}: {} is out of range 1500..5000", values[faulty].1);
        let failed = finish(&mut log, &output);
        check(&log, failed, seqs[faulty]);
    }
}

#[test]
fn a_silent_check_goes_by_the_file_it_reads_and_the_unit_that_does_not_fit() {
    let mut log = survey();
    station(&mut log, "north", elevation("north", "4183", "ft"));
    let fault = station(&mut log, "east", elevation("east", "767.2", "m"));
    station(&mut log, "south", elevation("south", "3390", "ft"));
    let wrote = report(&mut log, "- north: 4183 ft\n- east: 767.2 ft\n- south: 3390 ft");
    let failed = finish(&mut log, "");
    check(&log, failed, fault);
    let finding = explain(&log.records, None).finding.expect("a finding");
    assert!(finding.because.contains("metres"), "{}", finding.because);
    assert!(finding.chain.iter().any(|hop| hop.seq < wrote && hop.seq > fault), "{finding:#?}");
}

#[test]
fn a_value_unlike_its_siblings_stands_out_without_a_unit() {
    let bare = |name: &str, value: &str| {
        Outcome::ok(format!("{{\"station\":\"{name}\",\"elevation\":{value}}}"))
    };
    let mut log = survey();
    station(&mut log, "north", bare("north", "4183"));
    station(&mut log, "east", bare("east", "3517"));
    let fault = station(&mut log, "south", bare("south", "33.91"));
    report(&mut log, "- north: 4183 ft\n- east: 3517 ft\n- south: 33.91 ft");
    let failed = finish(&mut log, "the mean is too low");
    check(&log, failed, fault);
}

#[test]
fn a_value_the_model_converted_goes_back_to_what_it_converted() {
    let mut log = survey();
    station(&mut log, "north", elevation("north", "4183", "ft"));
    let fault = station(&mut log, "east", Outcome::ok("{\"station\":\"east\",\"elevation\":2517}"));
    report(&mut log, "- north: 4183 ft\n- east: 8257.9 ft");
    let failed = finish(&mut log, "east: 8257.9 is out of range");
    check(&log, failed, fault);
    let because = explain(&log.records, None).finding.expect("a finding").because;
    assert!(because.contains("metres and feet"), "{because}");
}

#[test]
fn a_failed_call_that_the_agent_passed_over_is_the_root() {
    let mut log = survey();
    station(&mut log, "north", elevation("north", "4183", "ft"));
    let fault = station(&mut log, "east", Outcome::failed("connection timed out"));
    report(&mut log, "- north: 4183 ft\n- east: 9999.5 ft (estimated)");
    let failed = finish(&mut log, "east: 9999.5 is out of range");
    check(&log, failed, fault);
}

#[test]
fn a_denial_that_the_agent_passed_over_is_the_root() {
    let mut log = survey();
    station(&mut log, "north", elevation("north", "4183", "ft"));
    let action = log.call("station", json!({ "name": "east" }));
    let fault = log.decide(Some(action), Verdict::Deny, Vec::new(), "no rule permits it");
    report(&mut log, "- north: 4183 ft\n- east: 7777.7 ft");
    let failed = finish(&mut log, "east: 7777.7 is out of range");
    check(&log, failed, fault);
}

#[test]
fn an_invented_value_goes_back_to_the_answer_that_invented_it() {
    let mut log = survey();
    station(&mut log, "north", elevation("north", "4183", "ft"));
    let outcome = report(&mut log, "- north: 4183 ft\n- east: 6543.2 ft");
    let failed = finish(&mut log, "east: 6543.2 was never asked for");
    let finding = explain(&log.records, None).finding.expect("a finding");
    assert_eq!(finding.of, failed);
    let answer = log
        .records
        .iter()
        .rev()
        .find(|r| r.stamp.seq < outcome && r.body.kind() == "model_answered");
    assert_eq!(finding.root, answer.expect("an answer").stamp.seq, "{finding:#?}");
}

#[test]
fn a_wrong_input_file_is_the_outcome_that_read_it() {
    let mut log = survey();
    let read = log.act(
        "shell",
        json!({ "command": "cat elevations.csv" }),
        Outcome::ok("north,4183\neast,76721\n"),
    );
    report(&mut log, "- north: 4183 ft\n- east: 76721 ft");
    let failed = finish(&mut log, "east: 76721 is out of range");
    check(&log, failed, read);
}

#[test]
fn a_wrong_program_of_the_agent_is_where_its_output_goes_back_to() {
    let mut log = survey();
    let action = log
        .call("write_file", json!({ "path": "mean.py", "content": "print(total / n * 3.28084)" }));
    let wrote = log.perform(action, Outcome::wrote("written"));
    log.act(
        "shell",
        json!({ "command": "python3 mean.py > report.md; cat report.md" }),
        Outcome::wrote("mean 13723.8"),
    );
    let failed = finish(&mut log, "mean 13723.8 is out of range");
    let finding = explain(&log.records, None).finding.expect("a finding");
    assert_eq!(finding.of, failed);
    assert!(finding.root < wrote && finding.root > 1, "{finding:#?}");
    assert_eq!(log.records[finding.root as usize].body.kind(), "model_answered");
}

#[test]
fn a_clean_run_has_nothing_to_blame() {
    let mut log = survey();
    station(&mut log, "north", elevation("north", "4183", "ft"));
    report(&mut log, "- north: 4183 ft");
    log.say("Done.");
    log.check("elevations are plausible", "python3 check.py report.md", true, "");
    log.end(EndStatus::Done, "Done.", None);
    assert_eq!(explain(&log.records, None).finding, None);
}

#[test]
fn any_record_can_be_asked_about() {
    let mut log = survey();
    let source = station(&mut log, "north", elevation("north", "4183", "ft"));
    let outcome = report(&mut log, "- north: 4183 ft");
    for seq in 0..log.records.len() as u64 {
        let finding = explain(&log.records, Some(seq)).finding.expect("a finding");
        assert!(finding.of == seq && finding.root <= seq, "{finding:#?}");
    }
    let proposed = outcome - 4;
    assert_eq!(log.records[proposed as usize].body.kind(), "action_proposed");
    assert_eq!(explain(&log.records, Some(proposed)).finding.expect("a finding").root, source);
}

#[test]
fn the_whole_text_reads_well() {
    let mut log = survey();
    station(&mut log, "north", elevation("north", "4183", "ft"));
    station(&mut log, "east", elevation("east", "767.2", "m"));
    report(&mut log, "- north: 4183 ft\n- east: 767.2 ft\u{202e}");
    let action = log.call("notify", json!({ "text": "done" }));
    let decided =
        log.decide(Some(action), Verdict::Ask, vec!["permissions.ask[0]".to_owned()], "asked");
    let asked = log.push(
        types::Body::ApprovalAsked {
            action,
            shown: "notify {\"text\": \"done\"}".to_owned(),
            bound: types::Digest::ZERO,
            expires_ms: 1_778_493_600_000,
            needs: 1,
        },
        &[(types::Link::DecidedBy, decided)],
    );
    let given = types::Body::ApprovalGiven {
        asked,
        verdict: types::ApprovalVerdict::Approved,
        by: "ada".to_owned(),
        reason: String::new(),
        through: String::new(),
        opens: Vec::new(),
    };
    log.push(given, &[(types::Link::ResultOf, asked)]);
    let decided = log.decide(
        Some(action),
        Verdict::Permit,
        vec!["permissions.ask[0]".to_owned()],
        "permitted",
    );
    log.happen(action, decided, Outcome::ok("{\"sent\": true}"));
    finish(&mut log, "AssertionError: east: 767.2 is out of range 1500..5000");
    let explanation = explain(&log.records, None);
    insta::assert_snapshot!(super::text(&run_id(), &log.records, &explanation));
}

#[test]
fn a_silent_check_after_a_passed_over_failure_goes_back_to_the_failure() {
    let mut log = survey();
    station(&mut log, "north", elevation("north", "4183", "ft"));
    let fault = station(&mut log, "east", Outcome::failed("connection timed out"));
    report(&mut log, "- north: 4183 ft\n- east: 9999.5 ft");
    let failed = finish(&mut log, "");
    check(&log, failed, fault);
}

#[test]
fn a_failure_long_passed_over_is_found_by_what_it_was_about() {
    let mut log = survey();
    let fault = station(&mut log, "east", Outcome::failed("connection timed out"));
    station(&mut log, "north", elevation("north", "4183", "ft"));
    station(&mut log, "south", elevation("south", "3390", "ft"));
    report(&mut log, "- north: 4183 ft\n- east: 9999.5 ft\n- south: 3390 ft");
    let failed = finish(&mut log, "east: 9999.5 is out of range");
    check(&log, failed, fault);
}

#[test]
fn a_rounded_value_goes_back_to_the_exact_one() {
    let mut log = survey();
    station(&mut log, "north", elevation("north", "4183", "ft"));
    let fault = station(&mut log, "east", elevation("east", "767.2", "m"));
    report(&mut log, "- north: 4183 ft\n- east: 767 ft");
    let failed = finish(&mut log, "east: 767 is out of range");
    check(&log, failed, fault);
}

#[test]
fn a_right_value_in_the_message_does_not_take_the_blame() {
    let mut log = survey();
    let ceiling = Outcome::ok("{\"station\":\"north\",\"elevation\":12417,\"unit\":\"ft\"}");
    station(&mut log, "north", ceiling);
    let fault = station(&mut log, "east", elevation("east", "3784.7", "m"));
    report(&mut log, "- north: 12417 ft\n- east: 3784.7 ft");
    let failed = finish(&mut log, "both stations should be at 12417");
    check(&log, failed, fault);
}

#[test]
fn a_denied_write_is_why_there_is_nothing_to_check() {
    let mut log = survey();
    station(&mut log, "north", elevation("north", "4183", "ft"));
    let action =
        log.call("write_file", json!({ "path": "report.md", "content": "- north: 4183 ft" }));
    let fault = log.decide(Some(action), Verdict::Deny, Vec::new(), "no rule permits it");
    let failed = finish(&mut log, "");
    check(&log, failed, fault);
}

/// A sequence of numbers that looks random and is the same every time.
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// How the check of a generated run speaks.
const OUTPUTS: [fn(&str, &str) -> String; 4] = [
    |name, value| format!("AssertionError: {name}: {value} is out of range"),
    |_, value| {
        format!(
            "Traceback (most recent call last):\n  File \"check.py\", line 7\nValueError: {value}"
        )
    },
    |name, _| format!("{name} is implausible"),
    |_, _| String::new(),
];

/// A survey of some stations, one of which answers in metres, and the record of that.
fn generated(seed: u64) -> (Log, u64, u64) {
    const NAMES: [&str; 6] = ["north", "east", "south", "west", "ridge", "valley"];
    let mut sequence = Sequence(seed);
    let count = 2 + sequence.below(5) as usize;
    let faulty = sequence.below(count as u64) as usize;
    let mut log = survey();
    let (mut lines, mut fault, mut faulty_value) = (Vec::new(), 0, String::new());
    for (index, name) in NAMES.into_iter().take(count).enumerate() {
        let feet = 1_500 + sequence.below(6_000);
        let value =
            if index == faulty { format!("{:.1}", feet as f64 * 0.3048) } else { feet.to_string() };
        let unit = if index == faulty { "m" } else { "ft" };
        let seq = station(&mut log, name, elevation(name, &value, unit));
        if index == faulty {
            (fault, faulty_value) = (seq, value.clone());
        }
        if sequence.below(3) == 0 {
            log.act(
                "shell",
                json!({ "command": "ls -l" }),
                Outcome::ok("total 4\n-rw-r--r-- 1 agent agent 120 notes.txt\n"),
            );
        }
        lines.push(format!("- {name}: {value} ft"));
    }
    report(&mut log, &lines.join("\n"));
    let speak = OUTPUTS[sequence.below(OUTPUTS.len() as u64) as usize];
    let failed = finish(&mut log, &speak(NAMES[faulty], &faulty_value));
    (log, failed, fault)
}

#[test]
fn five_hundred_runs_with_one_fault_each_go_back_to_it() {
    let wrong: Vec<u64> = (0..500)
        .filter(|seed| {
            let (log, failed, fault) = generated(*seed);
            let finding = explain(&log.records, None).finding.expect("a finding");
            finding.of != failed || finding.root != fault
        })
        .collect();
    assert!(wrong.is_empty(), "{} of 500 name another record: {wrong:?}", wrong.len());
}

#[test]
fn a_log_cut_anywhere_is_explained_too() {
    let (log, _, _) = generated(7);
    for count in 1..=log.records.len() {
        let records = &log.records[..count];
        let explanation = explain(records, None);
        assert!(!super::text(&run_id(), records, &explanation).is_empty());
        let at = count as u64 - 1;
        let finding = explain(records, Some(at)).finding.expect("a finding");
        assert!(finding.root <= at, "{finding:#?}");
        assert_eq!(crate::show::records(records).len(), count);
    }
}

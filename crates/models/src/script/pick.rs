//! Which turn answers: a function of the conversation alone.
//!
//! Every earlier answer used up a turn. For each, in order, and then for the one to come: the first
//! turn of the file whose `when` text occurs in what came last before it; else the next turn
//! without `when`.

use super::Script;

/// One step of a conversation as the script sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A user's message or a tool's result.
    Said(String),
    /// An answer of the model, whatever it was.
    Answered,
}

/// The turn that comes now; `None` when the script is exhausted.
pub(super) fn pick(script: &Script, steps: &[Step]) -> Option<usize> {
    let mut unconditional = script
        .turns
        .iter()
        .enumerate()
        .filter(|(_, turn)| turn.contains.is_none())
        .map(|(at, _)| at);
    let mut last: Vec<&str> = Vec::new();
    for step in steps {
        match step {
            Step::Said(text) => last.push(text),
            Step::Answered => {
                if conditional(script, &last).is_none() {
                    unconditional.next();
                }
                last.clear();
            }
        }
    }
    conditional(script, &last).or_else(|| unconditional.next())
}

fn conditional(script: &Script, last: &[&str]) -> Option<usize> {
    script.turns.iter().position(|turn| {
        let contains = turn.contains.as_deref();
        contains.is_some_and(|wanted| last.iter().any(|text| text.contains(wanted)))
    })
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    const TEXT: &str = r#"
[[turn]]
text = "0"
[[turn]]
text = "1"
when = { contains = "denied" }
[[turn]]
text = "2"
[[turn]]
text = "3"
when = { contains = "denied by" }
"#;

    /// Steps are `>text` for what was said and `<` for an answer.
    fn check(steps: &[&str], expected: Option<usize>) {
        let script = parse(TEXT, "t").expect("good");
        let steps: Vec<Step> = steps
            .iter()
            .map(|step| match step.strip_prefix('>') {
                Some(text) => Step::Said(text.to_owned()),
                None => Step::Answered,
            })
            .collect();
        assert_eq!(pick(&script, &steps), expected, "{steps:?}");
    }

    #[test]
    fn turns_come_in_order_and_when_interrupts() {
        check(&[], Some(0));
        check(&[">go"], Some(0));
        check(&[">go", "<", ">ok"], Some(2));
        check(&[">go", "<", ">ok", "<", ">ok"], None);
        check(&[">go", "<", ">denied"], Some(1));
        check(&[">go", "<", ">denied", "<", ">ok"], Some(2));
        check(&[">go", "<", ">denied", "<", ">denied"], Some(1));
        check(&[">denied", "<", ">ok"], Some(0));
        check(&[">go", "<", ">denied by rule"], Some(1));
        check(&[">go", "<", ">one", ">denied", ">two"], Some(1));
        check(&[">denied", "<", ">ok", "<", ">ok", "<"], None);
    }
}

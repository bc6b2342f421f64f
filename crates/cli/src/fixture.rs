//! Recorded runs for tests: records as the runtime writes them, made by hand, at fixed times.

use serde_json::{Value, json};
use types::manifest::{self, Manifest};
use types::{
    ActionId, ActionRequest, Actor, BRANCH_MAIN, Body, Carried, Cause, Digest, EffectClass, Item,
    Labels, LayerId, Link, OutcomeStatus, Output, Record, RunId, Stamp, Usage, Usd, Verdict,
};

/// When every recorded run began: 2026-05-04 10:00:00 UTC.
const BEGUN_MS: u64 = 1_777_888_800_000;

/// A log in the making.
pub(crate) struct Log {
    pub(crate) records: Vec<Record>,
    calls: u64,
    answered: u64,
    layer: u8,
    items: u64,
}

/// The run of every fixture.
pub(crate) fn run_id() -> RunId {
    RunId::parse("k3f9x2m8q1zt").expect("an id")
}

fn layer_id(number: u8) -> LayerId {
    LayerId::from_random([0, 0, 0, 0, 0, 0, 0, number])
}

/// A manifest with a scripted model, these further lines, and this instruction.
pub(crate) fn manifest(instructions: &str, more: &str) -> Manifest {
    let instructions = toml_edit::Value::from(instructions);
    let text = format!(
        "schema = 1\n[agent]\nname = \"surveyor\"\ninstructions = {instructions}\nmodel = \"default\"\n\
         [routes]\ndefault = [\"script/turns.toml\"]\n{more}"
    );
    manifest::parse(&text).expect("a manifest")
}

/// How a call came out.
pub(crate) struct Outcome {
    pub(crate) status: OutcomeStatus,
    pub(crate) text: String,
    /// It changed the workspace.
    pub(crate) changed: bool,
}

impl Outcome {
    pub(crate) fn ok(text: impl Into<String>) -> Self {
        Self { status: OutcomeStatus::Ok, text: text.into(), changed: false }
    }

    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self { status: OutcomeStatus::Failed, text: text.into(), changed: false }
    }

    pub(crate) fn wrote(text: impl Into<String>) -> Self {
        Self { changed: true, ..Self::ok(text) }
    }
}

impl Log {
    /// A run that was asked for `input`.
    pub(crate) fn start(manifest: Manifest, input: &str) -> Self {
        let mut log = Self { records: Vec::new(), calls: 0, answered: 0, layer: 1, items: 0 };
        log.push(
            Body::RunStarted {
                manifest: Box::new(manifest),
                dir: Some("/home/ada/survey".to_owned()),
                workspace: Some("/home/ada/survey/data".to_owned()),
                base: layer_id(1),
                started_by: "ada".to_owned(),
                host: json!({ "driver": "process" }),
                memory: None,
            },
            &[],
        );
        log.push(Body::ItemAdded { item: Item::UserMessage { text: input.to_owned() } }, &[]);
        log.items = 1;
        log
    }

    /// Appends a record, 100 ms after the one before.
    pub(crate) fn push(&mut self, body: Body, causes: &[(Link, u64)]) -> u64 {
        let seq = self.records.len() as u64;
        let prev = self.records.last().map_or(Digest::ZERO, |record| record.digest);
        self.records.push(Record {
            stamp: Stamp {
                run: run_id(),
                branch: BRANCH_MAIN,
                seq,
                time_ms: BEGUN_MS + seq * 100,
                mono_ms: seq * 100,
                boot: 1,
            },
            prev,
            digest: Digest::of(&seq.to_be_bytes()),
            causes: causes.iter().map(|(link, seq)| Cause { link: *link, seq: *seq }).collect(),
            actor: Actor {
                agent: "surveyor".to_owned(),
                on_behalf_of: "ada".to_owned(),
                team: String::new(),
            },
            body,
        });
        seq
    }

    /// The model is called and answers with these items.
    pub(crate) fn answer(&mut self, items: Vec<Item>) -> u64 {
        let decided = self.permit(None);
        let called = self.push(
            Body::ModelCalled {
                hop: 0,
                attempt: 1,
                route: "default".to_owned(),
                provider: "script".to_owned(),
                model: "turns.toml".to_owned(),
                purpose: "act".to_owned(),
                items: self.items,
                prefix: Digest::ZERO,
                encoder: 1,
                request: Digest::ZERO,
                request_bytes: 2_048,
                approved: None,
            },
            &[(Link::DecidedBy, decided)],
        );
        self.items += items.len() as u64;
        self.answered = self.push(
            Body::ModelAnswered {
                items,
                usage: Usage { input_tokens: 100, output_tokens: 20, ..Usage::default() },
                cost: Usd::ZERO,
                decoder: 1,
                error: None,
                restored: Vec::new(),
            },
            &[(Link::ResultOf, called)],
        );
        self.answered
    }

    /// The model says something.
    pub(crate) fn say(&mut self, text: &str) -> u64 {
        self.answer(vec![Item::AssistantMessage { text: text.to_owned() }])
    }

    /// The model calls a tool; gives the proposed action.
    pub(crate) fn call(&mut self, tool: &str, arguments: Value) -> ActionId {
        self.calls += 1;
        let call_id = format!("call{}", self.calls);
        let item = Item::ToolCall {
            call_id: call_id.clone(),
            name: tool.to_owned(),
            arguments: arguments.clone(),
        };
        let answered = self.answer(vec![item]);
        let effect = self.effect(tool);
        let requests = vec![request(tool, &arguments, effect)];
        let body = Body::ActionProposed { call_id, tool: tool.to_owned(), effect, requests };
        self.push(body, &[(Link::AskedIn, answered)])
    }

    fn effect(&self, tool: &str) -> EffectClass {
        let Body::RunStarted { manifest, .. } = &self.records[0].body else { unreachable!() };
        let own = manifest.tools.iter().find(|command| command.name == tool);
        let builtin = if tool == "read_file" { EffectClass::Read } else { EffectClass::Workspace };
        own.map_or(builtin, |command| command.effect)
    }

    fn permit(&mut self, action: Option<ActionId>) -> u64 {
        let policies = vec!["permissions.preset: observe".to_owned()];
        self.decide(action, Verdict::Permit, policies, "permitted")
    }

    /// Policy answers.
    pub(crate) fn decide(
        &mut self,
        action: Option<ActionId>,
        verdict: Verdict,
        policies: Vec<String>,
        reason: &str,
    ) -> u64 {
        let body = Body::DecisionMade {
            action,
            verdict,
            approved: false,
            policies,
            reason: reason.to_owned(),
            policy_set: Digest::ZERO,
            input: Digest::ZERO,
            carried: Carried::default(),
        };
        let causes: Vec<_> = action.map(|id| (Link::ResultOf, id)).into_iter().collect();
        if verdict == Verdict::Deny {
            self.items += 1;
        }
        self.push(body, &causes)
    }

    /// A permitted action happens; gives the record of its outcome.
    pub(crate) fn perform(&mut self, action: ActionId, outcome: Outcome) -> u64 {
        let decided = self.permit(Some(action));
        self.happen(action, decided, outcome)
    }

    /// An action happens by this decision.
    pub(crate) fn happen(&mut self, action: ActionId, decided: u64, outcome: Outcome) -> u64 {
        let started = self.push(
            Body::ActionStarted {
                action,
                attempt: 1,
                key: "00112233445566778899aabbccddeeff".to_owned(),
                epoch: 1,
                layer: layer_id(self.layer),
            },
            &[(Link::DecidedBy, decided)],
        );
        if outcome.changed {
            let parent = layer_id(self.layer);
            self.layer += 1;
            let body = Body::LayerSealed { layer: layer_id(self.layer), parent, changed: 1 };
            self.push(body, &[(Link::ResultOf, started)]);
        }
        self.items += 1;
        let exit = match outcome.status {
            OutcomeStatus::Ok => Some(0),
            OutcomeStatus::Failed => Some(1),
            _ => None,
        };
        self.push(
            Body::ActionFinished {
                action,
                attempt: 1,
                status: outcome.status,
                exit,
                output: Output {
                    bytes: outcome.text.len() as u64,
                    text: outcome.text,
                    artifact: None,
                },
                layer: layer_id(self.layer),
                took_ms: 420,
                labels: Labels::none(),
                as_of: None,
            },
            &[(Link::ResultOf, started)],
        )
    }

    /// The model calls a tool, and it comes out so; gives the record of the outcome.
    pub(crate) fn act(&mut self, tool: &str, arguments: Value, outcome: Outcome) -> u64 {
        let action = self.call(tool, arguments);
        self.perform(action, outcome)
    }

    /// The agent is done, and a check of the manifest comes out so; gives its record.
    pub(crate) fn check(&mut self, name: &str, command: &str, passed: bool, output: &str) -> u64 {
        let answered = self.answered;
        let decided =
            self.decide(None, Verdict::Permit, vec![format!("check[0]: {name}")], "permitted");
        let started = self.push(
            Body::CheckStarted { name: name.to_owned(), command: command.to_owned() },
            &[(Link::DecidedBy, decided), (Link::AskedIn, answered)],
        );
        let output = Output { text: output.to_owned(), bytes: output.len() as u64, artifact: None };
        let name = name.to_owned();
        let body = match passed {
            true => Body::CheckPassed { name, output },
            false => Body::CheckFailed { name, exit: Some(1), output },
        };
        self.push(body, &[(Link::ResultOf, started)])
    }

    /// The run ends.
    pub(crate) fn end(
        &mut self,
        status: types::EndStatus,
        output: &str,
        why: Option<(&str, &str)>,
    ) {
        let error = why.map(|(code, message)| types::Failure {
            code: code.to_owned(),
            message: message.to_owned(),
            next: "Read it with `bedplate explain RUN`.".to_owned(),
        });
        let answered = self.answered;
        let body = Body::RunEnded { status, output: output.to_owned(), error };
        self.push(body, &[(Link::ResultOf, answered)]);
    }
}

fn request(tool: &str, arguments: &Value, effect: EffectClass) -> ActionRequest {
    match tool {
        "shell" => ActionRequest::RunCommand {
            tool: tool.to_owned(),
            command: arguments["command"].as_str().unwrap_or_default().to_owned(),
        },
        "read_file" | "write_file" | "edit_file" => ActionRequest::Path {
            access: if tool == "read_file" {
                types::FsAccess::Read
            } else {
                types::FsAccess::Write
            },
            path: format!("/workspace/{}", arguments["path"].as_str().unwrap_or_default()),
        },
        _ => {
            ActionRequest::CallTool { tool: tool.to_owned(), arguments: arguments.clone(), effect }
        }
    }
}

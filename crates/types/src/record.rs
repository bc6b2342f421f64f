//! Records: the entries of the log, as values.
//!
//! A record's header (run, branch, number, time, kind, causes) is plain; its actor, body and
//! attachments are committed to by salted digests and stored encrypted, so that content can be
//! erased while every proof holds. How it is committed to is the `ledger`'s business.
//!
//! Kinds may be added; none is ever given another meaning.

use crate::manifest::Dialect;
use crate::{
    ActionId, ActionRequest, ApprovalId, AsOf, BranchId, Carried, Digest, EffectClass, Failure,
    Item, Labels, LayerId, PrivacyFound, Restored, RunId, Step, Treatment, Usage, Usd, Verdict,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Version of the record format written by this build.
pub const SCHEMA_VERSION: u16 = 1;

/// Who acts, and for whom.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The agent's name.
    pub agent: String,
    /// The person it acts for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub on_behalf_of: String,
    /// The team, empty when none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub team: String,
}

/// How a record follows from an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// This is the outcome of that.
    ResultOf,
    /// That decision let this happen, or forbade it.
    DecidedBy,
    /// That approval let this happen.
    ApprovedBy,
    /// This tries that again.
    RetryOf,
    /// This goes on from that.
    ResumedFrom,
    /// This branch or run began there.
    ForkedFrom,
    /// This undoes that.
    Compensates,
    /// This was asked for in that (a tool call in a model's answer, an item in a request).
    AskedIn,
}

/// A typed link to an earlier record of the same branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// How.
    pub link: Link,
    /// The earlier record's number.
    pub seq: u64,
}

/// Where and when a record stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Its run.
    pub run: RunId,
    /// Its branch.
    pub branch: BranchId,
    /// Its number, from 0.
    pub seq: u64,
    /// Wall time, milliseconds since 1970; never goes back within a run.
    pub time_ms: u64,
    /// Monotonic time in milliseconds since `boot`.
    pub mono_ms: u64,
    /// Which boot the monotonic time belongs to: the first 8 bytes of the kernel's boot id.
    pub boot: u64,
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Where and when.
    #[serde(flatten)]
    pub stamp: Stamp,
    /// Digest of the record before, [`Digest::ZERO`] for the first.
    pub prev: Digest,
    /// Its own digest.
    pub digest: Digest,
    /// What it follows from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// Who acts.
    pub actor: Actor,
    /// What is recorded.
    #[serde(flatten)]
    pub body: Body,
}

/// Output of a command or tool as the model sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Text for the model: all of it, or a preview that says so.
    pub text: String,
    /// Bytes produced in all.
    pub bytes: u64,
    /// Where all of it is kept when `text` is a preview: its digest. The bytes are the record's
    /// attachment `output`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Digest>,
}

/// How an action ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeStatus {
    /// It did what it should.
    Ok,
    /// It ran and reported failure.
    Failed,
    /// It passed its time limit and was killed.
    TimedOut,
    /// It was killed by a limit or by cancellation.
    Killed,
    /// It could not be started.
    NotStarted,
}

/// What a person (or nobody) said to an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalVerdict {
    /// Do it, once.
    Approved,
    /// Do not.
    Denied,
    /// Nobody answered in time.
    Expired,
}

/// What became of an action in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// It happened.
    Happened,
    /// It did not happen.
    NotHappened,
    /// Nobody knows; go on without it.
    Abandoned,
}

/// Who resolved it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResolvedBy {
    /// The tool's probe.
    Probe,
    /// A person.
    Person(String),
}

/// What a timer is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimerPurpose {
    /// Call the model again.
    ModelRetry,
    /// Try this action again.
    ActionRetry(ActionId),
    /// The agent waits: this action ends when it fires.
    Wait(ActionId),
    /// This approval expires.
    ApprovalExpiry(ApprovalId),
}

/// Why a run cannot go on by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitReason {
    /// No model of the route answers.
    Model,
    /// A person asked for it.
    Person,
    /// Something the run needs is missing on this host.
    Host,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndStatus {
    /// The agent finished and every check passed.
    Done,
    /// It cannot go on, or a check failed.
    Failed,
    /// A person cancelled it.
    Cancelled,
}

const fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_one(count: &u32) -> bool {
    *count == 1
}

/// One of several tries at a task from one world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Which, from 0.
    pub number: u32,
    /// What its programs may take their randomness from.
    pub seed: u64,
}

/// What was kept of an answer, for runs that replay it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// All of it; so many bytes of the attachment `answer`.
    Whole(u64),
    /// Nothing; why.
    Nothing(String),
}

/// What a record says. The variant's name is the record's kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Body {
    /// First record of every run.
    RunStarted {
        /// The manifest as read, overlays applied.
        manifest: Box<crate::manifest::Manifest>,
        /// Directory of the manifest on the host; where command tools run. Absent for a run made
        /// on the spot.
        dir: Option<String>,
        /// Directory on the host that the base layer was made from.
        workspace: Option<String>,
        /// The base layer.
        base: LayerId,
        /// Who started it.
        started_by: String,
        /// Facts about the host that bear on it: driver, strength of limits.
        host: Value,
        /// The agent's memory, when it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        memory: Option<Box<crate::MemoryStart>>,
    },
    /// First record of its own of a run that was forked: all before it is shared with another run.
    /// What was in flight there, asked there or permitted to that run alone is not this run's.
    Forked {
        /// The run it was forked from.
        origin: RunId,
        /// The last record that both have.
        at: u64,
        /// Who forked it.
        by: String,
        /// Which attempt of a rollout it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attempt: Option<Attempt>,
    },
    /// An item joined the conversation.
    ItemAdded {
        /// The item.
        item: Item,
    },
    /// A model is about to be called.
    ModelCalled {
        /// Which entry of the route, from 0.
        hop: u32,
        /// Which attempt at this hop, from 1.
        attempt: u32,
        /// The route's name.
        route: String,
        /// Provider's name.
        provider: String,
        /// Model's name.
        model: String,
        /// What for: `act`.
        purpose: String,
        /// Number of items sent, from the first.
        items: u64,
        /// Digest of the request's prefix: the items of the call before.
        prefix: Digest,
        /// Version of the encoder.
        encoder: u16,
        /// Digest of the bytes sent.
        request: Digest,
        /// Number of bytes sent.
        request_bytes: u64,
        /// The record that asked, when this spends its approval.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        approved: Option<u64>,
    },
    /// A model answered, or failed to. The provider's bytes are the attachment `raw`.
    ModelAnswered {
        /// The answer's items, empty on failure.
        items: Vec<Item>,
        /// Tokens used.
        usage: Usage,
        /// What it cost.
        cost: Usd,
        /// Version of the decoder.
        decoder: u16,
        /// Why there is no answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<ModelFault>,
        /// Where values were put back for pseudonyms.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        restored: Vec<Restored>,
    },
    /// What the privacy router found in a request to a model, and what it did. Before the decision
    /// about the call. New pseudonyms are the attachment `pseudonyms`. Without this record, nothing
    /// was found.
    PrivacyChecked {
        /// The route's name.
        route: String,
        /// Provider's name.
        provider: String,
        /// Model's name.
        model: String,
        /// Whether the provider is on this machine.
        local: bool,
        /// Digest of the request as it would be sent; none when it cannot be.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request: Option<Digest>,
        /// What was found, by kind.
        found: Vec<PrivacyFound>,
        /// The strictest of what was done.
        treatment: Treatment,
        /// What the context is labelled with from here on.
        #[serde(default, skip_serializing_if = "Labels::is_empty")]
        labels: Labels,
    },
    /// A person is asked about a model call.
    ModelAsked {
        /// Provider's name.
        provider: String,
        /// Model's name.
        model: String,
        /// What is shown: every value found, marked, with what stands around it.
        shown: String,
        /// Digest of the request's bytes, which an approval is bound to.
        bound: Digest,
        /// When it expires, wall milliseconds.
        expires_ms: u64,
    },
    /// The model asked for an action.
    ActionProposed {
        /// The call in the conversation.
        call_id: String,
        /// The tool's name.
        tool: String,
        /// Its effect class.
        effect: EffectClass,
        /// What policy is asked: all must be permitted. The arguments are the item's.
        requests: Vec<ActionRequest>,
    },
    /// Policy answered.
    DecisionMade {
        /// The action; absent for the model call or check that comes next.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        action: Option<ActionId>,
        /// What it said.
        verdict: Verdict,
        /// Whether an approval was taken into account.
        approved: bool,
        /// Ids of the policies that decided, empty when no rule matched.
        policies: Vec<String>,
        /// Why, for people.
        reason: String,
        /// Digest of the policy set.
        policy_set: Digest,
        /// Digest of what was asked, context included.
        input: Digest,
        /// What it carried.
        carried: Carried,
    },
    /// A person is asked.
    ApprovalAsked {
        /// The action.
        action: ActionId,
        /// Exactly what is shown.
        shown: String,
        /// Digest of the action that an approval is bound to.
        bound: Digest,
        /// When it expires, wall milliseconds.
        expires_ms: u64,
        /// How many people must approve.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        needs: u32,
    },
    /// A person answered, or nobody did.
    ApprovalGiven {
        /// The record that asked.
        asked: u64,
        /// What was said.
        verdict: ApprovalVerdict,
        /// Who.
        by: String,
        /// Why, when denied.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
        /// The login that brought the answer, when it spoke for somebody else.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        through: String,
        /// Entries that stay approved for the rest of the run; none for this once.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        opens: Vec<String>,
    },
    /// What an approval opened for the rest of the run is closed again.
    ApprovalRevoked {
        /// The record that asked.
        asked: u64,
        /// Who.
        by: String,
    },
    /// Intent: the action is about to happen.
    ActionStarted {
        /// The action.
        action: ActionId,
        /// Which attempt, from 1.
        attempt: u32,
        /// Idempotency key, the same for every attempt.
        key: String,
        /// The run's epoch: a later owner's is higher.
        epoch: u64,
        /// The workspace before.
        layer: LayerId,
    },
    /// Outcome.
    ActionFinished {
        /// The action.
        action: ActionId,
        /// Which attempt.
        attempt: u32,
        /// How it ended.
        status: OutcomeStatus,
        /// Exit status of a command.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit: Option<i32>,
        /// What the model is told.
        output: Output,
        /// The workspace after.
        layer: LayerId,
        /// How long it took, milliseconds.
        took_ms: u64,
        /// Where the output came from.
        #[serde(default, skip_serializing_if = "Labels::is_empty")]
        labels: Labels,
        /// What a command tool's result says about its age, when the manifest says where.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        as_of: Option<AsOf>,
    },
    /// Nobody knows whether the action happened.
    ActionInDoubt {
        /// The action.
        action: ActionId,
        /// The attempt in doubt.
        attempt: u32,
        /// Why.
        reason: String,
    },
    /// It is known now.
    ActionResolved {
        /// The action.
        action: ActionId,
        /// What became of it.
        resolution: Resolution,
        /// Who says so.
        by: ResolvedBy,
        /// The result to give the model.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<Value>,
    },
    /// The model has read these outcomes: its answer to a request that carried them is recorded.
    Delivered {
        /// The actions.
        actions: Vec<ActionId>,
    },
    /// A new layer.
    LayerSealed {
        /// The layer.
        layer: LayerId,
        /// What it stands on.
        parent: LayerId,
        /// Files changed in it.
        changed: u64,
    },
    /// A new layer of the run's memory.
    MemorySealed {
        /// The layer.
        layer: LayerId,
        /// What it stands on.
        parent: LayerId,
        /// Files changed in it.
        changed: u64,
    },
    /// The run is about to bring what it changed in its memory to what others see of it.
    MemoryOffered {
        /// The run's tree.
        layer: LayerId,
        /// Who asked for it; empty for the run's own end.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        by: String,
    },
    /// What the run changed in its memory is there for the runs to come.
    MemoryMerged {
        /// The version that has it.
        version: u64,
        /// Its tree, which the run goes on with.
        layer: LayerId,
        /// Paths that it changed.
        changed: u64,
    },
    /// What the run changed in its memory was not brought there; the run keeps it.
    MemoryRefused {
        /// Why.
        failure: Failure,
        /// Paths that both changed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        conflicts: Vec<String>,
    },
    /// The workspace went back; with `at`, the whole run did.
    RolledBack {
        /// To this layer.
        to: LayerId,
        /// Why.
        reason: String,
        /// The record after which the run is as it was. What it spent, what it may do by itself and
        /// what it sent stays. Absent when only the workspace went back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<u64>,
        /// Who did it, when a person did.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        by: String,
    },
    /// A person gave this moment of the run a name. Its layer is on the disk from here on.
    SnapshotTaken {
        /// The name, which no other snapshot of the run has.
        name: String,
        /// The workspace.
        layer: LayerId,
        /// Who.
        by: String,
    },
    /// A live owner left the run, or it cannot go on alone.
    Suspended {
        /// Why.
        reason: WaitReason,
        /// Details.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
    },
    /// An owner took the run up. What was in flight before is interrupted.
    Resumed {
        /// Higher than every epoch before.
        epoch: u64,
    },
    /// A timer was set.
    TimerSet {
        /// When it fires, wall milliseconds.
        due_ms: u64,
        /// What for.
        purpose: TimerPurpose,
    },
    /// It fired.
    TimerFired {
        /// The record that set it.
        timer: u64,
    },
    /// A signal came from outside.
    SignalReceived {
        /// Its name.
        name: String,
        /// What it carries.
        payload: Value,
        /// Who sent it.
        by: String,
    },
    /// A check passed.
    CheckPassed {
        /// Its name.
        name: String,
        /// What it printed.
        output: Output,
    },
    /// A check failed.
    CheckFailed {
        /// Its name.
        name: String,
        /// Exit status.
        exit: Option<i32>,
        /// What it printed.
        output: Output,
    },
    /// A check is about to run in a copy of the workspace that is dropped afterwards.
    CheckStarted {
        /// Its name.
        name: String,
        /// Its command.
        command: String,
    },
    /// A file of the workspace was kept as a result.
    ArtifactRecorded {
        /// Relative to the workspace.
        path: String,
        /// Digest of the content.
        sha256: Digest,
        /// Size.
        bytes: u64,
    },
    /// Changes were brought to the host's copy.
    ArtifactApplied {
        /// What changed on the host: `A`, `M`, `D`, `P` and the path.
        changes: Vec<String>,
        /// Who did it.
        by: String,
    },
    /// A label was added by configuration or a person.
    LabelAdded {
        /// Which.
        labels: Labels,
    },
    /// Budget set aside before a call.
    BudgetReserved {
        /// Money.
        cost: Usd,
        /// Tokens.
        tokens: u64,
    },
    /// A reservation was settled.
    BudgetSpent {
        /// What was used.
        cost: Usd,
        /// Tokens used.
        tokens: u64,
    },
    /// A request or a connection of the sandbox was decided. A permit is its intent: it is durable
    /// before the first byte leaves, and ended by `EgressEnded`.
    EgressDecided {
        /// The action whose command made it; absent for a check's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        during: Option<ActionId>,
        /// What policy was asked.
        request: Box<ActionRequest>,
        /// Digest of all that would be sent: an approval is bound to it, and a twin has the same.
        bound: Digest,
        /// What sending it twice would mean.
        effect: EffectClass,
        /// What was said.
        verdict: Verdict,
        /// The record that asked, when this spends its approval.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        approved: Option<u64>,
        /// Ids of the policies that decided, empty when no rule matched.
        policies: Vec<String>,
        /// Why, for people.
        reason: String,
        /// Digest of the policy set.
        policy_set: Digest,
        /// Digest of what was asked, context included.
        input: Digest,
        /// What it carried.
        carried: Carried,
        /// What refuses it, when policy would not: a secret of it that cannot be opened.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
        /// What the same request is known by in other runs, where that is not `bound`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exchange: Option<Digest>,
        /// The record, of the run that `[network] replay` names, whose answer it gets: it does not
        /// leave.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replays: Option<u64>,
    },
    /// A person is asked about a request of the sandbox. The bytes are the attachment `request`.
    EgressAsked {
        /// The record that decided so.
        egress: u64,
        /// Exactly what is shown.
        shown: String,
        /// Digest of the request that an approval is bound to.
        bound: Digest,
        /// When it expires, wall milliseconds.
        expires_ms: u64,
        /// How many people must approve.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        needs: u32,
    },
    /// What became of a permitted request or connection. With `[network] record` the answer, as the
    /// program got it, is the attachment `answer`.
    EgressEnded {
        /// The record that permitted it.
        egress: u64,
        /// The HTTP status; 0 for an opaque connection, or when there was no answer.
        status: u16,
        /// Bytes of bodies that went up.
        bytes_up: u64,
        /// Bytes of bodies that came down.
        bytes_down: u64,
        /// Why there was no whole answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<String>,
        /// Whether a byte may have left.
        sent: bool,
        /// What the answer says about its age, when the manifest says where.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        as_of: Option<AsOf>,
        /// Whether its answer is kept for replays.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kept: Option<Kept>,
    },
    /// A secret was used at egress.
    SecretUsed {
        /// Its name, never its value.
        secret: String,
        /// For whom.
        host: String,
        /// Under which record.
        under: u64,
    },
    /// The run goes on with another entry of its route.
    RouteChanged {
        /// The entry left.
        from: String,
        /// The entry taken.
        to: String,
        /// Its index.
        hop: u32,
        /// Why.
        failure: Failure,
    },
    /// Policy changed while the run lives.
    PolicyChanged {
        /// Digest of the new set.
        policy_set: Digest,
        /// Permission entries added to this run alone.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        allow: Vec<String>,
        /// Who changed it.
        by: String,
    },
    /// A person asked that the run end.
    CancelRequested {
        /// Who.
        by: String,
    },
    /// The guest asked for a model, and it is about to be called: decided, its budget set aside.
    /// The guest's own body is `head_bytes` of the beginning and `tail_bytes` of the end of the
    /// body of `base`, and between them the attachment `request`.
    GuestCalled {
        /// The dialect the guest speaks.
        dialect: Dialect,
        /// What an answer is found by when the guest asks again.
        key: Digest,
        /// Digest of the guest's body.
        asked: Digest,
        /// Bytes of the guest's body.
        asked_bytes: u64,
        /// An earlier call whose body begins and ends alike.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        base: Option<u64>,
        /// Bytes that both begin with.
        head_bytes: u64,
        /// Bytes that both end with.
        tail_bytes: u64,
        /// What of the body this provider is not sent, one note a kind.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        dropped: Vec<String>,
        /// Which entry of the route, from 0.
        hop: u32,
        /// The route's name.
        route: String,
        /// Provider's name.
        provider: String,
        /// Model's name.
        model: String,
        /// The variable that held the provider's key, if it wants one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credential: Option<String>,
        /// Version of the encoder.
        encoder: u16,
        /// Digest of the bytes sent.
        request: Digest,
        /// Number of bytes sent.
        request_bytes: u64,
        /// Money set aside.
        cost: Usd,
        /// Tokens set aside.
        tokens: u64,
    },
    /// What became of a guest's call; its budget is settled. The provider's bytes are the
    /// attachment `raw`.
    GuestAnswered {
        /// The record of the call.
        call: u64,
        /// The answer's items, empty on failure.
        items: Vec<Item>,
        /// Whether the guest was given the provider's own bytes.
        native: bool,
        /// Why the model stopped: `stop`, `tool_calls`, `length`, `filtered`; empty on failure.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        finish: String,
        /// Tokens used.
        usage: Usage,
        /// What it cost.
        cost: Usd,
        /// Version of the decoder.
        decoder: u16,
        /// Why there is no answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<ModelFault>,
        /// Where values were put back for pseudonyms.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        restored: Vec<Restored>,
    },
    /// A guest that was started again asked what it had asked before, and got the answer of the
    /// log: nothing left, nothing was paid.
    GuestServed {
        /// What the answer was found by.
        key: Digest,
        /// The record of the answer.
        answer: u64,
    },
    /// A guest that was started again asked something else than before, while answers of the log
    /// were left. Written once for each start.
    GuestDiverged {
        /// What was looked for and not found.
        key: Digest,
        /// The call of the log that was to come next.
        expected: u64,
        /// Answers of the log that were served until then.
        served: u64,
    },
    /// A guest's call was refused before anything left.
    GuestRefused {
        /// What an answer would have been found by.
        key: Digest,
        /// HTTP status that the guest was given.
        status: u16,
        /// Why.
        failure: Failure,
    },
    /// A program whose own loop drives this run opened it: steps are taken by who opened it last.
    CallerOpened {
        /// What the caller names the run by.
        key: String,
        /// Which opening: a word of the opener's, another each time.
        opening: String,
        /// Who.
        by: String,
    },
    /// The caller asked for its next step. What it is joins the conversation.
    StepTaken {
        /// Its number, from 0.
        at: u64,
        /// What it is.
        step: Step,
    },
    /// Last record, until the run is given new instructions.
    RunEnded {
        /// How.
        status: EndStatus,
        /// The agent's last words.
        output: String,
        /// Why, when it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<Failure>,
    },
}

/// Why a model call gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFault {
    /// What a caller can do about it.
    pub class: FaultClass,
    /// Details.
    pub failure: Failure,
    /// HTTP status, 0 when there was none.
    pub http_status: u16,
    /// The provider's wish, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// What a caller can do about a failed model call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultClass {
    /// Try again: overload, network, a cut stream, a timeout, malformed answer.
    Transient,
    /// The key is missing or refused.
    Auth,
    /// The model is gone, or was never there.
    Gone,
    /// The provider understood and refuses: another attempt will not help.
    Rejected,
    /// Interrupted by the owner's death: nobody knows whether it was answered.
    Interrupted,
}

impl Body {
    /// The record after which the run is as it was, when this record takes it back.
    #[must_use]
    pub const fn goes_back_to(&self) -> Option<u64> {
        match self {
            Self::RolledBack { at, .. } => *at,
            _ => None,
        }
    }

    /// The record's kind, as in the header.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::RunStarted { .. } => "run_started",
            Self::Forked { .. } => "forked",
            Self::ItemAdded { .. } => "item_added",
            Self::ModelCalled { .. } => "model_called",
            Self::ModelAnswered { .. } => "model_answered",
            Self::PrivacyChecked { .. } => "privacy_checked",
            Self::ModelAsked { .. } => "model_asked",
            Self::ActionProposed { .. } => "action_proposed",
            Self::DecisionMade { .. } => "decision_made",
            Self::ApprovalAsked { .. } => "approval_asked",
            Self::ApprovalGiven { .. } => "approval_given",
            Self::ApprovalRevoked { .. } => "approval_revoked",
            Self::ActionStarted { .. } => "action_started",
            Self::ActionFinished { .. } => "action_finished",
            Self::ActionInDoubt { .. } => "action_in_doubt",
            Self::ActionResolved { .. } => "action_resolved",
            Self::Delivered { .. } => "delivered",
            Self::LayerSealed { .. } => "layer_sealed",
            Self::MemorySealed { .. } => "memory_sealed",
            Self::MemoryOffered { .. } => "memory_offered",
            Self::MemoryMerged { .. } => "memory_merged",
            Self::MemoryRefused { .. } => "memory_refused",
            Self::RolledBack { .. } => "rolled_back",
            Self::SnapshotTaken { .. } => "snapshot_taken",
            Self::Suspended { .. } => "suspended",
            Self::Resumed { .. } => "resumed",
            Self::TimerSet { .. } => "timer_set",
            Self::TimerFired { .. } => "timer_fired",
            Self::SignalReceived { .. } => "signal_received",
            Self::CheckPassed { .. } => "check_passed",
            Self::CheckFailed { .. } => "check_failed",
            Self::CheckStarted { .. } => "check_started",
            Self::ArtifactRecorded { .. } => "artifact_recorded",
            Self::ArtifactApplied { .. } => "artifact_applied",
            Self::LabelAdded { .. } => "label_added",
            Self::BudgetReserved { .. } => "budget_reserved",
            Self::BudgetSpent { .. } => "budget_spent",
            Self::EgressDecided { .. } => "egress_decided",
            Self::EgressAsked { .. } => "egress_asked",
            Self::EgressEnded { .. } => "egress_ended",
            Self::SecretUsed { .. } => "secret_used",
            Self::RouteChanged { .. } => "route_changed",
            Self::PolicyChanged { .. } => "policy_changed",
            Self::CancelRequested { .. } => "cancel_requested",
            Self::GuestCalled { .. } => "guest_called",
            Self::GuestAnswered { .. } => "guest_answered",
            Self::GuestServed { .. } => "guest_served",
            Self::GuestDiverged { .. } => "guest_diverged",
            Self::GuestRefused { .. } => "guest_refused",
            Self::CallerOpened { .. } => "caller_opened",
            Self::StepTaken { .. } => "step_taken",
            Self::RunEnded { .. } => "run_ended",
        }
    }
}

//! What owner and gate say to each other: the headers of frames.

use boundary::{Client, Denial, Event as NetPassage};
use bytes::Bytes;
use models::{Answer, Dialect, Endpoint};
use privacy::{Fingerprints, Kind};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use types::{
    ActionRequest, AsOf, AsOfField, Digest, Failure, Item, ModelFault, Restored, ToolSpec,
    Treatment,
};
use zeroize::{Zeroize as _, Zeroizing};

/// A model call as the owner asks for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelCall {
    /// Where to.
    pub endpoint: Endpoint,
    /// The model's name at the provider.
    pub model: String,
    /// The system instructions.
    pub instructions: String,
    /// The conversation.
    pub items: Vec<Item>,
    /// The tools it may call.
    pub tools: Vec<ToolSpec>,
    /// The most tokens it may write.
    pub max_output_tokens: u64,
}

/// What is looked for in a request to a model, and what is done with each kind of it. The default
/// knows no value of a vault and sends everything as it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PrivacyOrder {
    /// By kind; what is not named is sent as it is. Values of the vault are masked and canaries
    /// refused whatever stands here.
    pub treatments: BTreeMap<Kind, Treatment>,
    /// Says whether names, canaries and fingerprints are the same as in another order.
    pub known: Digest,
    /// Names of people, products or customers.
    pub names: Vec<String>,
    /// Values that must never travel.
    pub canaries: Vec<String>,
    /// By which values of the vault are known, without them.
    pub prints: Option<Fingerprints>,
    /// Whether texts are wanted in which what is sent as it is stands marked.
    pub show: bool,
    /// For the first pseudonym of a run: 32 unpredictable bytes.
    pub seed: [u8; 32],
    /// The run's pseudonyms so far: every [`PrivacyFindings`]' lines, in order. They travel beside
    /// the header.
    #[serde(skip)]
    pub kept: Zeroizing<Vec<u8>>,
}

impl Default for PrivacyOrder {
    fn default() -> Self {
        Self {
            treatments: BTreeMap::new(),
            known: Digest::ZERO,
            names: Vec::new(),
            canaries: Vec::new(),
            prints: None,
            show: false,
            seed: [0; 32],
            kept: Zeroizing::default(),
        }
    }
}

/// What was found in a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivacyFindings {
    /// How many places, by kind.
    pub found: BTreeMap<Kind, u64>,
    /// The names of the vault's secrets among them.
    pub secrets: BTreeSet<String>,
    /// What a person is shown, when that was wanted.
    pub shown: String,
}

/// Output as a model may read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadText {
    /// The text: all of it, or its head and tail with a line that says what is left out.
    pub text: String,
    /// Whether something is left out.
    pub truncated: bool,
}

/// How a sandbox's network reaches the world.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct NetConfig {
    /// Names that are dialled at this address and no other.
    pub resolve: BTreeMap<String, SocketAddr>,
    /// Upstream authorities besides the system's, in PEM.
    pub trust: Vec<String>,
    /// Decides the synthetic addresses.
    pub seed: [u8; 32],
    /// Where the answers to GETs say how old they are, by `HOST` or `HOST/PATH*`.
    #[serde(default)]
    pub as_of: BTreeMap<String, AsOfField>,
    /// Whether the owner is given each answer that a program got.
    #[serde(default)]
    pub keep: bool,
    /// By which values of the vault are known in what would leave, without them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prints: Option<Fingerprints>,
    /// Serves guests' calls of models, when there are guests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<GuestModels>,
}

/// What the model endpoint of a sandbox knows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestModels {
    /// What a guest shows as its key.
    pub token: String,
    /// The models it is told of.
    pub names: Vec<String>,
}

impl std::fmt::Debug for GuestModels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestModels").field("names", &self.names).finish_non_exhaustive()
    }
}

/// A guest's request of a model, as far as the owner needs to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestAsk {
    /// How the guest speaks.
    pub dialect: Dialect,
    /// What an answer of the log is found by.
    pub key: Digest,
    /// Digest of its body.
    pub digest: Digest,
    /// Bytes of its body.
    pub bytes: u64,
    /// The record of an earlier call whose body begins and ends alike.
    pub base: Option<u64>,
    /// Bytes that both begin with.
    pub head_bytes: u64,
    /// Bytes that both end with.
    pub tail_bytes: u64,
    /// What another provider than the guest's own will not be sent.
    pub dropped: Vec<String>,
    /// The bytes between. They travel beside the frame.
    #[serde(skip)]
    pub body: Bytes,
}

/// A request of a sandbox, as it will be sent but for its secrets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetRequest {
    /// What policy is asked.
    pub action: ActionRequest,
    /// The path as it is sent.
    pub raw_path: String,
    /// The beginning of its body, as text.
    pub body: String,
    /// Bytes that were read of its body.
    pub body_bytes: u64,
    /// Names of secrets whose placeholders stand in it, with the whole placeholder.
    pub placeholders: Vec<(String, String)>,
    /// Names of secrets whose values, not their placeholders, stand in it.
    pub leaked: Vec<String>,
    /// Digest of all that would be sent.
    pub digest: Digest,
    /// The digest by which the same request is known in other sandboxes.
    pub exchange: Digest,
}

/// What the boundary asks the owner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetQuestion {
    /// Whether any rule may permit this name at all.
    Name {
        /// Lower case.
        host: String,
    },
    /// What becomes of a connection.
    Connect {
        /// Lower-case name, or an address.
        host: String,
        /// The port the program dialled.
        port: u16,
    },
    /// Whether a request may be sent.
    Request {
        /// Which.
        request: Box<NetRequest>,
    },
    /// A guest wants an answer of a model. It is answered by a [`GuestLink`](crate::GuestLink).
    Model {
        /// Which.
        ask: Box<GuestAsk>,
    },
    /// Whether what was permitted may go on.
    Still {
        /// What it is: the request or connection policy was asked about.
        action: Box<ActionRequest>,
        /// Its permit; none for a connection whose requests are judged one by one.
        permit: Option<u64>,
    },
}

/// A secret for one request, in the place of its placeholder. Wiped when dropped.
#[derive(Serialize, Deserialize)]
#[serde(tag = "as", rename_all = "snake_case")]
pub enum SecretGiven {
    /// It stands there itself.
    Value {
        /// The text.
        value: String,
    },
    /// The request is signed with it for AWS.
    AwsSigv4 {
        /// The key's name.
        access_key: String,
        /// The key.
        secret: String,
        /// Of temporary credentials.
        session_token: Option<String>,
        /// As in `eu-central-1`.
        region: String,
        /// As in `s3`.
        service: String,
    },
    /// A token stands there that is made for it now.
    Token {
        /// Whose it is.
        client: Client,
    },
}

impl Drop for SecretGiven {
    fn drop(&mut self) {
        match self {
            Self::Value { value } => value.zeroize(),
            Self::AwsSigv4 { secret, session_token, .. } => {
                secret.zeroize();
                session_token.zeroize();
            }
            Self::Token { .. } => {}
        }
    }
}

impl std::fmt::Debug for SecretGiven {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretGiven(..)")
    }
}

/// The owner's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetVerdict {
    /// It may: a name has an address, a request is sent, something goes on.
    Permit {
        /// Names the permit.
        permit: u64,
        /// Placeholders whose values are attached, in order.
        secrets: Vec<String>,
        /// The owner need not hear at once that it was sent: it counts as sent from here on, and
        /// its end says whether it was.
        #[serde(default)]
        quiet: bool,
    },
    /// A request is not sent: its answer is attached, as
    /// [`NetMessage::Kept`](crate::NetMessage::Kept) had it.
    Answered {
        /// Names the permit.
        permit: u64,
    },
    /// A connection is read as HTTP, request by request.
    Inspect,
    /// It may not.
    Deny(Denial),
}

/// Header of a frame from the owner.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ToGate {
    pub(crate) id: u64,
    pub(crate) request: Request,
}

/// What the owner asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Encode a model call, pass it through the privacy router and keep it. Attachment: the run's
    /// pseudonyms so far.
    Prepare { call: Box<ModelCall>, privacy: Box<PrivacyOrder> },
    /// Forget a prepared call.
    Release { prepared: u64 },
    /// Send a prepared call. Attachment: the key, if any.
    Send { prepared: u64 },
    /// Give up a request.
    Cancel { of: u64 },
    /// Serve a script. Attachment: its text.
    ScriptStart { name: String, instance: String },
    /// Parse JSON and check it. Attachment: the bytes.
    /// Says how old the value is when `as_of` says where that stands.
    ParseJson { schema: Option<Value>, as_of: Option<AsOfField> },
    /// Check a value.
    CheckArguments { value: Value, schema: Value },
    /// Make output readable. Attachment: the bytes.
    ReadOutput { cap_bytes: u64 },
    /// See whether a schema can be used.
    CompileSchema { schema: Value },
    /// Serve a sandbox's network; its listeners come by the other socket under this number.
    /// Attachment: the authority's key, if it had one.
    NetOpen { net: u64, config: Box<NetConfig> },
    /// Stop serving it. No answer.
    NetClose { net: u64 },
    /// Policy is another: ask about everything that is open.
    NetRecheck { net: u64 },
    /// What was asked by `Event::NetAsked`. No answer. Attachment: the values of secrets, or the
    /// answer that was kept.
    NetVerdict { ask: u64, verdict: NetVerdict },
    /// Encode a guest's request for this endpoint and keep it, as `Prepare` does.
    GuestPrepare { ask: u64, endpoint: Box<Endpoint>, model: String, privacy: Box<PrivacyOrder> },
    /// The record that announced a guest's call: later bodies are told apart from it. No answer.
    GuestNoted { ask: u64, record: u64 },
    /// The answer is recorded: the guest may have the rest of it. No answer.
    GuestFinish { ask: u64 },
    /// The guest is refused, in its dialect. No answer.
    GuestRefuse { ask: u64, status: u16, failure: Failure, retry_after_ms: Option<u64> },
    /// The guest is given an answer of the log. No answer. Attachment: the provider's bytes.
    GuestServe { ask: u64, native: bool, answer: Box<Answer> },
}

/// Header of a frame from the gate.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ToOwner {
    /// The request it belongs to; 0 for [`Event::Ready`].
    pub(crate) id: u64,
    pub(crate) event: Event,
}

/// What the gate answers. Every request but `Release` and `Cancel` gets exactly one last event;
/// `Delta` comes before it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    /// The process is confined and reads; or says why it is not and ends.
    Ready { failure: Option<Failure> },
    /// A call is encoded. Attachment: new pseudonyms, if there are any.
    Prepared {
        prepared: u64,
        digest: Digest,
        bytes: u64,
        input_tokens: u64,
        output_tokens: u64,
        findings: Box<PrivacyFindings>,
    },
    /// A call is not sent, whatever the owner says.
    Withheld { failure: Failure, findings: Box<PrivacyFindings> },
    /// A piece of text of the answer.
    Delta { text: String },
    /// The call is over. Attachment: the reply's bytes.
    Answered { answer: Box<Answer>, http_status: u16, restored: Vec<Restored> },
    /// The call gave no answer. Attachment: the bytes that came.
    Faulted { fault: ModelFault },
    /// A scripted model listens.
    ScriptStarted { base_url: String },
    /// JSON, parsed.
    Json { value: Value, as_of: Option<AsOf> },
    /// Output, readable.
    Text { read: ReadText },
    /// A sandbox's network is served. Attachment: the authority's key.
    NetOpened { certificate: String },
    /// Something of a sandbox wants to leave. Request 0.
    NetAsked { net: u64, ask: u64, question: NetQuestion },
    /// Nobody waits for the answer any more. Request 0.
    NetWithdrawn { net: u64, ask: u64 },
    /// What became of a permit. Request 0. Of a quiet one, `sent` says whether it was sent.
    NetPassed { net: u64, permit: u64, passage: NetPassage, sent: Option<bool> },
    /// A permit's answer as the program got it. Request 0. Attachment: the answer, unless
    /// `nothing` says why it is not kept.
    NetKept { net: u64, permit: u64, nothing: Option<String> },
    /// A token was made for the secret behind a placeholder. Request 0. Attachment: the token.
    NetMinted { net: u64, placeholder: String, expires_s: Option<u64> },
    /// It is as it should be.
    Good,
    /// It is not.
    Failed { failure: Failure },
}

//! A policy set: everything that says what one agent may do, checked as a whole.

use crate::arguments::{self, Type};
use crate::cedar::{self, Statement};
use crate::entry::ToolKind;
use crate::monotone;
use crate::question::LabelKinds;
use crate::slice::Slices;
use crate::sugar;
use crate::{PolicyError, Principal};
use cedar_policy::{ValidationMode, Validator};
use miette::Diagnostic as _;
use serde_json::Value;
use std::collections::BTreeMap;
use types::manifest::{MemoryAccess, Permissions};
use types::{Digest, EffectClass};

/// Most organisation files in one set.
pub const ORGANISATION_FILES_MAX: usize = 64;
/// Most tools of one agent.
pub const TOOLS_MAX: usize = 2000;
/// First line of every policy source; the schema's version is in it.
const SOURCE_HEADER: &str = "// Bedplate policy, schema 3.\n\n";
/// The first line of sources of older schemas, and those: sets of then keep their digest.
const OLDER: [(&str, &str); 2] = [
    ("// Bedplate policy, schema 1.\n\n", include_str!("schema_1.cedarschema")),
    ("// Bedplate policy, schema 2.\n\n", include_str!("schema_2.cedarschema")),
];

/// A tool of the agent.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolDecl {
    /// `[a-zA-Z0-9_-]{1,64}`, but nothing here relies on it.
    pub name: String,
    /// Its effect class.
    pub effect: EffectClass,
    /// What it is.
    pub kind: ToolKind,
    /// JSON Schema of its arguments.
    pub input_schema: Value,
}

impl ToolDecl {
    /// A tool whose arguments policy does not look at.
    #[must_use]
    pub fn new(name: &str, kind: ToolKind, effect: EffectClass) -> Self {
        Self { name: name.to_owned(), effect, kind, input_schema: Value::Null }
    }

    /// The workspace tools every agent has.
    #[must_use]
    pub fn builtins() -> Vec<Self> {
        use EffectClass::{Read, Workspace};
        vec![
            Self::new("shell", ToolKind::Shell, Workspace),
            Self::new("python", ToolKind::Shell, Workspace),
            Self::new("read_file", ToolKind::Files, Read),
            Self::new("write_file", ToolKind::Files, Workspace),
            Self::new("edit_file", ToolKind::Files, Workspace),
            Self::new("wait", ToolKind::Wait, Read),
            Self::new("check", ToolKind::Check, Workspace),
        ]
    }
}

/// What a policy set is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Sources {
    /// Whose actions are decided; path rules for the sandbox are compiled for it.
    pub principal: Principal,
    /// `[permissions]` of the manifest.
    pub permissions: Option<Permissions>,
    /// Entries added to `allow` for one run.
    pub extra_allow: Vec<String>,
    /// File name and text of `policy.cedar`.
    pub cedar: Option<(String, String)>,
    /// File names and texts of organisation policies, which may only forbid.
    pub organisation: Vec<(String, String)>,
    /// The agent's tools, the built-in ones included.
    pub tools: Vec<ToolDecl>,
    /// The agent's own routes.
    pub routes: Vec<String>,
    /// What the agent may do with its memory, when it has one.
    pub memory: Option<MemoryAccess>,
}

impl Sources {
    /// Nothing said: the principal with the built-in tools, no route, no permissions.
    #[must_use]
    pub fn new(principal: Principal) -> Self {
        Self {
            principal,
            permissions: None,
            extra_allow: Vec::new(),
            cedar: None,
            organisation: Vec::new(),
            tools: ToolDecl::builtins(),
            routes: Vec::new(),
            memory: None,
        }
    }
}

/// A checked policy set. It never changes; a changed policy is another set.
#[derive(Debug, Clone)]
pub struct PolicySet {
    pub(crate) principal: Principal,
    pub(crate) statements: Vec<Statement>,
    pub(crate) slices: Slices,
    /// Places in `statements` by policy id.
    pub(crate) by_id: BTreeMap<String, usize>,
    /// Types of the tools' arguments, when any policy looks at arguments.
    pub(crate) arguments: Option<BTreeMap<String, Type>>,
    /// Facts of an HTTP request that some policy looks at.
    pub(crate) looks_at: Vec<&'static str>,
    /// How labels with a colon are seen.
    pub(crate) label_kinds: LabelKinds,
    /// What may permit or forbid a host, by name.
    pub(crate) reach: crate::reach::Reach,
    /// Effect classes of the tools, for policy tests that do not say one.
    pub(crate) effects: BTreeMap<String, EffectClass>,
    source: String,
    digest: Digest,
}

impl PolicySet {
    /// Compiles and checks policy.
    ///
    /// # Errors
    /// Everything that is wrong, each with its place.
    pub fn compile(sources: &Sources) -> Result<Self, Vec<PolicyError>> {
        cedar::with_reading_stack(|| Self::read(sources))
    }

    fn read(sources: &Sources) -> Result<Self, Vec<PolicyError>> {
        let mut errors = Vec::new();
        for (what, actual, limit) in [
            ("tools", sources.tools.len(), TOOLS_MAX),
            ("organisation policy files", sources.organisation.len(), ORGANISATION_FILES_MAX),
        ] {
            if actual > limit {
                let what = format!("the number of {what}");
                errors.push(PolicyError::TooLarge { what, actual, limit });
            }
        }
        errors.extend(duplicate_tools(&sources.tools));
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut files = Files::default();
        match sugar::generate(sources) {
            Ok(generated) => files.add_generated(generated.text, &mut errors),
            Err(found) => errors.extend(found),
        }
        let generated = files.statements.len();
        if let Some((name, text)) = &sources.cedar {
            files.add(name, text, &mut errors);
        }
        let own = files.statements.len();
        for (name, text) in &sources.organisation {
            files.add(name, text, &mut errors);
        }
        errors.extend(organisation_permits(&files.statements[own..]));
        let theirs = generated..files.statements.len();
        files.add_people();
        errors.extend(cedar::check_ids(&files.statements, theirs));
        Self::checked(files, &sources.principal, &sources.tools, errors)
    }

    /// The set that [`cedar_source`](Self::cedar_source) was written from: what is needed to derive
    /// a verdict again, offline.
    ///
    /// # Errors
    /// When the text is not such a source.
    pub fn from_cedar_source(
        source: &str,
        principal: &Principal,
        tools: &[ToolDecl],
    ) -> Result<Self, Vec<PolicyError>> {
        cedar::with_reading_stack(|| {
            let old = OLDER.iter().position(|(header, _)| source.starts_with(header));
            let mut files = Files { old, ..Files::default() };
            let mut errors = Vec::new();
            files.add("policy source", source, &mut errors);
            Self::checked(files, principal, tools, errors)
        })
    }

    fn checked(
        files: Files,
        principal: &Principal,
        tools: &[ToolDecl],
        mut errors: Vec<PolicyError>,
    ) -> Result<Self, Vec<PolicyError>> {
        let types: BTreeMap<String, Type> = tools
            .iter()
            .map(|tool| (tool.name.clone(), arguments::type_of(&tool.input_schema)))
            .collect();
        errors.extend(validate(&files, &types));
        errors.extend(monotone::check(&files.statements));
        if !errors.is_empty() {
            return Err(errors);
        }
        let (statements, old) = (files.statements, files.old);
        let (header, schema) =
            old.map_or_else(|| (SOURCE_HEADER, arguments::schema_text()), |at| OLDER[at]);
        let source = source_of(header, &statements);
        let looks = statements.iter().any(|s| monotone::reads(&s.tree, "arguments"));
        let arguments = looks.then_some(types);
        let digest = digest_of(schema, &source, arguments.as_ref());
        let ids = statements.iter().map(|s| s.id().to_owned());
        Ok(Self {
            principal: principal.clone(),
            by_id: ids.zip(0..).collect(),
            slices: Slices::of(&statements),
            looks_at: looked_at(&statements),
            label_kinds: if old == Some(0) { LabelKinds::Hidden } else { LabelKinds::Shown },
            reach: crate::reach::Reach::of(&statements, principal),
            statements,
            arguments,
            effects: tools.iter().map(|t| (t.name.clone(), t.effect)).collect(),
            source,
            digest,
        })
    }

    /// The whole set as Cedar text. Every policy has its id as an `@id` annotation.
    #[must_use]
    pub fn cedar_source(&self) -> String {
        self.source.clone()
    }

    /// Digest of the schema, the policies and the types of the arguments they look at.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Whose actions this set decides.
    #[must_use]
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }
}

/// The attributes that some policy on HTTP requests looks at.
fn looked_at(statements: &[Statement]) -> Vec<&'static str> {
    let http: Vec<&Statement> =
        statements.iter().filter(|s| crate::slice::has_action(&s.tree, "http_request")).collect();
    crate::facts::ATTRIBUTES
        .into_iter()
        .filter(|name| http.iter().any(|s| monotone::looks_at(&s.tree, name)))
        .collect()
}

fn source_of(header: &str, statements: &[Statement]) -> String {
    let mut source = header.to_owned();
    for statement in statements {
        source.push_str(&statement.text);
        source.push_str("\n\n");
    }
    source
}

fn digest_of(schema: &str, source: &str, arguments: Option<&BTreeMap<String, Type>>) -> Digest {
    let types: serde_json::Map<String, Value> =
        arguments.into_iter().flatten().map(|(tool, of)| (tool.clone(), of.to_schema())).collect();
    let types = crate::canonical::text(&Value::Object(types));
    Digest::of_parts(
        "bedplate policy set 1",
        &[schema.as_bytes(), source.as_bytes(), types.as_bytes()],
    )
}

/// Statements in order, with the texts they were read from.
#[derive(Default)]
struct Files {
    statements: Vec<Statement>,
    /// Which of [`OLDER`] they are a source of; none for the schema of now.
    old: Option<usize>,
    texts: BTreeMap<String, String>,
}

/// The name of generated text in errors.
const GENERATED: &str = "permissions";
/// What people may do when no policy permits it in other words.
const PEOPLE: [&str; 4] = ["view", "approve", "cancel", "edit"];

impl Files {
    fn add(&mut self, name: &str, text: &str, errors: &mut Vec<PolicyError>) {
        match cedar::read(name, text) {
            Ok(statements) => {
                self.statements.extend(statements);
                self.texts.insert(name.to_owned(), text.to_owned());
            }
            Err(found) => errors.extend(found),
        }
    }

    fn add_generated(&mut self, text: String, errors: &mut Vec<PolicyError>) {
        let from = self.statements.len();
        self.add(GENERATED, &text, errors);
        for statement in &mut self.statements[from..] {
            let id = statement.id();
            let end = id.find(": ").unwrap_or(id.len());
            statement.source = id[..end].to_owned();
        }
    }

    /// People may do to runs whatever no policy speaks of; a `permit` that names the action
    /// replaces the default, a `forbid` narrows it.
    fn add_people(&mut self) {
        let named: Vec<&str> = PEOPLE
            .into_iter()
            .filter(|action| {
                let names =
                    |s: &Statement| !s.forbids() && crate::slice::names_action(&s.tree, action);
                !self.statements.iter().any(names)
            })
            .collect();
        for action in named {
            let text = format!(
                "@id(\"people.{action}\")\npermit(principal is User, action == Action::\"{action}\", resource);\n"
            );
            let mut statements =
                cedar::read("people", &text).expect("this constant text is a policy");
            for statement in &mut statements {
                statement.source = "default".to_owned();
            }
            self.statements.extend(statements);
        }
    }

    fn text(&self, file: &str) -> &str {
        self.texts.get(file).map_or("", String::as_str)
    }
}

fn duplicate_tools(tools: &[ToolDecl]) -> Option<PolicyError> {
    let mut seen = std::collections::BTreeSet::new();
    let twice = tools.iter().find(|tool| !seen.insert(&tool.name))?;
    Some(PolicyError::DuplicateTool { name: cedar::printable(&twice.name) })
}

fn organisation_permits(statements: &[Statement]) -> Vec<PolicyError> {
    statements
        .iter()
        .filter(|statement| !statement.forbids())
        .map(|statement| PolicyError::OrganisationPermits { at: Box::new(statement.at.clone()) })
        .collect()
}

/// Strict validation of each policy: against the published schema, or, if it looks at arguments,
/// against the schema of each tool it can apply to.
fn validate(files: &Files, types: &BTreeMap<String, Type>) -> Vec<PolicyError> {
    let (typed, plain): (Vec<_>, Vec<_>) = files
        .statements
        .iter()
        .partition(|statement| monotone::reads(&statement.tree, "arguments"));
    let mut errors = validate_with(files, &plain, None, None);
    if typed.is_empty() {
        return errors;
    }
    for (tool, of) in types {
        let of_tool: Vec<&Statement> = typed
            .iter()
            .filter(|statement| crate::slice::may_be_tool(&statement.tree, tool))
            .copied()
            .collect();
        if !of_tool.is_empty() {
            errors.extend(validate_with(files, &of_tool, Some(tool), Some(of)));
        }
    }
    let of_none: Vec<&Statement> = typed
        .into_iter()
        .filter(|s| !types.keys().any(|tool| crate::slice::may_be_tool(&s.tree, tool)))
        .collect();
    errors.extend(validate_with(files, &of_none, None, None));
    errors
}

fn validate_with(
    files: &Files,
    statements: &[&Statement],
    tool: Option<&String>,
    of: Option<&Type>,
) -> Vec<PolicyError> {
    if statements.is_empty() {
        return Vec::new();
    }
    let mut set = cedar_policy::PolicySet::new();
    for statement in statements {
        // A second policy of the same id is reported by `check_ids`.
        let _ = set.add(statement.policy.clone());
    }
    let validator = Validator::new(arguments::schema_for(of));
    let result = validator.validate(&set, ValidationMode::Strict);
    result
        .validation_errors()
        .map(|error| {
            let id: &str = error.policy_id().as_ref();
            let statement = statements.iter().find(|statement| statement.id() == id);
            let (file, start) = statement
                .map(|s| (s.at.file.as_str(), &s.at))
                .map_or((GENERATED, None), |(file, at)| (file, Some(at.clone())));
            let located = error.labels().and_then(|mut labels| labels.next()).is_some();
            let at = match start {
                Some(start) if !located => start,
                _ => cedar::place(file, files.text(file), error),
            };
            PolicyError::Schema {
                at: Box::new(at),
                message: cedar::described(error),
                help: error.help().map(|help| help.to_string()).unwrap_or_default(),
                tool: tool.cloned(),
            }
        })
        .collect()
}

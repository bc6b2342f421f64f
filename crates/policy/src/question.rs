//! One question in Cedar's terms: entities, attributes and the request.

use crate::facts::Seen;
use crate::host;
use crate::input::{DecisionInput, PersonInput, Principal, PrincipalKind};
use crate::slice::uid;
use cedar_policy::{
    Context, Entities, Entity, EntityTypeName, EntityUid, Request, RestrictedExpression,
};
use std::collections::HashSet;
use std::sync::LazyLock;
use types::{ActionRequest, Carried};

/// Entity types of the schema, parsed once.
struct Names {
    agent: EntityTypeName,
    user: EntityTypeName,
    team: EntityTypeName,
    action: EntityTypeName,
    domain: EntityTypeName,
    path: EntityTypeName,
    route: EntityTypeName,
    tool: EntityTypeName,
    host: EntityTypeName,
    secret: EntityTypeName,
    run: EntityTypeName,
}

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let name = |text: &str| -> EntityTypeName { text.parse().expect("a constant type name") };
    Names {
        agent: name("Agent"),
        user: name("User"),
        team: name("Team"),
        action: name("Action"),
        domain: name("Domain"),
        path: name("Path"),
        route: name("Route"),
        tool: name("Tool"),
        host: name("Host"),
        secret: name("Secret"),
        run: name("Run"),
    }
});

/// What a resource or one of its ancestors is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Route,
    Tool,
    Path,
    Host,
    Domain,
    Secret,
    Run,
    Agent,
}

impl Kind {
    /// The schema's name of it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Route => "Route",
            Self::Tool => "Tool",
            Self::Path => "Path",
            Self::Host => "Host",
            Self::Domain => "Domain",
            Self::Secret => "Secret",
            Self::Run => "Run",
            Self::Agent => "Agent",
        }
    }

    fn type_name(self) -> &'static EntityTypeName {
        let names = &*NAMES;
        match self {
            Self::Route => &names.route,
            Self::Tool => &names.tool,
            Self::Path => &names.path,
            Self::Host => &names.host,
            Self::Domain => &names.domain,
            Self::Secret => &names.secret,
            Self::Run => &names.run,
            Self::Agent => &names.agent,
        }
    }
}

/// Whether `confidential:payroll` is `confidential` too (Cedar cannot look into a set's strings).
/// Sets of schema 1 did not see it so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LabelKinds {
    Hidden,
    Shown,
}

type Pairs = Vec<(String, RestrictedExpression)>;

/// A request in Cedar's terms, but for approval.
pub(crate) struct Question<'a> {
    principal: &'a Principal,
    pub(crate) action: &'static str,
    /// The resource, then its ancestors; never empty.
    pub(crate) keys: Vec<(Kind, &'a str)>,
    pairs: Pairs,
}

impl<'a> Question<'a> {
    /// `looks_at` are the attributes of [`facts::ATTRIBUTES`] that some policy looks at: the others
    /// need not be there to get the same answer.
    pub(crate) fn of(
        input: &'a DecisionInput,
        arguments: Option<RestrictedExpression>,
        looks_at: &[&'static str],
        kinds: LabelKinds,
    ) -> Self {
        let mut pairs = own_pairs(&input.request, looks_at);
        pairs.extend(arguments.map(|arguments| ("arguments".to_owned(), arguments)));
        pairs.extend(common_pairs(&input.carried, &input.on_behalf_of, kinds));
        Self {
            principal: &input.principal,
            action: input.request.name(),
            keys: keys(&input.request),
            pairs,
        }
    }

    pub(crate) fn of_person(input: &'a PersonInput) -> Self {
        let mut keys = vec![(Kind::Run, input.run.as_str()), (Kind::Agent, &input.agent)];
        if input.run.is_empty() {
            keys.remove(0);
        }
        Self {
            principal: &input.person,
            action: input.action.name(),
            keys,
            pairs: common_pairs(&Carried::default(), "", LabelKinds::Shown),
        }
    }

    /// The request, with or without approval.
    pub(crate) fn request(&self, approved: bool) -> Result<Request, String> {
        let approved = ("approved".to_owned(), RestrictedExpression::new_bool(approved));
        let pairs = self.pairs.iter().cloned().chain([approved]);
        let context = Context::from_pairs(pairs).map_err(|error| error.to_string())?;
        Request::new(
            principal_uid(self.principal),
            uid(&NAMES.action, self.action),
            key_uid(self.keys[0]),
            context,
            None,
        )
        .map_err(|error| error.to_string())
    }

    /// Principal and resource with their ancestors.
    pub(crate) fn entities(&self) -> Entities {
        let teams = self.principal.teams.iter();
        let teams: HashSet<_> = teams.map(|team| uid(&NAMES.team, team)).collect();
        let above: HashSet<_> = self.keys[1..].iter().copied().map(key_uid).collect();
        let principal = Entity::new_no_attrs(principal_uid(self.principal), teams);
        let resource = Entity::new_no_attrs(key_uid(self.keys[0]), above);
        Entities::from_entities([principal, resource], None).unwrap_or_else(|_| Entities::empty())
    }
}

fn key_uid((kind, id): (Kind, &str)) -> EntityUid {
    uid(kind.type_name(), id)
}

fn principal_uid(principal: &Principal) -> EntityUid {
    let kind = match principal.kind {
        PrincipalKind::Agent => &NAMES.agent,
        PrincipalKind::User => &NAMES.user,
    };
    uid(kind, &principal.name)
}

fn keys(request: &ActionRequest) -> Vec<(Kind, &str)> {
    match request {
        ActionRequest::CallModel { route, .. } => vec![(Kind::Route, route)],
        ActionRequest::CallTool { tool, .. } | ActionRequest::RunCommand { tool, .. } => {
            vec![(Kind::Tool, tool)]
        }
        ActionRequest::Path { path, .. } => std::iter::once(path.as_str())
            .chain(host::directories(path))
            .map(|path| (Kind::Path, path))
            .collect(),
        ActionRequest::HttpRequest { host, .. } | ActionRequest::Connect { host, .. } => {
            host_keys(host)
        }
        ActionRequest::UseSecret { secret, .. } => vec![(Kind::Secret, secret)],
    }
}

/// A host, then the domains it lies in: its own name first.
pub(crate) fn host_keys(host: &str) -> Vec<(Kind, &str)> {
    std::iter::once((Kind::Host, host))
        .chain(host::domains(host).map(|domain| (Kind::Domain, domain)))
        .collect()
}

fn text(name: &str, value: &str) -> (String, RestrictedExpression) {
    let value = RestrictedExpression::new_string(value.to_owned());
    (name.to_owned(), value)
}

fn long(name: &str, value: i64) -> (String, RestrictedExpression) {
    (name.to_owned(), RestrictedExpression::new_long(value))
}

fn own_pairs(request: &ActionRequest, looks_at: &[&'static str]) -> Pairs {
    match request {
        ActionRequest::CallModel { provider, model, local, privacy, route: _ } => {
            let kinds = privacy.iter().cloned().map(RestrictedExpression::new_string);
            vec![
                text("provider", provider),
                text("model", model),
                ("local".to_owned(), RestrictedExpression::new_bool(*local)),
                ("privacy".to_owned(), RestrictedExpression::new_set(kinds)),
            ]
        }
        ActionRequest::CallTool { effect, .. } => vec![text("effect", &effect.to_string())],
        ActionRequest::RunCommand { command, .. } => vec![text("command", command)],
        ActionRequest::Path { path, .. } => vec![text("path", path)],
        ActionRequest::HttpRequest { method, path, port, scheme, query, host: _, facts } => {
            let mut pairs = vec![
                text("method", method),
                text("path", path),
                long("port", i64::from(*port)),
                text("scheme", scheme),
                text("query", query),
            ];
            let seen = Seen::new(method, path, query, facts.as_deref());
            pairs.extend(looks_at.iter().map(|name| ((*name).to_owned(), seen.attribute(name))));
            pairs
        }
        ActionRequest::Connect { port, .. } => vec![long("port", i64::from(*port))],
        ActionRequest::UseSecret { host, .. } => vec![text("host", host)],
    }
}

fn common_pairs(carried: &Carried, on_behalf_of: &str, kinds: LabelKinds) -> Pairs {
    let kinds = (kinds == LabelKinds::Shown)
        .then(|| carried.labels.iter().filter_map(|label| Some(label.split_once(':')?.0)))
        .into_iter()
        .flatten();
    let labels = carried.labels.iter().chain(kinds);
    let labels = labels.map(|label| RestrictedExpression::new_string(label.to_owned()));
    let age = i64::try_from(carried.oldest_input_age).unwrap_or(i64::MAX);
    vec![
        ("labels".to_owned(), RestrictedExpression::new_set(labels)),
        long("oldest_input_age", age),
        text("on_behalf_of", on_behalf_of),
    ]
}

//! The policies that can matter to a request, found by action and resource.
//!
//! A policy whose scope names one resource (`resource == X`, `resource in X`) is filed under X;
//! the others are general. A request looks at the general policies of its action and at those filed
//! under its resource or the resource's ancestors. No other policy's scope can match it, so the
//! answer is that of the whole set (a property test compares them).

use crate::cedar::Statement;
use crate::question::Kind;
use cedar_policy::{
    Authorizer, Decision as CedarDecision, Entities, EntityUid, PolicySet, Request, pst,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// All actions of the schema.
pub(crate) const ACTIONS: [&str; 13] = [
    "call_model",
    "call_tool",
    "run_command",
    "read_file",
    "write_file",
    "mount",
    "http_request",
    "connect",
    "use_secret",
    "view",
    "approve",
    "cancel",
    "edit",
];

#[derive(Debug, Clone, Default)]
struct ActionSlice {
    general: PolicySet,
    filed: HashMap<(String, String), PolicySet>,
}

#[derive(Debug, Clone)]
pub(crate) struct Slices {
    by_action: BTreeMap<&'static str, ActionSlice>,
}

/// What the policies said, before approval is considered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) permits: BTreeSet<String>,
    pub(crate) forbids: BTreeSet<String>,
    /// Policy id and what failed.
    pub(crate) errors: BTreeMap<String, String>,
}

impl Answer {
    pub(crate) fn allowed(&self) -> bool {
        self.errors.is_empty() && self.forbids.is_empty() && !self.permits.is_empty()
    }

    fn add(&mut self, response: &cedar_policy::Response) {
        let ids = response.diagnostics().reason().map(|id| {
            let id: &str = id.as_ref();
            id.to_owned()
        });
        match response.decision() {
            CedarDecision::Allow => self.permits.extend(ids),
            CedarDecision::Deny => self.forbids.extend(ids),
        }
        for error in response.diagnostics().errors() {
            let cedar_policy::AuthorizationError::PolicyEvaluationError(error) = error;
            let id: &str = error.policy_id().as_ref();
            self.errors.insert(id.to_owned(), error.inner().to_string());
        }
    }
}

impl Slices {
    pub(crate) fn of(statements: &[Statement]) -> Self {
        let mut by_action: BTreeMap<&'static str, ActionSlice> = BTreeMap::new();
        for action in ACTIONS {
            let slice = by_action.entry(action).or_default();
            for statement in statements.iter().filter(|s| has_action(&s.tree, action)) {
                let set = match filed_under(&statement.tree) {
                    Some(key) => slice.filed.entry(key).or_default(),
                    None => &mut slice.general,
                };
                set.add(statement.policy.clone()).expect("ids are unique, `check_ids` saw to it");
            }
        }
        Self { by_action }
    }

    /// Asks the policies that can matter. `keys` are the resource and its ancestors, as type and
    /// id.
    pub(crate) fn ask(
        &self,
        action: &str,
        keys: &[(Kind, &str)],
        request: &Request,
        entities: &Entities,
    ) -> Answer {
        let mut answer = Answer::default();
        let Some(slice) = self.by_action.get(action) else {
            return answer;
        };
        let authorizer = Authorizer::new();
        if !slice.general.is_empty() {
            answer.add(&authorizer.is_authorized(request, &slice.general, entities));
        }
        if slice.filed.is_empty() {
            return answer;
        }
        for (kind, id) in keys {
            if let Some(set) = slice.filed.get(&(kind.name().to_owned(), (*id).to_owned())) {
                answer.add(&authorizer.is_authorized(request, set, entities));
            }
        }
        answer
    }
}

/// Whether the action scope covers an action.
pub(crate) fn has_action(tree: &pst::Template, action: &str) -> bool {
    matches!(tree.action, pst::ActionConstraint::Any) || names_action(tree, action)
}

/// Whether the action scope names an action.
pub(crate) fn names_action(tree: &pst::Template, action: &str) -> bool {
    match &tree.action {
        pst::ActionConstraint::Any => false,
        pst::ActionConstraint::Eq(uid) => uid.eid == action,
        pst::ActionConstraint::In(uids) => uids.iter().any(|uid| uid.eid == action),
    }
}

/// The one resource (type, id) the scope names.
pub(crate) fn filed_under(tree: &pst::Template) -> Option<(String, String)> {
    use pst::{EntityOrSlot::Entity, ResourceConstraint as R};
    match &tree.resource {
        R::Eq(Entity(uid)) | R::In(Entity(uid)) | R::IsIn(_, Entity(uid)) => {
            Some((uid.ty.0.id.as_str().to_owned(), uid.eid.to_string()))
        }
        _ => None,
    }
}

/// Whether a policy's scope can match this tool.
pub(crate) fn may_be_tool(tree: &pst::Template, tool: &str) -> bool {
    filed_under(tree).is_none_or(|(kind, id)| kind == "Tool" && id == tool)
}

/// An entity's id.
pub(crate) fn uid(kind: &cedar_policy::EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), cedar_policy::EntityId::new(id))
}

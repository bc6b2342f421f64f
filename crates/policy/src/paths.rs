//! File rules for the sandbox: what `read_file`, `write_file` and `mount` policies mean as paths,
//! so that `cat` in a shell is bound by the same rule as `read_file`.
//!
//! A path that ends in `/` stands for the directory and everything below; any other stands for that
//! one file, and must not be applied to a directory. What is denied wins over what is permitted.
//!
//! - With no `permit` that speaks of an action, its field is `None`: a sandbox that runs commands
//!   has its whole workspace and memory, but for what is denied. Once a `permit` speaks of it: exactly that.
//! - `context.path like "/x/*"` includes the directory `/x` itself, because a sandbox cannot show
//!   what lies in a directory and hide the directory.
//! - A rule that is no set of whole directories and single paths (labels, approval, other wildcards)
//!   is refused. Two exceptions: a `forbid` that covers `run_command` on the same condition binds
//!   each command as it starts; and where no command can be permitted, each file access is decided
//!   by itself, so nothing needs to be compiled (the field is then `None`).

use crate::cedar::{Statement, with_stack};
use crate::input::Principal;
use crate::{PolicyError, PolicySet, monotone, slice};
use cedar_policy::pst::{
    BinaryOp, Clause, EntityOrSlot, EntityUID, Expr, Literal, PatternElem, PrincipalConstraint,
    ResourceConstraint, Template, UnaryOp, Var,
};

/// What the sandbox may see and change, as absolute sandbox paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FsRules {
    /// What may be read; `None`: the whole workspace.
    pub read: Option<Vec<String>>,
    /// What may be written; `None`: the whole workspace.
    pub write: Option<Vec<String>>,
    /// What may not be read, whatever `read` says.
    pub deny_read: Vec<String>,
    /// What may not be written, whatever `write` says.
    pub deny_write: Vec<String>,
    /// What may be mounted.
    pub mounts: Vec<String>,
}

impl FsRules {
    /// Whether one of the paths covers this one.
    #[must_use]
    pub fn covers(rules: &[String], path: &str) -> bool {
        rules.iter().any(|rule| Node::read(rule).covers(path))
    }
}

/// A directory with everything below (without its final `/`; empty is the root), or one path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Tree(String),
    Exact(String),
}

impl Node {
    fn read(rule: &str) -> Self {
        match rule.strip_suffix('/') {
            Some(directory) => Self::Tree(directory.to_owned()),
            None => Self::Exact(rule.to_owned()),
        }
    }

    fn write(&self) -> String {
        match self {
            Self::Tree(directory) => format!("{directory}/"),
            Self::Exact(path) => path.clone(),
        }
    }

    fn covers(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == path,
            Self::Tree(directory) => {
                directory.is_empty()
                    || path
                        .strip_prefix(directory.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }

    const fn path(&self) -> &String {
        match self {
            Self::Tree(path) | Self::Exact(path) => path,
        }
    }

    /// What lies in both: of two nodes, one holds the other or they are apart.
    fn meet(&self, other: &Self) -> Option<Self> {
        let inside = |inner: &Self, outer: &Self| outer.covers(inner.path());
        match (self, other) {
            (Self::Exact(_), _) if inside(self, other) => Some(self.clone()),
            (_, Self::Exact(_)) if inside(other, self) => Some(other.clone()),
            (Self::Tree(_), Self::Tree(_)) if inside(self, other) => Some(self.clone()),
            (Self::Tree(_), Self::Tree(_)) if inside(other, self) => Some(other.clone()),
            _ => None,
        }
    }
}

/// `include` without `exclude`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Region {
    include: Vec<Node>,
    exclude: Vec<Node>,
}

impl Region {
    fn all() -> Self {
        Self::of(Node::Tree(String::new()))
    }

    const fn none() -> Self {
        Self { include: Vec::new(), exclude: Vec::new() }
    }

    fn of(node: Node) -> Self {
        Self { include: vec![node], exclude: Vec::new() }
    }

    fn of_bool(value: bool) -> Self {
        if value { Self::all() } else { Self::none() }
    }

    fn is_all_but(&self) -> bool {
        self.include.contains(&Node::Tree(String::new()))
    }

    fn and(self, other: Self) -> Self {
        let mut exclude = self.exclude;
        exclude.extend(other.exclude);
        Self { include: meet(&self.include, &other.include), exclude }
    }

    fn or(mut self, other: Self) -> Result<Self, String> {
        if !(self.exclude.is_empty() && other.exclude.is_empty()) {
            return Err("`||` with an exception is no set of whole directories".to_owned());
        }
        self.include.extend(other.include);
        Ok(self)
    }

    fn not(self) -> Result<Self, String> {
        if self.exclude.is_empty() {
            return Ok(Self { exclude: self.include, ..Self::all() });
        }
        if self.is_all_but() {
            return Ok(Self { include: self.exclude, exclude: Vec::new() });
        }
        Err("an exception of an exception is no set of whole directories".to_owned())
    }
}

fn meet(a: &[Node], b: &[Node]) -> Vec<Node> {
    a.iter().flat_map(|x| b.iter().filter_map(|y| x.meet(y))).collect()
}

/// What one action's policies come to.
#[derive(Default)]
struct Compiled {
    permitted: Option<Vec<Node>>,
    denied: Vec<Node>,
}

impl PolicySet {
    /// The file rules of this set for its principal.
    ///
    /// # Errors
    /// BP-POLICY-008 for a rule that the sandbox cannot enforce while commands may run in it.
    pub fn fs_rules(&self) -> Result<FsRules, PolicyError> {
        with_stack(|| self.compile_rules())
    }

    fn compile_rules(&self) -> Result<FsRules, PolicyError> {
        let read = self.compile_paths("read_file")?;
        let write = self.compile_paths("write_file")?;
        let mount = self.compile_paths("mount")?;
        let mounts = mount.permitted.unwrap_or_default();
        let mounts = mounts
            .into_iter()
            .filter(|node| !mount.denied.iter().any(|d| d.meet(node).is_some()))
            .collect();
        Ok(FsRules {
            read: read.permitted.map(written),
            write: write.permitted.map(written),
            deny_read: written(read.denied),
            deny_write: written(write.denied),
            mounts: written(mounts),
        })
    }

    fn compile_paths(&self, action: &str) -> Result<Compiled, PolicyError> {
        let binding = self.may_run_commands();
        let mut permits: Vec<(&Statement, Region)> = Vec::new();
        let mut forbids: Vec<(&Statement, Region)> = Vec::new();
        let applies = |s: &&Statement| slice::has_action(&s.tree, action);
        for statement in self.statements.iter().filter(applies) {
            let region = match region_of(&statement.tree, action, &self.principal) {
                Ok(region) => region,
                Err(_) if statement.forbids() && binds_commands(&statement.tree) => continue,
                Err(_) if !binding && !statement.forbids() => return Ok(Compiled::default()),
                Err(_) if !binding => continue,
                Err(reason) => return Err(refusal(statement, reason)),
            };
            if region.include.is_empty() {
                continue;
            }
            if statement.forbids() {
                forbids.push((statement, region));
            } else {
                permits.push((statement, region));
            }
        }
        match combine(&permits, &forbids) {
            Err(_) if !binding => Ok(Compiled::default()),
            combined => combined,
        }
    }

    /// Whether any command may be permitted, on whatever condition.
    #[must_use]
    pub fn may_run_commands(&self) -> bool {
        let of = |forbids: bool| {
            self.statements.iter().filter(move |s| {
                s.forbids() == forbids
                    && slice::has_action(&s.tree, "run_command")
                    && principal_matches(&s.tree.principal, &self.principal)
            })
        };
        of(false).any(|permit| {
            let tool = slice::filed_under(&permit.tree);
            let closed = |forbid: &Statement| {
                let scope = slice::filed_under(&forbid.tree);
                forbid.tree.clauses().is_empty() && (scope.is_none() || scope == tool)
            };
            !of(true).any(closed)
        })
    }
}

fn refusal(statement: &Statement, reason: String) -> PolicyError {
    PolicyError::NotEnforceable { policy: statement.id().to_owned(), reason }
}

fn combine(
    permits: &[(&Statement, Region)],
    forbids: &[(&Statement, Region)],
) -> Result<Compiled, PolicyError> {
    let mut denied = Vec::new();
    let mut permitted: Option<Vec<Node>> = None;
    for (index, (statement, region)) in permits.iter().enumerate() {
        let others = permits.iter().enumerate().filter(|(other, _)| *other != index);
        for (_, (_, other)) in others {
            if other != region && !meet(&region.exclude, &other.include).is_empty() {
                let reason = "its exception is permitted by another policy";
                return Err(refusal(statement, reason.to_owned()));
            }
        }
        denied.extend(region.exclude.clone());
        permitted.get_or_insert_default().extend(region.include.clone());
    }
    for (statement, region) in forbids {
        if region.exclude.is_empty() {
            denied.extend(region.include.clone());
        } else if region.is_all_but() {
            let all = || [crate::WORKSPACE, crate::MEMORY].map(|tree| Node::Tree(tree.to_owned()));
            let before = permitted.unwrap_or_else(|| all().to_vec());
            permitted = Some(meet(&before, &region.exclude));
        } else {
            let reason = "it forbids a directory but for a part of it";
            return Err(refusal(statement, reason.to_owned()));
        }
    }
    Ok(Compiled { permitted, denied })
}

/// Sorted, without what another one holds.
fn written(mut nodes: Vec<Node>) -> Vec<String> {
    nodes.sort();
    nodes.dedup();
    let held = |node: &Node| {
        nodes.iter().any(|other| other != node && other.meet(node).as_ref() == Some(node))
    };
    let kept: Vec<&Node> = nodes.iter().filter(|node| !held(node)).collect();
    kept.into_iter().map(Node::write).collect()
}

/// Whether a `forbid` stops commands on the same condition as file access. Approval is another
/// condition: who approves a command does not approve each file it reads.
fn binds_commands(tree: &Template) -> bool {
    let about_resource = |condition: &Expr| {
        condition.reduce(
            &|expr| match expr {
                Expr::Var(Var::Resource | Var::Action) | Expr::HasAttr { .. } => Some(true),
                _ => None,
            },
            &|a, b| a || b,
            false,
        )
    };
    slice::has_action(tree, "run_command")
        && !monotone::needs_approval(tree)
        && matches!(tree.resource, ResourceConstraint::Any)
        && !tree.clauses().iter().any(|clause| match clause {
            Clause::When(condition) | Clause::Unless(condition) => about_resource(condition),
        })
}

fn region_of(tree: &Template, action: &str, principal: &Principal) -> Result<Region, String> {
    if !principal_matches(&tree.principal, principal) {
        return Ok(Region::none());
    }
    let mut region = match &tree.resource {
        ResourceConstraint::Any => Region::all(),
        ResourceConstraint::Eq(EntityOrSlot::Entity(uid)) => exact(&uid.eid)?,
        ResourceConstraint::In(EntityOrSlot::Entity(uid)) => tree_of(&uid.eid)?,
        ResourceConstraint::Is(kind) => Region::of_bool(kind.0.id.as_str() == "Path"),
        ResourceConstraint::IsIn(kind, EntityOrSlot::Entity(uid)) => {
            Region::of_bool(kind.0.id.as_str() == "Path").and(tree_of(&uid.eid)?)
        }
        _ => return Err("its scope is a template".to_owned()),
    };
    for clause in tree.clauses() {
        region = region.and(match clause {
            Clause::When(condition) => of(condition, action, principal)?,
            Clause::Unless(condition) => of(condition, action, principal)?.not()?,
        });
    }
    Ok(region)
}

/// A path of a policy as one node. Only canonical paths ever match a request.
fn exact(path: &str) -> Result<Region, String> {
    match crate::host::check_file_path(path) {
        Ok(()) if path == "/" => Err("the root alone is no file".to_owned()),
        Ok(()) => Ok(Region::of(Node::Exact(path.to_owned()))),
        Err(why) => Err(format!("path {path:?} never matches: {why}")),
    }
}

fn tree_of(path: &str) -> Result<Region, String> {
    match crate::host::check_file_path(path) {
        Ok(()) => Ok(Region::of(Node::Tree(path.trim_end_matches('/').to_owned()))),
        Err(why) => Err(format!("path {path:?} never matches: {why}")),
    }
}

fn of(expr: &Expr, action: &str, principal: &Principal) -> Result<Region, String> {
    let unlike = || format!("`{expr}` is no set of whole directories and single paths");
    match expr {
        Expr::Literal(Literal::Bool(value)) => Ok(Region::of_bool(*value)),
        Expr::UnaryOp { op: UnaryOp::Not, expr } => of(expr, action, principal)?.not(),
        Expr::BinaryOp { op, left, right } => match op {
            BinaryOp::And => Ok(of(left, action, principal)?.and(of(right, action, principal)?)),
            BinaryOp::Or => of(left, action, principal)?.or(of(right, action, principal)?),
            BinaryOp::Eq => equal(left, right, action, principal).unwrap_or_else(|| Err(unlike())),
            BinaryOp::NotEq => {
                equal(left, right, action, principal).unwrap_or_else(|| Err(unlike()))?.not()
            }
            BinaryOp::In => within(left, right, principal).unwrap_or_else(|| Err(unlike())),
            _ => Err(unlike()),
        },
        Expr::Like { expr: of, pattern } if is_context_path(of) => {
            like(pattern).unwrap_or_else(|| Err(unlike()))
        }
        Expr::Is { expr, entity_type, in_expr: None } => {
            match (expr.as_ref(), entity_type.0.id.as_str()) {
                (Expr::Var(Var::Resource), kind) => Ok(Region::of_bool(kind == "Path")),
                (Expr::Var(Var::Principal), kind) => {
                    Ok(Region::of_bool(kind == principal.type_name()))
                }
                _ => Err(unlike()),
            }
        }
        _ => Err(unlike()),
    }
}

fn is_context_path(expr: &Expr) -> bool {
    matches!(expr, Expr::GetAttr { expr, attr } if attr == "path" && matches!(**expr, Expr::Var(Var::Context)))
}

/// `"/x/*"`, `"*"` and patterns without a wildcard.
fn like(pattern: &[PatternElem]) -> Option<Result<Region, String>> {
    let mut text = String::new();
    for (index, element) in pattern.iter().enumerate() {
        match element {
            PatternElem::Char(c) => text.push(*c),
            PatternElem::Wildcard if index + 1 == pattern.len() => {
                return match text.strip_suffix('/') {
                    Some("") => Some(Ok(Region::all())),
                    Some(directory) => Some(tree_of(directory)),
                    None if text.is_empty() => Some(Ok(Region::all())),
                    None => None,
                };
            }
            PatternElem::Wildcard => return None,
        }
    }
    Some(exact(&text))
}

fn uid_of(expr: &Expr) -> Option<&EntityUID> {
    match expr {
        Expr::Literal(Literal::EntityUID(uid)) => Some(uid),
        _ => None,
    }
}

fn equal(
    left: &Expr,
    right: &Expr,
    action: &str,
    principal: &Principal,
) -> Option<Result<Region, String>> {
    let (variable, constant) = match left {
        Expr::Literal(_) => (right, left),
        _ => (left, right),
    };
    match (variable, constant) {
        (of, Expr::Literal(Literal::String(path))) if is_context_path(of) => Some(exact(path)),
        (Expr::Var(Var::Resource), _) => Some(exact(&uid_of(constant)?.eid)),
        (Expr::Var(Var::Action), _) => Some(Ok(Region::of_bool(uid_of(constant)?.eid == action))),
        (Expr::Var(Var::Principal), _) => {
            Some(Ok(Region::of_bool(is_principal(uid_of(constant)?, principal))))
        }
        _ => None,
    }
}

fn within(left: &Expr, right: &Expr, principal: &Principal) -> Option<Result<Region, String>> {
    let uid = uid_of(right)?;
    match left {
        Expr::Var(Var::Resource) => Some(tree_of(&uid.eid)),
        Expr::Var(Var::Principal) => Some(Ok(Region::of_bool(is_in(uid, principal)))),
        _ => None,
    }
}

fn is_principal(uid: &EntityUID, principal: &Principal) -> bool {
    uid.ty.0.id.as_str() == principal.type_name() && uid.eid == principal.name
}

fn is_in(uid: &EntityUID, principal: &Principal) -> bool {
    let team =
        uid.ty.0.id.as_str() == "Team" && principal.teams.iter().any(|t| uid.eid == t.as_str());
    team || is_principal(uid, principal)
}

/// Whether a policy's principal scope matches.
pub(crate) fn principal_matches(scope: &PrincipalConstraint, principal: &Principal) -> bool {
    use PrincipalConstraint as P;
    let is = |kind: &cedar_policy::pst::EntityType| kind.0.id.as_str() == principal.type_name();
    match scope {
        P::Any => true,
        P::Eq(EntityOrSlot::Entity(uid)) => is_principal(uid, principal),
        P::In(EntityOrSlot::Entity(uid)) => is_in(uid, principal),
        P::Is(kind) => is(kind),
        P::IsIn(kind, EntityOrSlot::Entity(uid)) => is(kind) && is_in(uid, principal),
        P::Eq(_) | P::In(_) | P::IsIn(..) => false,
    }
}

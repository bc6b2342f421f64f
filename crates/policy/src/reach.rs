//! May any rule permit this name? Asked before a name is resolved, when method and path are not yet
//! known.

use crate::cedar::Statement;
use crate::question::host_keys;
use crate::{PolicySet, host, paths, slice};

impl PolicySet {
    /// Whether some request or connection to this host could be permitted, at once or once
    /// approved. `false` is final: no request to it can be. A name not in canonical form is `false`.
    #[must_use]
    pub fn may_reach(&self, host: &str) -> bool {
        if host::check(host).is_err() {
            return false;
        }
        ["http_request", "connect"].into_iter().any(|action| self.may_reach_by(action, host))
    }

    fn may_reach_by(&self, action: &str, host: &str) -> bool {
        let keys = host_keys(host);
        let applies = |statement: &&Statement| {
            let scope = slice::filed_under(&statement.tree);
            let on_host = scope.is_none_or(|(kind, id)| {
                keys.iter().any(|(key, name)| key.name() == kind && *name == id)
            });
            on_host
                && slice::has_action(&statement.tree, action)
                && paths::principal_matches(&statement.tree.principal, self.principal())
        };
        let mut permitted = false;
        for statement in self.statements.iter().filter(applies) {
            if !statement.forbids() {
                permitted = true;
            } else if statement.tree.clauses().is_empty() {
                return false;
            }
        }
        permitted
    }
}

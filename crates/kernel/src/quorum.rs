//! Who has approved something, of how many that must.

use serde::Serialize;

/// The people who said yes so far. Each counts once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quorum {
    /// How many must.
    pub needs: u32,
    /// Who did, and the entries that each would leave open for the rest of the run.
    given: Vec<(String, Vec<String>)>,
}

impl Quorum {
    /// Nobody yet, of so many.
    #[must_use]
    pub const fn new(needs: u32) -> Self {
        Self { needs, given: Vec::new() }
    }

    /// Takes one person's yes. Once enough have said it: what stays open, which is what all of
    /// them named, else nothing.
    pub(crate) fn approve(&mut self, by: &str, opens: &[String]) -> Option<Vec<String>> {
        if !self.has(by) {
            self.given.push((by.to_owned(), opens.to_vec()));
        }
        if self.given.len() < self.needs as usize {
            return None;
        }
        let alike = self.given.iter().all(|(_, entries)| entries == opens);
        Some(if alike { opens.to_vec() } else { Vec::new() })
    }

    /// Whether this person said yes already.
    #[must_use]
    pub fn has(&self, by: &str) -> bool {
        self.given.iter().any(|(person, _)| person == by)
    }

    /// Who said yes.
    pub fn approvers(&self) -> impl Iterator<Item = &str> {
        self.given.iter().map(|(person, _)| person.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_person_counts_once_and_only_what_all_named_stays_open() {
        let entries = vec!["POST a.test/x".to_owned()];
        let mut one = Quorum::new(1);
        assert_eq!(one.approve("ada", &entries), Some(entries.clone()));
        let mut two = Quorum::new(2);
        assert_eq!(two.approve("ada", &entries), None);
        assert_eq!(two.approve("ada", &entries), None, "the same person again");
        assert!(two.has("ada") && !two.has("bo"));
        assert_eq!(two.approve("bo", &entries), Some(entries.clone()));
        let mut differ = Quorum::new(2);
        assert_eq!(differ.approve("ada", &entries), None);
        assert_eq!(differ.approve("bo", &[]), Some(Vec::new()));
    }
}

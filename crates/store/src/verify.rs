//! Verification of a run, over any store: the chain by `ledger`, and every content against it.

use crate::{Branch, Content, Evidence, Fault, PAGE_RECORDS, Read, StoreError, VerifyReport};
use ledger::{ChainFault, Standing};
use types::{BranchId, Coded, RunId};

/// Faults kept in a report. The first ones tell; a log broken throughout would fill memory.
pub const FAULTS_MAX: usize = 100;

pub(crate) fn verify<R: Read + ?Sized>(store: &R, run: &RunId) -> Result<VerifyReport, StoreError> {
    let mut report = VerifyReport {
        run: run.clone(),
        branches: 0,
        records: 0,
        contents: 0,
        erased: false,
        faults: Vec::new(),
    };
    for branch in store.branches(run)? {
        report.branches += 1;
        check_chain(store, &mut report, branch.branch)?;
        check_contents(store, &mut report, &branch)?;
    }
    Ok(report)
}

impl VerifyReport {
    fn add(&mut self, branch: BranchId, fault: &impl Coded) {
        if self.faults.len() < FAULTS_MAX {
            let failure = fault.failure();
            self.faults.push(Fault { branch, failure });
        }
    }
}

/// The chain from the run's first record to the branch's head. The head is read first, so records
/// appended meanwhile do not disturb.
fn check_chain<R: Read + ?Sized>(
    store: &R,
    report: &mut VerifyReport,
    branch: BranchId,
) -> Result<(), StoreError> {
    let run = report.run.clone();
    let head = store.head(&run, branch)?;
    let mut headers = Headers {
        store,
        run: &run,
        branch,
        next_seq: 0,
        end_seq: head.next_seq,
        page: Vec::new().into_iter(),
        failed: None,
    };
    let verified = ledger::verify_chain(&mut headers, head);
    if let Some(error) = headers.failed {
        return Err(error);
    }
    if let Err(fault) = verified {
        report.add(branch, &fault);
    }
    let now = store.head(&run, branch)?;
    let beyond = store.headers_page(&run, branch, now.next_seq, 1)?;
    if !beyond.is_empty() && store.head(&run, branch)? == now {
        let (seq, expected) = (now.next_seq, now.next_seq);
        report.add(branch, &ChainFault::Surplus { seq, expected });
    }
    Ok(())
}

/// The headers of a branch, page by page; ends early when the store fails.
struct Headers<'a, R: Read + ?Sized> {
    store: &'a R,
    run: &'a RunId,
    branch: BranchId,
    next_seq: u64,
    end_seq: u64,
    page: std::vec::IntoIter<Vec<u8>>,
    failed: Option<StoreError>,
}

impl<R: Read + ?Sized> Iterator for &mut Headers<'_, R> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.page.len() == 0 {
            let left = self.end_seq.saturating_sub(self.next_seq);
            let limit = PAGE_RECORDS.min(usize::try_from(left).unwrap_or(PAGE_RECORDS));
            let page = self.store.headers_page(self.run, self.branch, self.next_seq, limit);
            match page {
                Ok(page) => self.page = page.into_iter(),
                Err(error) => self.failed = Some(error),
            }
        }
        let header = self.page.next()?;
        self.next_seq += 1;
        Some(header)
    }
}

/// The contents of the records written on this branch itself.
fn check_contents<R: Read + ?Sized>(
    store: &R,
    report: &mut VerifyReport,
    branch: &Branch,
) -> Result<(), StoreError> {
    let run = report.run.clone();
    let mut seq = branch.forked.as_ref().map_or(0, |point| point.at_seq + 1);
    while seq < branch.next_seq {
        let page = store.evidence_page(&run, branch.branch, seq, PAGE_RECORDS)?;
        if page.is_empty() {
            break;
        }
        for evidence in &page {
            report.records += 1;
            seq = check_record(report, branch.branch, seq, evidence) + 1;
        }
    }
    Ok(())
}

/// Checks one record that stands at `seq` or, if some are missing, after it. Returns its number.
fn check_record(report: &mut VerifyReport, branch: BranchId, seq: u64, evidence: &Evidence) -> u64 {
    let run = report.run.clone();
    // A header that cannot be read or stands elsewhere is the chain's finding.
    let header = match ledger::decode(&evidence.header) {
        Ok(header) if header.seq >= seq => header,
        _ => return seq,
    };
    let seq = header.seq;
    let damaged = |why: String| StoreError::Damaged { run: run.clone(), seq, why };
    for (name, content) in &evidence.contents {
        report.contents += 1;
        let found = match content {
            Content::Present(salt, bytes) => Some((salt, bytes.as_slice())),
            Content::Erased => None,
            Content::Damaged(why) => {
                report.add(branch, &damaged(format!("its {name}: {why}")));
                continue;
            }
        };
        match ledger::verify_content(&header, name, found) {
            Ok(Standing::Erased) => report.erased = true,
            Ok(Standing::Intact) => {}
            Err(fault) => report.add(branch, &fault),
        }
    }
    let there = |name: &str| evidence.contents.iter().any(|(found, _)| found == name);
    for commitment in header.commitments.iter().filter(|c| !there(&c.name)) {
        report.add(branch, &damaged(format!("its {} is missing", commitment.name)));
    }
    seq
}

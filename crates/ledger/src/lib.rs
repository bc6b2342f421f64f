//! The chain: canonical headers, commitments, digests, verification. The file an auditor reads. Pure.

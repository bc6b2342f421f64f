//! The gate process and its client: what reads hostile bytes has no privilege.

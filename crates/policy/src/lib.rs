//! Cedar and permissions to decisions. Pure, and never near a secret.

//! The log and its payloads, durable and erasable.

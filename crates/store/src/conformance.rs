//! The conformance kit: what every store must do.

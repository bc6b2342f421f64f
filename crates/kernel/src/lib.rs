//! The run's state machine: fold records to a state, and say what comes next. Pure.

//! Performs the kernel's commands: owner, lifecycle, timers, approvals, recovery.

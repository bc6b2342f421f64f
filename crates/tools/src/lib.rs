//! What a tool is: built-in tools, command tools, their schemas and contracts.

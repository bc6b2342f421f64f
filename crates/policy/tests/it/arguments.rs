//! Typed arguments of tools.

use crate::support::{cedar_sources, compile, wrong};
use policy::{DecisionInput, PolicySet, Principal, Sources, ToolDecl, ToolKind};
use serde_json::{Value, json};
use types::{ActionRequest, EffectClass, Verdict};

fn with_tools(text: &str) -> Sources {
    let tool = |name: &str, schema: Value| ToolDecl {
        input_schema: schema,
        ..ToolDecl::new(name, ToolKind::Command, EffectClass::Irreversible)
    };
    let mut sources = cedar_sources(text);
    sources.tools.push(tool(
        "pay",
        json!({"type": "object", "required": ["amount", "to"], "properties": {
            "amount": {"type": "integer"}, "rate": {"type": "number"},
            "to": {"type": "object", "required": ["iban"], "properties": {"iban": {"type": "string"}}},
            "tags": {"type": "array", "items": {"type": "string"}},
        }}),
    ));
    sources.tools.push(tool(
        "mail",
        json!({"type": "object", "required": ["to"], "properties": {"to": {"type": "string"}}}),
    ));
    sources
}

fn decide(set: &PolicySet, tool: &str, arguments: Value) -> policy::Decision {
    set.decide(&DecisionInput::new(
        Principal::agent("triage", ""),
        ActionRequest::CallTool { tool: tool.into(), arguments, effect: EffectClass::Irreversible },
    ))
}

const PAY: &str = "permit(principal, action == Action::\"call_tool\", resource == Tool::\"pay\")
  when { context.arguments.amount <= 100 && context.arguments.to.iban like \"DE*\" };";

#[test]
fn a_policy_of_one_tool_sees_its_types() {
    let set = compile(&with_tools(PAY));
    for (arguments, expected) in [
        (json!({"amount": 100, "to": {"iban": "DE1"}}), Verdict::Permit),
        (json!({"amount": 101, "to": {"iban": "DE1"}}), Verdict::Deny),
        (json!({"amount": 1, "to": {"iban": "FR1"}}), Verdict::Deny),
    ] {
        let decision = decide(&set, "pay", arguments.clone());
        assert_eq!((decision.verdict, decision.errors.len()), (expected, 0), "{arguments}");
    }
}

#[test]
fn arguments_that_do_not_fit_are_denied_and_coded() {
    let permissive = "forbid(principal, action == Action::\"call_tool\", resource == Tool::\"pay\") when { context.arguments.amount > 100 };
        permit(principal, action == Action::\"call_tool\", resource);";
    let set = compile(&with_tools(permissive));
    let good = json!({"amount": 1, "to": {"iban": ""}});
    assert_eq!(decide(&set, "pay", good).verdict, Verdict::Permit);
    for arguments in [
        json!({"to": {"iban": ""}}),
        json!({"amount": "1", "to": {"iban": ""}}),
        json!({"amount": 1.5, "to": {"iban": ""}}),
        json!({"amount": 1e30, "to": {"iban": ""}}),
        json!({"amount": 1, "to": "DE"}),
        json!({"amount": 1, "to": {"iban": ""}, "rate": 0.000_01}),
        json!("not an object"),
        json!(null),
    ] {
        let decision = decide(&set, "pay", arguments.clone());
        assert_eq!(decision.verdict, Verdict::Deny, "{arguments}");
        assert_eq!(decision.errors[0].code, "BP-POLICY-013", "{arguments}");
    }
    let undeclared = decide(&set, "unknown", json!({}));
    assert_eq!(
        (undeclared.verdict, undeclared.errors[0].code.as_str()),
        (Verdict::Deny, "BP-POLICY-013")
    );
}

#[test]
fn arguments_nobody_looks_at_are_not_judged() {
    let set = compile(&with_tools("permit(principal, action == Action::\"call_tool\", resource);"));
    assert_eq!(decide(&set, "pay", json!("anything")).verdict, Verdict::Permit);
    assert_eq!(decide(&set, "unknown", json!(null)).verdict, Verdict::Permit);
}

#[test]
fn a_policy_of_any_tool_is_checked_against_each() {
    let unsafe_for_some = "permit(principal, action == Action::\"call_tool\", resource) when { context.arguments.amount > 1 };";
    let errors = wrong(&with_tools(unsafe_for_some));
    assert!(
        errors
            .iter()
            .any(|e| e.starts_with("BP-POLICY-002") && e.contains("arguments of tool \"mail\"")),
        "{errors:?}"
    );
    assert!(!errors.iter().any(|e| e.contains("arguments of tool \"pay\"")), "{errors:?}");
    let guarded = "permit(principal, action == Action::\"call_tool\", resource) when { context.arguments has amount && context.arguments.amount > 1 };";
    let set = compile(&with_tools(guarded));
    assert_eq!(
        decide(&set, "pay", json!({"amount": 2, "to": {"iban": ""}})).verdict,
        Verdict::Permit
    );
    assert_eq!(decide(&set, "mail", json!({"to": "x"})).verdict, Verdict::Deny);
}

#[test]
fn misspelt_and_mistyped_arguments_are_refused_at_load() {
    for (clause, says) in [
        ("context.arguments.amout <= 100", "amout"),
        ("context.arguments.amount like \"1*\"", "String"),
        ("context.arguments.rate.lessThan(decimal(\"2.0\"))", "rate"),
        ("context.arguments.tags.contains(1)", "Long and String"),
    ] {
        let text = format!(
            "permit(principal, action == Action::\"call_tool\", resource == Tool::\"pay\") when {{ {clause} }};"
        );
        let errors = wrong(&with_tools(&text));
        assert!(
            errors[0].starts_with("BP-POLICY-002 policy.cedar:1:")
                && errors.join(" ").contains(says),
            "{errors:?}"
        );
    }
    let optional = "permit(principal, action == Action::\"call_tool\", resource == Tool::\"pay\")
        when { context.arguments has rate && context.arguments.rate.lessThan(decimal(\"2.0\")) };";
    let set = compile(&with_tools(optional));
    assert_eq!(
        decide(&set, "pay", json!({"amount": 2, "to": {"iban": ""}, "rate": 1.25})).verdict,
        Verdict::Permit
    );
    assert_eq!(
        decide(&set, "pay", json!({"amount": 2, "to": {"iban": ""}})).verdict,
        Verdict::Deny
    );
}

#[test]
fn the_digest_covers_the_types_that_policies_look_at() {
    let with = compile(&with_tools(PAY));
    let mut changed = with_tools(PAY);
    changed.tools.iter_mut().find(|t| t.name == "pay").expect("declared").input_schema["properties"]
        ["more"] = json!({"type": "string"});
    assert_ne!(compile(&changed).digest(), with.digest());
}

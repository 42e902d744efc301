use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::domain::{RequestId, Stopwatch};
use crate::telemetry::Metrics;

pub(super) fn caller(subject: &str, groups: &[&str], scopes: &[&str]) -> Caller {
    let set = |texts: &[&str]| -> BTreeSet<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    };
    Caller {
        principal: Arc::new(Principal {
            scopes: set(scopes),
            groups: set(groups),
            ..Principal::of_first_issuer(subject, "https://issuer.example")
        }),
        client_ip: "10.0.0.7".parse().ok(),
        user_agent: None,
        request_id: RequestId::generate(),
        trace_id: None,
        since_arrival: Stopwatch::start(),
    }
}

fn change(operation: Operation, image: &str, account: u64, reason: Option<&str>) -> Change {
    Change {
        operation,
        image_id: image.parse().expect("an image"),
        account_id: account.try_into().expect("an account"),
        region: "cn-wlcb".parse().expect("a region"),
        reason: reason.map(|text| text.parse().expect("a reason")),
    }
}

const ALL_SCOPES: [&str; 3] = ["shares:read", "shares:write", "audit:read"];

fn authorizer(policies: &str) -> Authorizer {
    let policies = Policies::parse(policies).unwrap_or_else(|faults| panic!("{faults}"));
    Authorizer::new(Some(policies), Metrics::new())
}

fn ids(decision: Decision) -> (bool, Vec<String>) {
    match decision {
        Decision::Allowed { policy_ids } => (true, policy_ids),
        Decision::Refused(Refusal::Forbidden { policy_ids }) => (false, policy_ids),
        Decision::Refused(Refusal::InsufficientScope(scope)) => {
            (false, vec![format!("lacks {}", scope.as_str())])
        }
    }
}

#[test]
fn each_request_needs_its_own_scope() {
    let share = change(Operation::Share, "img", 7, None);
    let unshare = change(Operation::Unshare, "img", 7, None);
    let (region, image_id) = (&share.region, &share.image_id);
    let requests = [
        (Request::Change(&share), "shares:write"),
        (Request::Change(&unshare), "shares:write"),
        (Request::ListShares { region, image_id }, "shares:read"),
        (Request::ReadAudit, "audit:read"),
    ];
    let permits_all = "permit (principal, action, resource);";
    for authorizer in [
        Authorizer::new(None, Metrics::new()),
        authorizer(permits_all),
    ] {
        for (request, needed) in requests {
            for scope in [
                "shares:write",
                "shares:read",
                "audit:read",
                "shares:writes",
                "",
            ] {
                let caller = caller("team-a", &[], &[scope]);
                let allowed = authorizer.check(&caller, request).is_ok();
                assert_eq!(allowed, scope == needed, "{request:?} with {scope:?}");
            }
        }
    }
}

#[test]
fn policies_see_what_the_contract_says_they_see() {
    let authorizer = authorizer(
        r#"
        @id("all that there is")
        permit (
            principal == Subject::"team-a",
            action in [Action::"share", Action::"unshare"],
            resource == Image::"img-1"
        )
        when {
            principal in Group::"makers" && principal.scopes.contains("shares:write")
            && principal.issuer == "https://issuer.example"
            && resource.image_id like "img-*" && resource.region == "cn-wlcb"
            && context.account_id == 7 && context.region == "cn-wlcb"
            && context.client_ip.isInRange(ip("10.0.0.0/8"))
            && context has reason && context.reason like "OPS-*"
        };
        @id("lists")
        permit (principal, action == Action::"listShares", resource is Image)
        when { context.region == resource.region && !context.client_ip.isLoopback() };
        @id("trail")
        permit (principal, action == Action::"readAudit", resource == AuditLog::"audit");
        "#,
    );
    let maker = caller("team-a", &["makers"], &ALL_SCOPES);
    let right = change(Operation::Share, "img-1", 7, Some("OPS-17"));
    let decide =
        |caller: &Caller, change: &Change| ids(authorizer.decide(caller, Request::Change(change)));
    let allowed = (true, vec!["all that there is".to_owned()]);
    assert_eq!(decide(&maker, &right), allowed);
    for (what, caller, change) in [
        (
            "subject",
            caller("team-b", &["makers"], &ALL_SCOPES),
            right.clone(),
        ),
        (
            "group",
            caller("team-a", &["others"], &ALL_SCOPES),
            right.clone(),
        ),
        (
            "image",
            maker.clone(),
            change(Operation::Share, "img-2", 7, Some("OPS-17")),
        ),
        (
            "account",
            maker.clone(),
            change(Operation::Share, "img-1", 8, Some("OPS-17")),
        ),
        (
            "reason",
            maker.clone(),
            change(Operation::Share, "img-1", 7, None),
        ),
        (
            "reason's text",
            maker.clone(),
            change(Operation::Share, "img-1", 7, Some("why")),
        ),
    ] {
        assert_eq!(decide(&caller, &change), (false, vec![]), "another {what}");
    }
    let mut elsewhere = maker.clone();
    elsewhere.client_ip = "192.0.2.1".parse().ok();
    assert_eq!(decide(&elsewhere, &right), (false, vec![]));
    let (region, image_id) = (&right.region, &right.image_id);
    let list = Request::ListShares { region, image_id };
    assert_eq!(
        ids(authorizer.decide(&maker, list)),
        (true, vec!["lists".into()])
    );
    let trail = authorizer.decide(&maker, Request::ReadAudit);
    assert_eq!(ids(trail), (true, vec!["trail".into()]));
}

#[test]
fn claims_are_tags_and_names_of_further_issuers_stand_behind_the_issuers_own() {
    let authorizer = authorizer(
        r#"
        @id("the \"production\" pipeline")
        permit (principal == Subject::"ci:team-a", action == Action::"readAudit", resource)
        when {
            principal in Group::"ci:makers" && principal.subject == "team-a" &&
            principal.hasTag("environment") && principal.getTag("environment") == "production"
        };
        "#,
    );
    let asks = |name: Option<&str>, claims: &[(&str, &str)]| {
        let plain = caller("team-a", &["makers"], &ALL_SCOPES);
        let claims = claims.iter();
        let principal = Principal {
            issuer_name: name.map(|name| name.parse().expect("a name")),
            claims: claims
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Principal::clone(&plain.principal)
        };
        let caller = Caller {
            principal: principal.into(),
            ..plain
        };
        ids(authorizer.decide(&caller, Request::ReadAudit))
    };
    let production = [("environment", "production")];
    let name = "the \"production\" pipeline".to_owned();
    assert_eq!(asks(Some("ci"), &production), (true, vec![name]));
    for (name, claims) in [
        (None, &production[..]),
        (Some("cd"), &production),
        (Some("ci"), &[("environment", "test")]),
        (Some("ci"), &[]),
    ] {
        assert_eq!(asks(name, claims), (false, vec![]), "{name:?} {claims:?}");
    }
}

#[test]
fn a_forbid_that_fails_is_not_passed() {
    let authorizer = authorizer(
        r#"
        @id("everything") permit (principal, action, resource);
        @id("overflows") forbid (principal, action == Action::"share", resource)
        when { context.account_id * 9223372036854775807 == 0 };
        "#,
    );
    let caller = caller("team-a", &[], &ALL_SCOPES);
    let share = change(Operation::Share, "img", 7, None);
    let decision = authorizer.decide(&caller, Request::Change(&share));
    assert_eq!(ids(decision), (false, vec!["overflows".into()]));
}

#[test]
fn faulty_policies_are_refused_with_where_they_are_faulty() {
    for (text, faults) in [
        (
            "permit (principal, action, resource)",
            &["line 1, column"][..],
        ),
        (
            "permit (principal, action, resource);\nforbid (principal, action, resource) when { context.acount_id == 1 };",
            &["line 2, column", "acount_id"],
        ),
        (
            "permit (principal == User::\"x\", action, resource);",
            &["User"],
        ),
        (
            "permit (principal, action == Action::\"share\", resource) when { context.reason like \"OPS-*\" };",
            &["reason"],
        ),
        (
            "permit (principal, action == Action::\"destroy\", resource);",
            &["destroy"],
        ),
        (
            "permit (principal == ?principal, action, resource);",
            &["template"],
        ),
        (
            "@id(\"a\") permit (principal, action, resource);\n@id(\"a\") forbid (principal, action, resource);",
            &["two policies are named `a`"],
        ),
        ("@id(\"\") permit (principal, action, resource);", &["@id"]),
    ] {
        let error = Policies::parse(text).expect_err(text).to_string();
        for fault in faults {
            assert!(error.contains(fault), "{text}: {error}");
        }
    }
}

#[test]
fn no_policies_permit_nothing() {
    let caller = caller("team-a", &[], &ALL_SCOPES);
    let decision = authorizer("// none yet").decide(&caller, Request::ReadAudit);
    assert_eq!(ids(decision), (false, vec![]));
}

#[test]
fn ids_of_people_and_groups_are_data_and_never_policy_text() {
    let odd = "x\" || true || \"";
    let authorizer = authorizer(r#"permit (principal in Group::"makers", action, resource);"#);
    let decision = authorizer.decide(&caller(odd, &[odd], &ALL_SCOPES), Request::ReadAudit);
    assert_eq!(ids(decision), (false, vec![]));
}

#[test]
fn whoever_comes_after_another_is_not_taken_for_it() {
    let authorizer = authorizer(
        r#"permit (principal == Subject::"team-a", action == Action::"readAudit", resource);"#,
    );
    // Principals that come and go may lie where others lay before.
    for number in 0..1000 {
        let subject = if number % 2 == 0 { "team-a" } else { "team-b" };
        let allowed = authorizer
            .check(&caller(subject, &[], &ALL_SCOPES), Request::ReadAudit)
            .is_ok();
        assert_eq!(allowed, subject == "team-a", "{number}");
    }
}

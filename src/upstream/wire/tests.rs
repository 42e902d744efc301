use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::domain::{ImageId, Region};
use crate::upstream::Fate;

fn account(number: u64) -> AccountId {
    number.try_into().expect("an account")
}

fn asked(additions: &[u64], removals: &[u64]) -> Modification {
    Modification {
        region: "cn-wlcb".parse().expect("a region"),
        image_id: "compshareImage-1a2b3c4d5e6f".parse().expect("an image"),
        additions: additions.iter().copied().map(account).collect(),
        removals: removals.iter().copied().map(account).collect(),
    }
}

fn answer(body: &Value) -> Result<Answer, CallError> {
    Answer::read(Exchange {
        body: body.to_string().into_bytes(),
        request_id: None,
    })
}

fn modified(body: &Value) -> Result<Modified, CallError> {
    read_modified(answer(body)?, &asked(&[7, 8], &[9]))
}

fn fields(form: &str) -> BTreeMap<String, String> {
    form_urlencoded::parse(form.as_bytes())
        .into_owned()
        .collect()
}

/// Every recorded request of an SDK that sends a form for one of our two actions, signed with the same
/// keys, has the fields that our client sends.
#[test]
fn forms_have_the_fields_of_the_recorded_sdk_requests() {
    let recorded = include_str!("../../../tests/fixtures/upstream/recorded_requests.json");
    let recorded: Value = serde_json::from_str(recorded).expect("the fixture is JSON");
    let mut compared = 0;
    for entry in recorded["requests"].as_array().expect("a list") {
        let body = entry["request"]["body"].as_str().expect("text");
        let theirs = fields(body);
        let action = match theirs.get("Action").map(String::as_str) {
            Some("ModifyCompShareImageShareAccount") => Action::ModifyShares,
            Some("DescribeCompShareImageShareAccounts") => Action::DescribeShares,
            _ => continue,
        };
        // A client that checks its input never sends an image id with spaces.
        let Ok(image_id) = theirs["CompShareImageId"].parse::<ImageId>() else {
            continue;
        };
        let list = |name: &str| -> Vec<AccountId> {
            (0..)
                .map_while(|index| theirs.get(&format!("{name}.{index}")))
                .map(|id| id.parse().expect("an account"))
                .collect()
        };
        let region: Region = theirs["Region"].parse().expect("a region");
        let mut form = Form::new(action);
        form.push("Region", region.as_str());
        form.push("CompShareImageId", image_id.as_str());
        if let Some(project) = theirs.get("ProjectId") {
            form.push("ProjectId", project);
        }
        form.push_list("AddAccounts", &list("AddAccounts"));
        form.push_list("RemoveAccounts", &list("RemoveAccounts"));
        let ours = form.signed("my_public_key", "my_private_key").0;
        assert_eq!(fields(&ours), theirs, "{}", entry["name"]);
        compared += 1;
    }
    assert_eq!(
        compared, 16,
        "the fixture has as many forms for our actions"
    );
}

#[test]
fn the_tolerances_of_the_protocol_hold() {
    let action = "ModifyCompShareImageShareAccountResponse";
    for invalid in [json!(null), json!([]), json!({})] {
        for ret_code in [json!(0), json!("0")] {
            let body = json!({"Action": action, "RetCode": ret_code, "InvalidAccounts": invalid});
            assert_eq!(
                modified(&body).expect("done").verdict,
                Verdict::Done,
                "{body}"
            );
        }
    }
    assert_eq!(
        modified(&json!({"Action": action, "RetCode": 0}))
            .expect("done")
            .verdict,
        Verdict::Done
    );
    for named in [json!([8]), json!(["8"]), json!([8, 12345])] {
        for ret_code in [0, 230, 150] {
            let body = json!({"Action": action, "RetCode": ret_code, "InvalidAccounts": named});
            let verdict = modified(&body).expect("answered").verdict;
            assert_eq!(
                verdict,
                Verdict::InvalidAccounts(vec![account(8)]),
                "{body}"
            );
        }
    }
}

#[test]
fn invalid_accounts_that_the_call_did_not_name_leave_the_effect_open() {
    let body = json!({"Action": "ModifyCompShareImageShareAccountResponse", "RetCode": 0, "InvalidAccounts": [1]});
    let error = modified(&body).expect_err("odd");
    assert!(matches!(error, CallError::Garbled { .. }), "{error}");
    assert_eq!(error.fate(), Fate::MayHaveApplied);
}

#[test]
fn answers_that_are_not_what_they_should_be_leave_the_effect_open() {
    let action = "ModifyCompShareImageShareAccountResponse";
    let odd = [
        json!([]),
        json!({}),
        json!({"Action": action}),
        json!({"Action": action, "RetCode": null}),
        json!({"Action": action, "RetCode": "abc"}),
        json!({"Action": action, "RetCode": 0.5}),
        json!({"Action": "DescribeCompShareImageShareAccountsResponse", "RetCode": 0}),
        json!({"Action": "ModifyCompShareImageShareAccount", "RetCode": 0}),
        json!({"RetCode": 0}),
        json!({"Action": action, "RetCode": 0, "InvalidAccounts": 7}),
        json!({"Action": action, "RetCode": 0, "InvalidAccounts": {"0": 7}}),
    ];
    for body in odd {
        let error = modified(&body).expect_err("odd");
        assert!(
            matches!(error, CallError::Garbled { .. }),
            "{body}: {error}"
        );
        assert_eq!(error.fate(), Fate::MayHaveApplied, "{body}");
    }
    let html = Exchange {
        body: b"<html>".to_vec(),
        request_id: None,
    };
    assert!(matches!(Answer::read(html), Err(CallError::Garbled { .. })));
}

#[test]
fn a_refusal_needs_no_action_and_keeps_code_message_and_request_id() {
    for code in [json!(171), json!("171")] {
        let body = json!({"RetCode": code, "Message": "Signature VerifyAC Error", "request_uuid": "uuid-1"});
        let error = modified(&body).expect_err("refused");
        assert_eq!(error.ret_code(), Some(171));
        assert_eq!(error.request_id(), Some("uuid-1"));
        assert_eq!(error.fate(), Fate::NotApplied);
        assert!(error.is_operators_fault());
    }
    for (code, fate) in [
        (110, Fate::MayHaveApplied),
        (130, Fate::MayHaveApplied),
        (150, Fate::NotApplied),
    ] {
        let error = modified(&json!({"RetCode": code})).expect_err("refused");
        assert_eq!(error.fate(), fate, "{code}");
    }
}

#[test]
fn the_header_names_the_request_before_the_body_does() {
    let body = json!({"Action": "ModifyCompShareImageShareAccountResponse", "RetCode": 0, "request_uuid": "body"});
    let exchange = |request_id: Option<&str>| Exchange {
        body: body.to_string().into_bytes(),
        request_id: request_id.map(str::to_owned),
    };
    let read = |id| {
        read_modified(Answer::read(exchange(id)).expect("good"), &asked(&[7], &[])).expect("done")
    };
    assert_eq!(read(Some("header")).request_id.as_deref(), Some("header"));
    assert_eq!(read(None).request_id.as_deref(), Some("body"));
}

#[test]
fn account_lists_take_ids_as_numbers_or_text_and_empty_ones_in_any_form() {
    let action = "DescribeCompShareImageShareAccountsResponse";
    let list = |set: Value| {
        read_accounts(
            &answer(&json!({"Action": action, "RetCode": 0, "AccountSet": set})).expect("good"),
        )
    };
    let listed = list(json!([
        {"AccountId": "12345", "AccountName": "one"},
        {"AccountId": 67890, "AccountName": ""},
        {"AccountId": "11"},
    ]));
    let expected =
        [(12345, Some("one")), (67890, None), (11, None)].map(|(id, name)| SharedAccount {
            account_id: account(id),
            account_name: name.map(str::to_owned),
        });
    assert_eq!(listed.expect("a list"), expected);
    for empty in [json!(null), json!({}), json!([])] {
        assert_eq!(list(empty).expect("a list"), []);
    }
    for odd in [
        json!([{}]),
        json!([{"AccountId": -1}]),
        json!([7]),
        json!("x"),
    ] {
        assert!(list(odd.clone()).is_err(), "{odd}");
    }
}

#[test]
fn secrets_that_an_answer_repeats_are_taken_out_of_it() {
    let message = "you sent PublicKey=a%40b&Signature=0123abcd\u{1b}[31m, a@b; the key is s3\u{0}cr\u{200b}et";
    let exchange = Exchange {
        body: json!({"RetCode": 171, "Message": message})
            .to_string()
            .into_bytes(),
        request_id: Some("0123abcd".into()),
    };
    let answer = Answer::read(exchange)
        .expect("an answer")
        .without(&["a@b", "s3cret", "0123abcd"]);
    let error = read_modified(answer, &asked(&[7], &[])).expect_err("refused");
    assert_eq!(error.request_id(), None);
    let CallError::Refused {
        message: Some(message),
        ..
    } = error
    else {
        panic!("{error}")
    };
    let expected =
        "you sent PublicKey=[redacted]&Signature=[redacted][31m, [redacted]; the key is [redacted]";
    assert_eq!(message, expected);
}

//! Where shares come from, against a model, with changes behind the gateway's back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::support::{Call, Gateway, Luck, Reply, Scripted, rounds};

const REGIONS: [&str; 2] = ["cn-wlcb", "cn-sh2"];
const IMAGES: u64 = 3;
const ACCOUNTS: u64 = 5;

/// Region, image and account.
type Key = (&'static str, u64, u64);

/// What the upstream does with the next change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behaviour {
    Does,
    NamesTheAccount,
    Refuses,
    /// Fails, and did it or not.
    Fails {
        all_the_same: bool,
    },
}

#[derive(Debug)]
struct Upstream {
    shares: BTreeSet<Key>,
    next: Behaviour,
}

fn key(call: &Call, account: &str) -> Key {
    let region = REGIONS
        .into_iter()
        .find(|region| *region == call.fields["Region"]);
    let image = call.fields["CompShareImageId"]
        .strip_prefix("img-")
        .unwrap();
    (
        region.unwrap(),
        image.parse().unwrap(),
        account.parse().unwrap(),
    )
}

impl Upstream {
    fn answer(&mut self, call: &Call) -> Reply {
        if call.action().starts_with("Describe") {
            let (region, image, _) = key(call, "0");
            let listed: Vec<String> = self
                .shares
                .iter()
                .filter(|share| (share.0, share.1) == (region, image))
                .map(|share| {
                    format!(
                        r#"{{"AccountId":"{}","AccountName":"name-{}"}}"#,
                        share.2, share.2
                    )
                })
                .collect();
            return Reply::Body(format!(
                r#"{{"Action":"DescribeCompShareImageShareAccountsResponse","RetCode":0,"AccountSet":[{}]}}"#,
                listed.join(",")
            ));
        }
        let (adds, account) = match (
            call.fields.get("AddAccounts.0"),
            call.fields.get("RemoveAccounts.0"),
        ) {
            (Some(account), None) => (true, account),
            (None, Some(account)) => (false, account),
            other => panic!("{other:?}"),
        };
        let key = key(call, account);
        if matches!(
            self.next,
            Behaviour::Does | Behaviour::Fails { all_the_same: true }
        ) {
            self.set(key, adds);
        }
        match self.next {
            Behaviour::Does => Reply::Done,
            Behaviour::NamesTheAccount => Reply::Body(format!(
                r#"{{"Action":"ModifyCompShareImageShareAccountResponse","RetCode":0,"InvalidAccounts":["{account}"]}}"#
            )),
            Behaviour::Refuses => Reply::Body(r#"{"RetCode":230,"Message":"no"}"#.into()),
            Behaviour::Fails { .. } => Reply::Status(500),
        }
    }

    fn set(&mut self, key: Key, shared: bool) {
        if shared {
            self.shares.insert(key);
        } else {
            self.shares.remove(&key);
        }
    }
}

/// What the list must say of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    Gateway {
        audit_id: String,
        subject: String,
        reason: Option<String>,
    },
    Unknown,
}

fn assert_row(row: &Value, known: Option<&Known>, about: &str) {
    let nothing = |word: &str| {
        assert_eq!(row["origin"], word, "{about}: {row}");
        for member in ["shared_at", "shared_by", "reason", "audit_id"] {
            assert_eq!(row.get(member), Some(&Value::Null), "{about}: {row}");
        }
    };
    match known {
        None => nothing("outside"),
        Some(Known::Unknown) => nothing("unknown"),
        Some(Known::Gateway {
            audit_id,
            subject,
            reason,
        }) => {
            assert_eq!(row["origin"], "gateway", "{about}: {row}");
            assert_eq!(row["audit_id"].as_str(), Some(audit_id.as_str()), "{about}");
            assert_eq!(row["shared_by"].as_str(), Some(subject.as_str()), "{about}");
            assert_eq!(row["reason"].as_str(), reason.as_deref(), "{about}");
            assert!(row["shared_at"].as_str().unwrap().ends_with('Z'), "{about}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_of_every_list_is_right_whatever_happened() {
    let upstream = Arc::new(Mutex::new(Upstream {
        shares: BTreeSet::new(),
        next: Behaviour::Does,
    }));
    let answering = Arc::clone(&upstream);
    let scripted = Scripted::start(move |call| answering.lock().unwrap().answer(call)).await;
    let gateway = Gateway::with_upstream(&scripted).await;
    let mut luck = Luck::new();
    let mut known: BTreeMap<Key, Known> = BTreeMap::new();
    for step in 0..rounds(1000, 10_000) {
        let about = format!("step {step} of seed {}", luck.seed);
        let region = if luck.below(2) == 0 {
            REGIONS[0]
        } else {
            REGIONS[1]
        };
        let image = luck.below(IMAGES);
        let account = luck.below(ACCOUNTS) + 1;
        let key: Key = (region, image, account);
        let path = format!("/images/img-{image}/shares");
        match luck.below(20) {
            0..12 => {
                let behaviour = match luck.below(10) {
                    0 => Behaviour::NamesTheAccount,
                    1 => Behaviour::Refuses,
                    2 => Behaviour::Fails {
                        all_the_same: false,
                    },
                    3 => Behaviour::Fails { all_the_same: true },
                    _ => Behaviour::Does,
                };
                upstream.lock().unwrap().next = behaviour;
                let reason = (luck.below(2) == 0).then(|| format!("step {step}"));
                let query = reason
                    .as_deref()
                    .map(|text| format!("&reason={}", text.replace(' ', "+")));
                let (method, adds) = if luck.below(2) == 0 {
                    ("PUT", true)
                } else {
                    ("DELETE", false)
                };
                let path = format!(
                    "{path}/{account}?region={region}{}",
                    query.unwrap_or_default()
                );
                let answer = gateway.sharer().send(method, &path).await;
                let audit_id = answer.header("audit-id").unwrap().to_owned();
                match (behaviour, adds) {
                    (Behaviour::Does, true) => {
                        assert_eq!(answer.status, 200, "{about}");
                        let subject = "team-a".to_owned();
                        known.insert(
                            key,
                            Known::Gateway {
                                audit_id,
                                subject,
                                reason,
                            },
                        );
                    }
                    (Behaviour::Does, false) => {
                        assert_eq!(answer.status, 204, "{about}");
                        known.remove(&key);
                    }
                    (Behaviour::Fails { .. }, _) => {
                        assert_eq!(answer.status, 502, "{about}");
                        known.insert(key, Known::Unknown);
                    }
                    (Behaviour::NamesTheAccount | Behaviour::Refuses, _) => {
                        assert!(matches!(answer.status, 422 | 502), "{about}");
                    }
                }
            }
            12..15 => {
                let shared = luck.below(2) == 0;
                upstream.lock().unwrap().set(key, shared);
            }
            15..18 => {
                let list = gateway
                    .sharer()
                    .get(&format!("{path}?region={region}"))
                    .await;
                let shares = upstream.lock().unwrap().shares.clone();
                let expected: Vec<u64> = shares
                    .iter()
                    .filter(|share| (share.0, share.1) == (region, image))
                    .map(|share| share.2)
                    .collect();
                let list = list.json();
                let rows = list["accounts"].as_array().unwrap();
                let found: Vec<u64> = rows
                    .iter()
                    .map(|row| row["account_id"].as_u64().unwrap())
                    .collect();
                assert_eq!(found, expected, "{about}");
                for row in rows {
                    let account = row["account_id"].as_u64().unwrap();
                    assert_eq!(row["account_name"], format!("name-{account}"));
                    assert_row(row, known.get(&(region, image, account)), &about);
                }
            }
            _ => {
                let one = gateway
                    .sharer()
                    .get(&format!("{path}/{account}?region={region}"))
                    .await;
                let shared = upstream.lock().unwrap().shares.contains(&key);
                assert_eq!(one.status, if shared { 200 } else { 404 }, "{about}");
                if shared {
                    let share = one.json();
                    assert_eq!(share["shared"], true);
                    assert_row(&share, known.get(&key), &about);
                    if let Some(audit_id) = share["audit_id"].as_str() {
                        let event = gateway
                            .auditor()
                            .get(&format!("/audit/events/{audit_id}"))
                            .await;
                        assert_eq!(event.json()["completed_at"], share["shared_at"], "{about}");
                    }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trail_that_cannot_be_read_makes_no_list_up() {
    let gateway = Gateway::spawn().await;
    gateway.sharer().put("/images/img/shares/7").await;
    let mut connection = gateway.connect().await;
    for statement in [
        "DROP TRIGGER audit_entries_no_update",
        "UPDATE audit_entries SET event_id = 'damaged' WHERE kind = 'outcome'",
    ] {
        sqlx::query(statement)
            .execute(&mut connection)
            .await
            .unwrap();
    }
    for path in ["/images/img/shares", "/images/img/shares/7"] {
        let answer = gateway.sharer().get(path).await;
        answer.assert_problem(503, "audit-unavailable");
        assert!(answer.header("retry-after").is_some());
    }
}

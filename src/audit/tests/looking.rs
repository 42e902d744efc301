//! The reader's door: pages, filters, summaries, and what they are read by.

#![expect(clippy::too_many_lines, reason = "a table of cases is one thing")]

use super::*;
use crate::domain::Timestamp;

/// Which events a filter is to find.
type Fits = fn(&Event) -> bool;

#[tokio::test]
async fn pages_follow_one_another_and_every_filter_filters() {
    for rows in BATCHES {
        every_filter_filters(Trail::open_with_batches(rows).await).await;
    }
}

async fn every_filter_filters(trail: Trail) {
    for number in 0..40 {
        trail.share(number).await;
    }
    let lone = trail.intend(intent(40)).await.event_id;
    let denied = trail
        .writer
        .enqueue_denial(denial(41))
        .expect("room")
        .await
        .expect("durable")
        .event_id;
    let all = trail
        .reader
        .page(&Filter::default(), Order::Ascending, 1000, None)
        .await
        .expect("reads");
    assert_eq!((all.events.len(), all.next), (42, None));

    let operation = |word: &str| word.parse().ok();
    let outcome = |outcome: Outcome| Some(OutcomeFilter::from(outcome));
    let filters: [(Filter, Fits); 11] = [
        (Filter::default(), |_| true),
        (
            Filter {
                subject: Some("team-1".into()),
                ..Filter::default()
            },
            |event| event.subject == "team-1",
        ),
        (
            Filter {
                image_id: "img-2".parse().ok(),
                ..Filter::default()
            },
            |event| event.image_id == "img-2",
        ),
        (
            Filter {
                account_id: 3.try_into().ok(),
                ..Filter::default()
            },
            |event| event.account_id == Some(3),
        ),
        (
            Filter {
                operation: operation("share"),
                ..Filter::default()
            },
            |event| event.operation == "share",
        ),
        (
            Filter {
                operation: operation("update"),
                ..Filter::default()
            },
            |_| false,
        ),
        (
            Filter {
                outcome: outcome(Outcome::Failed),
                ..Filter::default()
            },
            |event| event.outcome == "failed",
        ),
        (
            Filter {
                outcome: outcome(Outcome::Pending),
                ..Filter::default()
            },
            |event| event.outcome == "pending",
        ),
        (
            Filter {
                outcome: outcome(Outcome::Denied),
                ..Filter::default()
            },
            |event| event.outcome == "denied",
        ),
        (
            Filter {
                request_id: Some("request-7".into()),
                ..Filter::default()
            },
            |event| event.request_id.as_deref() == Some("request-7"),
        ),
        (
            Filter {
                subject: Some("team-2".into()),
                outcome: outcome(Outcome::Succeeded),
                ..Filter::default()
            },
            |event| event.subject == "team-2" && event.outcome == "succeeded",
        ),
    ];
    for (filter, fits) in filters {
        for order in [Order::Ascending, Order::Descending] {
            let mut expected: Vec<Event> = all
                .events
                .iter()
                .filter(|event| fits(event))
                .cloned()
                .collect();
            if order == Order::Descending {
                expected.reverse();
            }
            let paged = trail.page_by_page(&filter, order, 3).await;
            assert_eq!(paged, expected, "{filter:?} {order:?}");
        }
    }
    let ids: Vec<&str> = all.events.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(&ids[40..], [lone.to_string(), denied.to_string()]);
}

#[tokio::test]
async fn from_is_inclusive_and_to_is_not() {
    let trail = Trail::open().await;
    let recorded = trail.share(1).await;
    let event = trail.event(recorded.event_id).await.event;
    let at = Timestamp::parse_rfc3339(&event.occurred_at).expect("a time");
    let micro = |micros: i64| Some(Timestamp::from_micros(at.as_micros() + micros));
    for (from, to, found) in [
        (micro(0), None, true),
        (micro(1), None, false),
        (None, micro(0), false),
        (None, micro(1), true),
        (micro(-1), micro(1), true),
    ] {
        let filter = Filter {
            from,
            to,
            ..Filter::default()
        };
        let page = trail
            .reader
            .page(&filter, Order::Descending, 10, None)
            .await
            .expect("reads");
        assert_eq!(!page.events.is_empty(), found, "{from:?} {to:?}");
    }
}

#[tokio::test]
async fn pages_lose_and_repeat_nothing_while_others_write() {
    for rows in BATCHES {
        nothing_is_lost_or_repeated(Trail::open_with_batches(rows).await).await;
    }
}

async fn nothing_is_lost_or_repeated(trail: Trail) {
    for number in 0..20 {
        trail.share(number).await;
    }
    let (mut seen, mut after, mut number) = (Vec::new(), None, 20);
    loop {
        let page = trail
            .reader
            .page(&Filter::default(), Order::Ascending, 4, after)
            .await
            .expect("reads");
        seen.extend(page.events.into_iter().map(|event| event.id));
        after = page.next;
        if after.is_none() {
            break;
        }
        if number < 40 {
            trail.share(number).await;
            number += 1;
        }
    }
    let all = trail
        .reader
        .page(&Filter::default(), Order::Ascending, 1000, None)
        .await
        .expect("reads");
    let all: Vec<String> = all.events.into_iter().map(|event| event.id).collect();
    assert_eq!(seen, all);
}

fn one_of_each_filter() -> Vec<(&'static str, Filter)> {
    let subject = Filter {
        subject: Some("s".into()),
        ..Filter::default()
    };
    let image = Filter {
        image_id: "i".parse().ok(),
        ..Filter::default()
    };
    let account = Filter {
        account_id: 3.try_into().ok(),
        ..Filter::default()
    };
    let request = Filter {
        request_id: Some("r".into()),
        ..Filter::default()
    };
    let mut filters = vec![
        ("audit_filters_subject", subject),
        ("audit_filters_image_id", image),
        ("audit_filters_account_id", account),
        ("audit_filters_request_id", request),
    ];
    for word in ["share", "unshare", "update"] {
        let operation = Filter {
            operation: word.parse().ok(),
            ..Filter::default()
        };
        filters.push(("audit_filters_operation", operation));
    }
    for outcome in Outcome::ALL {
        let index = match outcome {
            Outcome::Pending => "audit_pending",
            _ => "audit_entries_outcome",
        };
        let outcome = Filter {
            outcome: Some(outcome.into()),
            ..Filter::default()
        };
        filters.push((index, outcome));
    }
    filters
}

/// Both filters in one; `None` where both filter by the same.
fn both(one: &Filter, other: &Filter) -> Option<Filter> {
    let clash = one.subject.is_some() && other.subject.is_some()
        || one.image_id.is_some() && other.image_id.is_some()
        || one.account_id.is_some() && other.account_id.is_some()
        || one.request_id.is_some() && other.request_id.is_some()
        || one.operation.is_some() && other.operation.is_some()
        || one.outcome.is_some() && other.outcome.is_some();
    let both = Filter {
        from: one.from.or(other.from),
        to: one.to.or(other.to),
        subject: one.subject.clone().or(other.subject.clone()),
        image_id: one.image_id.clone().or(other.image_id.clone()),
        account_id: one.account_id.or(other.account_id),
        operation: one.operation.or(other.operation),
        outcome: one.outcome.or(other.outcome),
        request_id: one.request_id.clone().or(other.request_id.clone()),
    };
    (!clash).then_some(both)
}

/// Whether the outermost table is found by one of `indexes`, and nothing is sorted.
fn is_served(plan: &str, indexes: &[&str]) -> bool {
    let outermost = plan
        .split("; ")
        .find(|step| step.starts_with("SEARCH") || step.starts_with("SCAN"))
        .unwrap_or_default();
    let by = |index: &&str| {
        outermost.contains(&format!("INDEX {index} ("))
            // The pending intents are a small table of their own, ordered by id.
            || *index == "audit_pending" && outermost.starts_with(['S']) && outermost.contains(" p")
    };
    !plan.contains("TEMP B-TREE") && indexes.iter().any(by)
}

#[tokio::test]
async fn every_filter_and_every_pair_is_served_by_an_index_without_a_sort() {
    let trail = Trail::open().await;
    let begin = Some(Timestamp::from_micros(0));
    let after = Some(trail.share(1).await.event_id);
    let filters = one_of_each_filter();
    let mut cases: Vec<(Vec<&str>, Filter)> = Vec::new();
    for (index, one) in &filters {
        cases.push((vec![index], one.clone()));
        for (other_index, other) in &filters {
            if let Some(both) = both(one, other) {
                cases.push((vec![index, other_index], both));
            }
        }
    }
    assert!(cases.len() > 100);
    for (indexes, filter) in cases {
        let bounded = Filter {
            from: begin,
            to: begin,
            ..filter.clone()
        };
        for filter in [filter, bounded] {
            for order in [Order::Ascending, Order::Descending] {
                for after in [None, after] {
                    let plan = trail.reader.plan(&filter, order, after).await;
                    assert!(is_served(&plan, &indexes), "{filter:?} {order:?}: {plan}");
                }
            }
            let plan = trail.reader.plan_of_counts(&filter).await;
            // The pending intents are a small table of their own.
            let pending = plan.contains("SCAN p;") || plan.contains("SEARCH p ");
            let found = pending || indexes.iter().any(|index| plan.contains(index));
            assert!(
                found && !plan.contains("SCAN f") && !plan.contains("SCAN o"),
                "{filter:?}: {plan}"
            );
        }
    }
    for order in [Order::Ascending, Order::Descending] {
        let plan = trail.reader.plan(&Filter::default(), order, after).await;
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
        assert!(
            plan.starts_with("SEARCH f USING INDEX audit_entries_event"),
            "{plan}"
        );
    }
    let plan = trail.reader.plan_of_counts(&Filter::default()).await;
    assert!(
        plan.contains("SEARCH o USING INDEX audit_entries_outcome") && !plan.contains("SCAN o "),
        "{plan}"
    );
}

#[tokio::test]
async fn pending_intents_and_last_changes_are_found_without_a_scan() {
    let trail = Trail::open().await;
    let pending = Filter {
        outcome: Some(OutcomeFilter::Pending),
        ..Filter::default()
    };
    let plan = trail.reader.plan(&pending, Order::Ascending, None).await;
    for table in ["SCAN f", "SCAN o"] {
        assert!(!plan.contains(table), "{plan}");
    }
    let plan = trail.reader.plan_of_last_changes().await;
    assert!(
        plan.contains("SEARCH m USING PRIMARY KEY (image_id=? AND account_id=? AND region=?)")
            && plan.contains("SEARCH o USING INTEGER PRIMARY KEY")
            && !plan.contains("FOR ORDER BY"),
        "{plan}"
    );
    // The rows that no batch holds are few, and looked through once for all accounts.
    assert!(
        plan.starts_with("MATERIALIZE tail; SEARCH t USING INTEGER PRIMARY KEY (rowid>?)"),
        "{plan}"
    );
}

#[tokio::test]
async fn exports_are_the_pages_in_one_piece() {
    for rows in BATCHES {
        an_export_is_the_pages(Trail::open_with_batches(rows).await).await;
    }
}

async fn an_export_is_the_pages(trail: Trail) {
    for number in 0..30 {
        trail.share(number).await;
    }
    // More than one page, all of them within a few milliseconds.
    trail.deny_many(1200).await;
    let team = Filter {
        subject: Some("team-1".into()),
        ..Filter::default()
    };
    for (filter, count) in [(Filter::default(), 1230), (team, 410)] {
        for order in [Order::Ascending, Order::Descending] {
            let paged = trail.page_by_page(&filter, order, 100).await;
            assert_eq!(paged.len(), count);
            for (limit, after) in [
                (None, None),
                (Some(7), None),
                (Some(700), Some(3)),
                (Some(500), None),
            ] {
                let begin = after.map(|index: usize| index + 1).unwrap_or_default();
                let end = limit.map_or(count, |limit| count.min(begin + limit));
                let after = after
                    .map(|index: usize| paged[index].id.parse().map(EventId::new).expect("an id"));
                let reader = trail.reader.clone();
                let mut export =
                    Export::new(reader, filter.clone(), order, Format::Ndjson, after, limit);
                let mut lines = String::new();
                while let Some(chunk) = export.next().await.expect("reads") {
                    lines += std::str::from_utf8(&chunk).expect("text");
                }
                let expected: Vec<String> = paged[begin..end]
                    .iter()
                    .map(|event| serde_json::to_string(event).expect("serializes"))
                    .collect();
                assert_eq!(lines.lines().collect::<Vec<_>>(), expected, "{limit:?}");
            }
        }
    }
}

#[tokio::test]
async fn summaries_count_what_pages_show() {
    for rows in BATCHES {
        a_summary_counts_what_pages_show(Trail::open_with_batches(rows).await).await;
    }
}

async fn a_summary_counts_what_pages_show(trail: Trail) {
    for number in 0..40 {
        trail.share(number).await;
    }
    trail.intend(intent(41)).await;
    let denied = trail.writer.enqueue_denial(denial(42)).expect("room");
    denied.await.expect("durable");
    let mut filters: Vec<Filter> = one_of_each_filter()
        .into_iter()
        .map(|(_, filter)| filter)
        .collect();
    filters.extend([
        Filter::default(),
        Filter {
            subject: Some("team-1".into()),
            ..Filter::default()
        },
        Filter {
            subject: Some("team-2".into()),
            outcome: Some(Outcome::Succeeded.into()),
            ..Filter::default()
        },
    ]);
    for filter in filters {
        let events = trail.page_by_page(&filter, Order::Ascending, 1000).await;
        for bucket in [Bucket::Hour, Bucket::Day] {
            let buckets = Buckets::new(bucket, None, None, Timestamp::now()).expect("few buckets");
            let summary = trail
                .reader
                .summary(&filter, buckets)
                .await
                .expect("counts");
            let summary = serde_json::to_value(&summary).expect("serializes");
            let all = summary["buckets"].as_array().expect("buckets");
            for outcome in Outcome::ALL {
                let counted: i64 = all
                    .iter()
                    .map(|bucket| {
                        bucket["counts"][outcome.as_str()]
                            .as_i64()
                            .expect("a count")
                    })
                    .sum();
                let shown = events
                    .iter()
                    .filter(|event| event.outcome == outcome.as_str());
                assert_eq!(
                    counted,
                    i64::try_from(shown.count()).expect("few"),
                    "{filter:?} {outcome}"
                );
            }
        }
    }
}

#[tokio::test]
async fn the_view_for_people_tells_what_the_api_tells() {
    let trail = Trail::open().await;
    for number in 0..12 {
        trail.share(number).await;
    }
    trail.intend(intent(13)).await;
    let denied = trail.writer.enqueue_denial(denial(14)).expect("room");
    denied.await.expect("durable");
    let page = trail
        .reader
        .page(&Filter::default(), Order::Ascending, 100, None)
        .await;
    let shown: Vec<serde_json::Value> = page
        .expect("reads")
        .events
        .iter()
        .map(|event| serde_json::to_value(event).expect("serializes"))
        .collect();
    let columns: Vec<String> = shown[0]
        .as_object()
        .expect("an event")
        .keys()
        .map(|name| match name.as_str() {
            "policy_ids" => "'policy_ids', json(coalesce(policy_ids, '[]'))".to_owned(),
            name => format!("'{name}', {name}"),
        })
        .collect();
    let mut connection = SqliteConnection::connect_with(
        &SqliteConnectOptions::new()
            .filename(&trail.path)
            .read_only(true),
    )
    .await
    .expect("opens");
    let statement = format!(
        "SELECT json_object({}) FROM audit_log ORDER BY id",
        columns.join(", ")
    );
    let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(statement))
        .fetch_all(&mut connection)
        .await
        .expect("selects");
    let rows: Vec<serde_json::Value> = rows
        .iter()
        .map(|row| serde_json::from_str(row).expect("JSON"))
        .collect();
    assert_eq!(rows, shown);
}

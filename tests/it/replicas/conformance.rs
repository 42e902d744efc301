//! What holds over a file holds over a server: the tests of changes, bulks, lanes, pages, provenance and streams, run again with
//! every gateway's trail in a database of its own.

use std::process::Command;

use crate::support::{POSTGRES_PASSWORD, Postgres};

const AGAIN: [&str; 8] = [
    "audit_api::",
    "bulk::",
    "changes::",
    "lanes::",
    "provenance::",
    "rehearsal::",
    "shared_lists::",
    "streams::",
];

/// Those that look into the file itself, or fill one before there is a gateway.
const OF_A_FILE: [&str; 11] = [
    "audit_api::one_event_shows_its_rows_and_verification_ends_at_the_last",
    "bulk::a_thousand_accounts_take_a_hundred_calls",
    "bulk::denials_of_a_bulk_that_comes_to_disk_late",
    "changes::a_stop_finishes_what_is_in_flight",
    "changes::a_stop_that_waits_in_vain_records_unknown",
    "provenance::a_trail_that_cannot_be_read",
    "streams::a_follower_hears_that_the_gateway_lives",
    "streams::a_stop_finishes_a_stream_that_is_being_taken",
    "streams::one_caller_cannot_take_the_places_of_all_streams",
    "streams::the_feed_gives_the_rows_with_every_member",
    "replicas::",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_over_a_file_holds_over_a_server() {
    let postgres = Postgres::start().await;
    let server = format!(
        "postgres://gateway:{POSTGRES_PASSWORD}@127.0.0.1:{}",
        postgres.port()
    );
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(AGAIN).args(["--test-threads", "2"]);
    for skipped in OF_A_FILE {
        again.args(["--skip", skipped]);
    }
    again
        .env("ISG_TEST_SERVER", server)
        .env_remove("NEXTEST_EXECUTION_MODE");
    let ended = tokio::task::spawn_blocking(move || again.output().unwrap());
    let ended = ended.await.unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&ended.stderr),
    );
    assert!(ended.status.success(), "{out}\n{err}");
    let passed = out.lines().filter(|line| line.ends_with("... ok")).count();
    assert!(passed >= 50, "{passed} tests: {out}");
}

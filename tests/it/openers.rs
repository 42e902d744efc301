//! Other programs that open and close the trail's file while the gateway writes into it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use image_share_gateway::audit::{Report, verify};

use crate::support::{Gateway, python, rounds};

/// Opens, reads and closes the database so many times by Python's `sqlite3`, then by Datasette.
const OPENERS: &str = r#"
import asyncio, sqlite3, sys
from datasette.app import Datasette

path, times, datasettes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for number in range(times):
    # Every second one may write, as sqlite3 opens files: closing it looks whether the log can be folded in.
    mode = "ro" if number % 2 else "rw"
    connection = sqlite3.connect(f"file:{path}?mode={mode}", uri=True)
    connection.execute("SELECT max(id) FROM audit_log").fetchone()
    connection.close()

async def datasette():
    for number in range(datasettes):
        look = Datasette([path])
        await look.invoke_startup()
        answer = await look.client.get("/audit.json?sql=select+max(id)+from+audit_log")
        assert answer.status_code == 200, answer.text
        for database in look.databases.values():
            database.close()
        look.executor.shutdown()

asyncio.run(datasette())
"#;

fn python_and_datasette(database: &Path, times: u32, datasettes: u32) {
    let output = Command::new(python())
        .args(["-c", OPENERS, database.to_str().unwrap()])
        .args([times.to_string(), datasettes.to_string()])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn sqlite3(database: &Path, times: u32) {
    for _ in 0..times {
        // Python waits for another's lock by itself, sqlite3 has to be told.
        let output = Command::new("sqlite3")
            .args(["-cmd", ".timeout 5000"])
            .arg(database)
            .arg("SELECT * FROM audit_log ORDER BY id DESC LIMIT 5")
            .stdout(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_open_and_close_the_file_lose_nothing() {
    let mut gateway = Gateway::spawn().await;
    gateway.sharer().put("/images/img/shares/1").await;
    let (times, datasettes) = (rounds(50, 1000), rounds(5, 1000));
    let (database, over) = (gateway.database(), AtomicBool::new(false));
    let done = AtomicUsize::new(1);
    let writers = (0..8).map(|writer| {
        let (gateway, over, done) = (&gateway, &over, &done);
        async move {
            let mut number = 1;
            while !over.load(Ordering::Relaxed) {
                let path = format!("/images/img-{writer}/shares/{number}");
                assert_eq!(gateway.sharer().put(&path).await.status, 200);
                done.fetch_add(1, Ordering::Relaxed);
                number += 1;
            }
        }
    });
    let opening = async {
        let (one, other) = (database.clone(), database.clone());
        let opened = tokio::join!(
            tokio::task::spawn_blocking(move || python_and_datasette(&one, times, datasettes)),
            tokio::task::spawn_blocking(move || sqlite3(&other, times)),
        );
        over.store(true, Ordering::Relaxed);
        opened
    };
    let (_, opened) = tokio::join!(futures_util::future::join_all(writers), opening);
    opened.0.unwrap();
    opened.1.unwrap();
    assert!(gateway.stop().await);
    let report = verify(&database, &[]).await.unwrap();
    let Report::Intact(Some(head)) = report else {
        panic!("{report:?}")
    };
    let recorded = done.load(Ordering::Relaxed) * 2;
    assert_eq!(usize::try_from(head.sequence).unwrap(), recorded);
}

//! The file's own life.

use super::*;

#[tokio::test]
async fn files_that_are_moved_deleted_or_replaced_are_noticed_within_one_commit() {
    type Act = fn(&Path) -> std::io::Result<()>;
    let beside = |path: &Path, name: &str| path.with_file_name(name);
    let acts: [(&str, Act, Option<Act>); 4] = [
        (
            "the database is moved and brought back",
            |path| std::fs::rename(path, path.with_file_name("moved.db")),
            Some(|path| std::fs::rename(path.with_file_name("moved.db"), path)),
        ),
        (
            "its directory is moved and brought back",
            |path| {
                std::fs::rename(
                    path.parent().unwrap(),
                    path.parent().unwrap().with_file_name("moved"),
                )
            },
            Some(|path| {
                std::fs::rename(
                    path.parent().unwrap().with_file_name("moved"),
                    path.parent().unwrap(),
                )
            }),
        ),
        (
            "its log is deleted",
            |path| std::fs::remove_file(path.with_file_name("audit.db-wal")),
            None,
        ),
        (
            "it is replaced by a copy",
            |path| {
                std::fs::copy(path, path.with_file_name("copy.db"))?;
                std::fs::rename(path.with_file_name("copy.db"), path)
            },
            None,
        ),
    ];
    for (what, act, undo) in acts {
        let trail = Trail::open().await;
        trail.share(1).await;
        assert!(
            beside(&trail.path, "audit.db-wal").exists(),
            "the log is there while the trail is open"
        );
        act(&trail.path).expect(what);
        let refused = trail.writer.enqueue(intent(2)).expect("room").await;
        assert_eq!(refused, Err(NotDurable), "{what}");
        let moved = Health::Failing("the audit database was moved, deleted or replaced");
        assert_eq!(trail.writer.health(), moved, "{what}");
        if let Some(undo) = undo {
            undo(&trail.path).expect(what);
            until(what, || trail.writer.health() == Health::Writable).await;
            trail.share(3).await;
            assert!(
                matches!(trail.verify(&[]).await, Report::Intact(Some(_))),
                "{what}"
            );
        }
    }
}

#[tokio::test]
async fn an_export_that_goes_on_under_load_leaves_the_log_bounded() {
    let trail = Trail::open().await;
    trail.deny_many(5000).await;
    let reader = trail.reader.clone();
    let mut export = Export::new(
        reader,
        Filter::default(),
        Order::Ascending,
        Format::Ndjson,
        None,
        Some(5000),
    );
    let log = trail.path.with_file_name("audit.db-wal");
    let (mut events, mut written) = (0, 0);
    while let Some(chunk) = export.next().await.expect("reads") {
        events += std::str::from_utf8(&chunk).expect("text").lines().count();
        for number in 0..rounds(150, 3000) {
            // One commit each: many pages for few rows.
            trail.intend(intent(number.into())).await;
            written += 1;
        }
        let size = log.metadata().expect("a log").len();
        assert!(size < 24 << 20, "{size} bytes after {written} commits");
    }
    assert_eq!(events, 5000);
}

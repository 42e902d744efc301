//! Folding the write-ahead log into the database, beside the writer.
//!
//! Folding copies each page that the log holds and waits for the disk twice. A writer that does all of that by itself
//! keeps everybody waiting for as long. So a thread with a connection of its own folds in what the log holds while the
//! writer goes on, and again what came meanwhile; the last of it, which is little, the writer folds in itself, since the
//! log begins anew only when all of it is folded in and nobody appends.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::{Connection, OpenFlags};

use super::StoreError;
use super::appender::BUSY_TIMEOUT;

/// Pages of log, 16 MiB, before it is folded in: a page that many changes touch is folded in once.
const FOLDED_PAGES: u32 = 4096;
/// What the writer folds in by itself, in pages.
const REST_PAGES: u32 = 256;
/// How often the thread folds in what came while it did so before, at most: on a full machine it may never catch up.
const ROUNDS_MAX: u32 = 3;

thread_local! {
    /// Pages in the log of this thread's connection, as its last commit found it. SQLite tells by a function without a state.
    static LOG_PAGES: Cell<u32> = const { Cell::new(0) };
}

/// Has a connection note how long its log is, instead of folding it in by itself.
pub(super) fn note_log_pages(connection: &Connection) {
    connection.wal_hook(Some(|_, pages| {
        LOG_PAGES.set(u32::try_from(pages).unwrap_or_default());
        Ok(())
    }));
}

/// Folds in as much of the log as nobody reads from.
pub(super) fn fold(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

/// The thread, and how far it is with the present log.
#[derive(Debug)]
pub(super) struct Folding {
    asks: SyncSender<()>,
    thread: JoinHandle<()>,
    under_way: Arc<AtomicBool>,
    plan: Plan,
}

/// What is to be done after a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Nothing,
    /// The thread folds in what the log holds.
    Ask,
    /// The writer folds in the rest.
    Rest,
}

/// When to fold. Pages are those of the log.
#[derive(Debug)]
struct Plan {
    /// After the last commit.
    pages: u32,
    /// How often the thread was asked about this log, and at which length.
    rounds: u32,
    asked_at: u32,
    /// At which length it is asked first.
    due: u32,
}

impl Plan {
    fn new() -> Self {
        Self {
            pages: 0,
            rounds: 0,
            asked_at: 0,
            due: FOLDED_PAGES,
        }
    }

    fn after_commit(&mut self, pages: u32, under_way: bool) -> Step {
        let began_anew = pages < self.pages;
        self.pages = pages;
        if began_anew {
            (self.rounds, self.due) = (0, FOLDED_PAGES);
        }
        let is_due = match self.rounds {
            0 => pages >= self.due,
            1..ROUNDS_MAX => pages - self.asked_at > REST_PAGES,
            _ => false,
        };
        if under_way || (self.rounds == 0 && !is_due) {
            return Step::Nothing;
        }
        if is_due {
            self.rounds += 1;
            self.asked_at = pages;
            return Step::Ask;
        }
        // Where somebody reads, the log goes on growing, and is folded in again as it does.
        (self.rounds, self.due) = (0, pages.saturating_add(FOLDED_PAGES));
        Step::Rest
    }
}

impl Folding {
    /// For the trail at `path`, which is open.
    pub(super) fn start(path: &Path) -> Result<Self, StoreError> {
        let open = |error| StoreError::open(path, error);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(open)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(open)?;
        let (asks, asked) = sync_channel(1);
        let under_way = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&under_way);
        let thread = std::thread::Builder::new().name("audit-fold".into());
        let run = move || run(&connection, &asked, &ended);
        let thread = thread.spawn(run);
        let thread = thread.map_err(|error| StoreError::open(path, error))?;
        Ok(Self {
            asks,
            thread,
            under_way,
            plan: Plan::new(),
        })
    }

    /// Folds in what is due. On the thread of the writer, whose connection it is, when everybody has their answer.
    pub(super) fn after_commit(&mut self, writers: &Connection) -> Result<(), rusqlite::Error> {
        let under_way = self.under_way.load(Ordering::Acquire);
        match self.plan.after_commit(LOG_PAGES.get(), under_way) {
            Step::Nothing => Ok(()),
            Step::Rest => fold(writers),
            Step::Ask => {
                self.under_way.store(true, Ordering::Release);
                self.asks.try_send(()).or_else(|_| {
                    // A thread that has ended folds nothing in.
                    self.under_way.store(false, Ordering::Release);
                    fold(writers)
                })
            }
        }
    }

    /// Ends the thread and closes its connection.
    pub(super) fn close(self) {
        drop(self.asks);
        // One that panicked has said so.
        let _ = self.thread.join();
    }
}

fn run(connection: &Connection, asked: &Receiver<()>, under_way: &AtomicBool) {
    while let Ok(()) = asked.recv() {
        let _done = Done(under_way);
        if let Err(error) = fold(connection) {
            tracing::warn!(error.message = %error, "the write-ahead log could not be folded in beside the writer");
        }
    }
}

/// The thread is not under way any more, however its work ended.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a log of these lengths asks for, with the thread under way where it says so.
    fn steps(commits: &[(u32, bool)]) -> Vec<Step> {
        let mut plan = Plan::new();
        let step = |&(pages, under_way)| plan.after_commit(pages, under_way);
        commits.iter().map(step).collect()
    }

    #[test]
    fn the_thread_folds_what_is_much_and_the_writer_the_rest() {
        use Step::{Ask, Nothing, Rest};
        let commits = [
            (FOLDED_PAGES - 1, false),
            (FOLDED_PAGES, false),
            (FOLDED_PAGES + 400, true),
            (FOLDED_PAGES + 500, false),
            (FOLDED_PAGES + 600, false),
            // It began anew.
            (7, false),
            (FOLDED_PAGES, false),
        ];
        let expected = [Nothing, Ask, Nothing, Ask, Rest, Nothing, Ask];
        assert_eq!(steps(&commits), expected);
    }

    #[test]
    fn a_thread_that_never_catches_up_is_not_waited_for() {
        use Step::{Ask, Nothing, Rest};
        let commits: Vec<(u32, bool)> = (0..5)
            .map(|round| (FOLDED_PAGES + round * 1000, false))
            .collect();
        assert_eq!(steps(&commits), [Ask, Ask, Ask, Rest, Nothing]);
    }

    #[test]
    fn a_log_that_somebody_reads_is_folded_in_as_it_grows() {
        use Step::{Ask, Nothing, Rest};
        let commits = [
            (FOLDED_PAGES, false),
            (FOLDED_PAGES + 1, false),
            (FOLDED_PAGES + 2, false),
            (2 * FOLDED_PAGES, false),
            (2 * FOLDED_PAGES + 1, false),
        ];
        assert_eq!(steps(&commits), [Ask, Rest, Nothing, Nothing, Ask]);
    }

    #[test]
    fn one_that_begins_anew_while_the_thread_is_under_way_is_waited_with() {
        use Step::{Ask, Nothing};
        let commits = [
            (FOLDED_PAGES, false),
            (5, true),
            (FOLDED_PAGES, true),
            (FOLDED_PAGES + 1, false),
        ];
        assert_eq!(steps(&commits), [Ask, Nothing, Nothing, Ask]);
    }
}

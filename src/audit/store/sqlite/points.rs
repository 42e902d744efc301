//! Single events: a thread with a connection for look-ups that are over at once.
//!
//! A look-up takes some microseconds, and each thread that has to wake up for it more than that. So whoever asks hands it to this
//! thread and is woken by it, and while others ask it never goes to sleep. It begins with the first look-up.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::domain::EventId;

use super::StoreError;
use super::appender::BUSY_TIMEOUT;
use super::connections::LOOK_UP_TIME;
use super::limits::ReadGate;

/// Look-ups that wait, at most.
const WAITING_MAX: usize = 256;

/// The two texts of an event, where there is one.
pub(super) type Texts = Option<(Vec<u8>, Vec<u8>)>;

enum Ask {
    LookUp(EventId, oneshot::Sender<Result<Texts, StoreError>>),
    Close(oneshot::Sender<()>),
}

/// The thread's door. Clones lead to the same thread.
#[derive(Debug, Clone)]
pub(super) struct Points(Arc<Thread>);

#[derive(Debug)]
struct Thread {
    path: PathBuf,
    gate: ReadGate,
    /// Gives two texts for an id.
    statement: &'static str,
    asks: OnceLock<mpsc::Sender<Ask>>,
}

impl Points {
    /// Looks up in the trail at `path` by `statement`.
    pub(super) fn new(path: &Path, gate: ReadGate, statement: &'static str) -> Self {
        Self(Arc::new(Thread {
            path: path.into(),
            gate,
            statement,
            asks: OnceLock::new(),
        }))
    }

    /// Looks one id up.
    pub(super) async fn look_up(&self, id: EventId) -> Result<Texts, StoreError> {
        let asks = self.0.asks.get_or_init(|| self.0.start());
        let (told, answer) = oneshot::channel();
        let waits = timeout(BUSY_TIMEOUT, asks.send(Ask::LookUp(id, told))).await;
        let ended = || StoreError::open(&self.0.path, "the thread that looks events up has ended");
        waits.map_err(|_| StoreError::Busy)?.map_err(|_| ended())?;
        let answer = timeout(LOOK_UP_TIME, answer).await;
        answer
            .map_err(|_| StoreError::TooSlow)?
            .map_err(|_| ended())?
    }

    /// Closes its connection.
    pub(super) async fn close(&self) {
        let (told, closed) = oneshot::channel();
        if let Some(asks) = self.0.asks.get()
            && asks.send(Ask::Close(told)).await.is_ok()
        {
            // One that has ended has closed it.
            let _ = closed.await;
        }
    }
}

impl Thread {
    /// Where the system gives no thread, whoever asks is told that there is none.
    fn start(&self) -> mpsc::Sender<Ask> {
        let (asks, mut asked) = mpsc::channel(WAITING_MAX);
        let (path, gate, statement) = (self.path.clone(), self.gate.clone(), self.statement);
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .expect("a runtime without I/O asks nothing of the system");
            runtime.block_on(async {
                let mut kept = None;
                while let Some(ask) = asked.recv().await {
                    match ask {
                        Ask::LookUp(id, told) => {
                            let _place = gate.pass().await;
                            let found = look_up(&mut kept, &path, statement, id);
                            // Whoever left needs no answer.
                            let _ = told.send(found.map_err(StoreError::from));
                        }
                        Ask::Close(told) => {
                            kept = None;
                            let _ = told.send(());
                        }
                    }
                }
            });
        };
        let thread = std::thread::Builder::new().name("audit-points".into());
        if let Err(error) = thread.spawn(run) {
            tracing::error!(error.message = %error, "no thread to look events up");
        }
        asks
    }
}

/// Opens the connection where there is none; one that failed is not kept.
fn look_up(
    kept: &mut Option<Connection>,
    path: &Path,
    statement: &str,
    id: EventId,
) -> Result<Texts, rusqlite::Error> {
    let connection = match kept.take() {
        Some(connection) => connection,
        None => open(path)?,
    };
    let texts = |row: &rusqlite::Row<'_>| Ok((text(row, 0)?, text(row, 1)?));
    let found = connection
        .prepare_cached(statement)?
        .query_row([id.to_string()], texts)
        .optional()?;
    *kept = Some(connection);
    Ok(found)
}

fn text(row: &rusqlite::Row<'_>, index: usize) -> Result<Vec<u8>, rusqlite::Error> {
    Ok(row.get_ref(index)?.as_bytes()?.to_vec())
}

fn open(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

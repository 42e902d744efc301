//! Single events: a connection for look-ups that are over at once.
//!
//! A pool would ask its connection whether it still lives for each of them, and hand it back by a task of its own, which
//! takes longer than the look-up. So there is one connection, and whoever wants it waits for his turn.

use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::StoreError;
use super::limits::{ReadGate, read_failed};

/// The connection, opened when it is first wanted.
#[derive(Debug, Clone)]
pub(super) struct Points {
    options: SqliteConnectOptions,
    wait: Duration,
    connection: Arc<Mutex<Option<SqliteConnection>>>,
}

impl Points {
    /// Whoever wants it waits so long.
    pub(super) fn new(options: &SqliteConnectOptions, wait: Duration) -> Self {
        Self {
            options: options.clone(),
            wait,
            connection: Arc::default(),
        }
    }

    /// Looks up by `look`, which is one short statement.
    pub(super) async fn look_up<T>(
        &self,
        gate: &ReadGate,
        look: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, StoreError> {
        let turn = timeout(self.wait, self.connection.lock()).await;
        let mut kept = turn.map_err(|_| StoreError::Busy)?;
        // Only with the connection: who waits for it must not take another's place at the gate.
        let _place = gate.pass().await;
        // It is put back where all went well.
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        let found = look(&mut connection).await.map_err(read_failed)?;
        *kept = Some(connection);
        Ok(found)
    }

    /// Closes it.
    pub(super) async fn close(&self) {
        if let Some(connection) = self.connection.lock().await.take() {
            // Whatever it says, nothing is lost: it only reads.
            let _ = connection.close().await;
        }
    }
}

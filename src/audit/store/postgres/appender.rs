//! Appending: a group of rows by one statement, which also moves the chain's head, and only from where the writer left it.
//!
//! So a gateway that was cut off writes nothing into a chain that was ended, and each commit is a beat of its heart. A
//! statement whose answer was lost is asked after by a new session: what got to disk counts, and what did not is
//! tried once more.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use tokio::time::timeout;
use uuid::Uuid;

use super::group::Group;
use super::session::{self, Chain, Opened};
use super::{StoreError, away, close, code, is_of_the_statement, passes, refused};
use crate::audit::chain::Tip;
use crate::audit::entry::LookedAfter;
use crate::audit::ids::{id_after, least_id_at};
use crate::audit::lease::Lease;
use crate::config::ServerUrl;
use crate::domain::{BootTime, EventId, Timestamp};

/// How long an answer is waited for: longer than a statement may take.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// How often partitions are looked after.
const PARTITIONS_INTERVAL: Duration = Duration::from_hours(6);
/// How far ids are put ahead at the most, in times two milliseconds are doubled.
const AHEAD_DOUBLED_MAX: u32 = 8;
/// `unique_violation`, and what a row gets for which there is no partition.
const TWICE: &str = "23505";
const NO_PARTITION: &str = "23514";

/// The one connection that appends, and its chain.
#[derive(Debug)]
pub(in crate::audit) struct Appender {
    url: ServerUrl,
    /// How long a call of this gateway may go on, in milliseconds.
    call_ms: i64,
    lease: Lease,
    /// Whether the schema is known to be this version's.
    is_prepared: bool,
    connection: Option<PgConnection>,
    chain: Option<Chain>,
    /// When partitions were looked after last.
    partitions: BootTime,
    /// How often in a row a group's ids were too low.
    too_low: u32,
}

impl Appender {
    /// For the trail at `url`; nothing is opened yet.
    pub(in crate::audit) fn new(url: &ServerUrl, call_time: Duration, lease: Lease) -> Self {
        Self {
            url: url.clone(),
            call_ms: i64::try_from(call_time.as_millis()).unwrap_or(i64::MAX),
            lease,
            is_prepared: false,
            connection: None,
            chain: None,
            partitions: BootTime::now(),
            too_low: 0,
        }
    }

    /// What rows are sealed behind: the end of the chain, with ids of this time, and above all that others were promised.
    pub(in crate::audit) fn raise(&self, tip: &mut Tip) {
        tip.raise(least_id_at(Timestamp::now()));
        if let Some(above) = self.lease.ids_above() {
            tip.raise(above);
        }
    }

    /// Opens a session, the former chain's where that goes on behind `last`. Gives the end of its chain.
    pub(in crate::audit) async fn open(&mut self, last: Option<&Tip>) -> Result<Tip, StoreError> {
        self.hang_up();
        if !self.is_prepared {
            session::prepare(&self.url).await?;
            self.is_prepared = true;
        }
        let asked = BootTime::now();
        let chain = self
            .chain
            .as_ref()
            .zip(last)
            .filter(|(chain, last)| chain.id == *last.chain_id());
        let opening = session::open(&self.url, chain, self.call_ms);
        let opened = timeout(2 * ANSWER_TIME, opening).await;
        let Opened {
            connection,
            chain,
            mut tip,
            skew,
        } = opened.map_err(|_| away(&self.url, "it does not answer"))??;
        if let Some(last) = last.and_then(Tip::last_event) {
            tip.raise(last);
        }
        self.lease.note_skew(skew);
        self.lease.begin(Some(&chain.id));
        self.lease.renew(asked);
        tracing::info!(audit.chain = &*chain.id, audit.head = %tip.head(), "the session with the audit database is open");
        (self.connection, self.chain) = (Some(connection), Some(chain));
        Ok(tip)
    }

    /// Whether there is a session.
    pub(in crate::audit) fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    fn hang_up(&mut self) {
        self.lease.drop_now();
        self.connection = None;
    }

    /// Somebody else has ended the chain.
    fn taken_over(&mut self) -> StoreError {
        self.hang_up();
        self.lease.begin(None);
        self.chain = None;
        StoreError::TakenOver
    }

    /// Makes a group durable, or nothing of it.
    pub(in crate::audit) async fn commit(&mut self, group: &Group) -> Result<(), StoreError> {
        let asked = BootTime::now();
        match self.try_group(group).await {
            Ok(rows) if rows == group.rows() => {
                self.lease.renew(asked);
                self.too_low = 0;
                Ok(())
            }
            Ok(_) => Err(self.why_nothing(group).await),
            Err(error) => self.after_failure(group, error).await,
        }
    }

    async fn try_group(&mut self, group: &Group) -> Result<u64, sqlx::Error> {
        let Some(connection) = &mut self.connection else {
            return Err(sqlx::Error::WorkerCrashed);
        };
        match timeout(ANSWER_TIME, group.run(connection)).await {
            Ok(done) => done,
            Err(_) => Err(sqlx::Error::PoolTimedOut),
        }
    }

    /// The head did not move.
    async fn why_nothing(&mut self, group: &Group) -> StoreError {
        let look = "SELECT floor_event FROM audit_chains WHERE chain_id = $1 AND head_sequence = $2 AND ended_at IS NULL";
        let Some(connection) = &mut self.connection else {
            return away(&self.url, "there is no connection");
        };
        let looked = sqlx::query_scalar(look)
            .bind(group.chain_id())
            .bind(group.before());
        match timeout(ANSWER_TIME, looked.fetch_optional(connection)).await {
            Ok(Ok(Some(Some(floor)))) => {
                // Who reads upwards may promise again and again: once in a while a group is ahead of all of them.
                self.too_low += 1;
                let ahead = Duration::from_millis(match self.too_low {
                    ..3 => 0,
                    times => 1 << times.min(AHEAD_DOUBLED_MAX),
                });
                self.lease.raise_ids(id_after(EventId::new(floor), ahead));
                StoreError::IdsTooLow
            }
            Ok(Ok(_)) => self.taken_over(),
            Ok(Err(error)) => {
                self.hang_up();
                refused(&self.url, error)
            }
            Err(_) => {
                self.hang_up();
                away(&self.url, "it does not answer")
            }
        }
    }

    /// A group failed, or nobody knows whether it did.
    async fn after_failure(&mut self, group: &Group, error: sqlx::Error) -> Result<(), StoreError> {
        match code(&error) {
            Some(TWICE) => return Err(StoreError::Closed),
            Some(NO_PARTITION) => {
                self.make_partitions_of(group).await?;
                let asked = BootTime::now();
                let again = self.try_group(group).await;
                return match again {
                    Ok(rows) if rows == group.rows() => {
                        self.lease.renew(asked);
                        Ok(())
                    }
                    Ok(_) => Err(self.why_nothing(group).await),
                    Err(error) => {
                        self.hang_up();
                        Err(refused(&self.url, error))
                    }
                };
            }
            _ => {}
        }
        self.hang_up();
        if !passes(&self.url, &error) || matches!(error, sqlx::Error::PoolTimedOut) {
            return Err(refused(&self.url, error));
        }
        let landed = group.landed();
        let Ok(tip) = self.open(Some(&landed)).await else {
            return Err(refused(&self.url, error));
        };
        if tip.head() == landed.head() {
            return Ok(());
        }
        if !group.follows(&tip) {
            // The writer learns of it as it looks again.
            self.hang_up();
            return Err(refused(&self.url, error));
        }
        match self.try_group(group).await {
            Ok(rows) if rows == group.rows() => Ok(()),
            _ => {
                self.hang_up();
                Err(refused(&self.url, error))
            }
        }
    }

    async fn make_partitions_of(&mut self, group: &Group) -> Result<(), StoreError> {
        let make = "SELECT COUNT(audit_make_partition(id)) FROM (SELECT MIN(u.id::text)::uuid AS id FROM unnest($1::uuid[]) AS u (id) \
            GROUP BY date_trunc('month', audit_id_time(u.id), 'UTC')) AS months";
        let making = sqlx::query(make).bind(group.ids());
        self.execute(making).await
    }

    async fn execute(
        &mut self,
        statement: sqlx::query::Query<'_, sqlx::Postgres, sqlx::postgres::PgArguments>,
    ) -> Result<(), StoreError> {
        let Some(connection) = &mut self.connection else {
            return Err(away(&self.url, "there is no connection"));
        };
        let done = timeout(ANSWER_TIME, statement.execute(connection)).await;
        let done = done.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        done.map(drop).map_err(|error| {
            if !is_of_the_statement(&error) {
                self.hang_up();
            }
            refused(&self.url, error)
        })
    }

    /// Lets others know that this gateway lives, and from which id on it writes.
    pub(in crate::audit) async fn beat(&mut self, tip: &mut Tip) -> Result<(), StoreError> {
        let asked = BootTime::now();
        let before = Timestamp::now();
        self.raise(tip);
        let beat = "UPDATE audit_chains SET heartbeat_at = clock_timestamp(), floor_event = GREATEST(floor_event, $3) \
            WHERE chain_id = $1 AND head_sequence = $2 AND ended_at IS NULL \
            RETURNING (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
        let Some(connection) = &mut self.connection else {
            return Err(away(&self.url, "there is no connection"));
        };
        let beating = sqlx::query_scalar(beat)
            .bind(&**tip.chain_id())
            .bind(tip.sequence())
            .bind(tip.last_event().map(EventId::as_uuid));
        let beaten = timeout(ANSWER_TIME, beating.fetch_optional(connection)).await;
        match beaten.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
            Ok(Some(theirs)) => {
                self.lease.renew(asked);
                self.lease
                    .note_skew(session::skew(before, theirs, Timestamp::now()));
                self.look_after().await
            }
            Ok(None) => Err(self.taken_over()),
            Err(error) => {
                if !is_of_the_statement(&error) {
                    self.hang_up();
                }
                Err(refused(&self.url, error))
            }
        }
    }

    /// Makes partitions ahead.
    async fn look_after(&mut self) -> Result<(), StoreError> {
        let now = BootTime::now();
        if now < self.partitions.after(PARTITIONS_INTERVAL) {
            return Ok(());
        }
        self.partitions = now;
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        let made = timeout(ANSWER_TIME, session::make_partitions(connection)).await;
        made.unwrap_or(Err(sqlx::Error::PoolTimedOut))
            .map_err(|error| {
                self.hang_up();
                refused(&self.url, error)
            })
    }

    /// Those of these events that have their outcome on disk.
    pub(in crate::audit) async fn closed(
        &mut self,
        events: &[EventId],
    ) -> Result<Vec<EventId>, StoreError> {
        let Some(connection) = &mut self.connection else {
            return Err(away(&self.url, "there is no connection"));
        };
        let ids: Vec<Uuid> = events.iter().map(|id| id.as_uuid()).collect();
        let look =
            "SELECT event_id FROM audit_entries WHERE event_id = ANY ($1) AND kind = 'outcome'";
        let looked = sqlx::query_scalar(look).bind(ids).fetch_all(connection);
        let looked = timeout(ANSWER_TIME, looked).await;
        match looked.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
            Ok(found) => Ok(found.into_iter().map(EventId::new).collect()),
            Err(error) => {
                self.hang_up();
                Err(refused(&self.url, error))
            }
        }
    }

    /// Notes what was looked after, beside the trail.
    pub(in crate::audit) async fn note_looked_after(
        &mut self,
        notes: &[LookedAfter],
    ) -> Result<(), StoreError> {
        let (mut regions, mut images, mut accounts, mut through) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for note in notes {
            for account in &note.accounts {
                regions.push(note.region.as_str());
                images.push(note.image_id.as_str());
                accounts.push(i64::try_from(account.get()).unwrap_or(i64::MAX));
                through.push(note.through.as_uuid());
            }
        }
        let note = "INSERT INTO audit_looked_after AS n (region, image_id, account_id, through) \
            SELECT region, image_id, account_id, MAX(through::text)::uuid \
            FROM unnest($1::text[], $2::text[], $3::bigint[], $4::uuid[]) AS u (region, image_id, account_id, through) \
            GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 \
            ON CONFLICT (region, image_id, account_id) DO UPDATE SET through = GREATEST(n.through, excluded.through)";
        let noting = sqlx::query(note)
            .bind(regions)
            .bind(images)
            .bind(accounts)
            .bind(through);
        self.execute(noting).await
    }

    /// Ends the chain in order.
    pub(in crate::audit) async fn close(mut self) -> Result<(), StoreError> {
        let Some(chain) = self.chain.take() else {
            return Ok(());
        };
        let end = "UPDATE audit_chains SET ended_at = clock_timestamp() WHERE chain_id = $1 AND ended_at IS NULL";
        let ended = self.execute(sqlx::query(end).bind(&*chain.id)).await;
        self.lease.drop_now();
        if let Some(connection) = self.connection.take() {
            close(connection).await;
        }
        ended
    }
}

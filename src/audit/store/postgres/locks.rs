//! Which gateway may change an image: rows of `lane_locks`, taken and let go many at a time.
//!
//! Whoever wants a lock that another has stands in line in its row, and its holder is told so by NOTIFY. Who lets go hands
//! over to the first in line, and tells it. A word that was lost is made up for by asking again.

use std::time::Duration;

use sqlx::postgres::{PgConnection, PgListener, PgPoolOptions};
use tokio::time::timeout;
use uuid::Uuid;

use super::{Bounds, StoreError, away, connect, is_of_the_statement, options, refused};
use crate::config::ServerUrl;
use crate::domain::{EventId, ImageId, Region};

/// How long a round may take.
const ROUND_TIME: Duration = Duration::from_secs(4);
const LOCKING: Bounds = Bounds {
    statement: Some(Duration::from_secs(3)),
    lock: "2s",
};
/// The channel on which a chain is told is its name behind this.
const CHANNEL: &str = "isg_";
const GRANTED: &str = "granted";
const WANTED: &str = "wanted";

/// Rows are locked in the order of their key, byte by byte, by this and all that follow, so that none waits for another in a ring.
const TAKE: &str = "WITH me AS (SELECT chain_id FROM audit_chains WHERE chain_id = $1 AND ended_at IS NULL), \
    taken AS (\
        INSERT INTO lane_locks AS l (region, image_id, holder) \
        SELECT DISTINCT u.region COLLATE \"C\", u.image_id COLLATE \"C\", me.chain_id \
        FROM unnest($2::text[], $3::text[]) AS u (region, image_id), me ORDER BY 1, 2 \
        ON CONFLICT (region, image_id) DO UPDATE SET \
            holder = COALESCE(l.holder, excluded.holder), number = CASE WHEN l.holder IS NULL THEN nextval('lane_lock_numbers') ELSE l.number END, \
            waiting = CASE WHEN l.holder IS NULL THEN '{}' \
                WHEN l.holder = excluded.holder OR excluded.holder = ANY (l.waiting) THEN l.waiting \
                ELSE l.waiting || excluded.holder END \
        RETURNING l.*) \
    SELECT region, image_id, holder = $1 AS is_mine, number, last_event, cardinality(waiting) > 0 AS is_wanted, \
        GREATEST((extract(epoch FROM not_before - clock_timestamp()) * 1000)::bigint, 0) AS wait, \
        unsure_until IS NOT NULL AS is_unsure, \
        CASE WHEN holder <> $1 \
            THEN pg_notify('isg_' || holder, json_build_array('wanted', region, image_id)::text)::text END AS told \
    FROM taken";

/// What changes in the row of a lock, `l`, that goes to the first in line.
macro_rules! hand_over {
    () => {
        "holder = lane_locks_next(l.waiting), number = nextval('lane_lock_numbers'), \
         waiting = l.waiting[COALESCE(array_position(l.waiting, lane_locks_next(l.waiting)), cardinality(l.waiting)) + 1:], \
         let_go_at = clock_timestamp()"
    };
}
pub(super) use hand_over;

/// Tells whom locks were handed over to, in the columns of [`Taken`].
macro_rules! tell_granted {
    () => {
        " SELECT COUNT(pg_notify('isg_' || holder, json_build_array('granted', region, image_id, number, last_event, \
             cardinality(waiting) > 0, GREATEST((extract(epoch FROM not_before - clock_timestamp()) * 1000)::bigint, 0), \
             unsure_until IS NOT NULL)::text)) FROM freed WHERE holder IS NOT NULL"
    };
}
pub(super) use tell_granted;

const LET_GO: &str = concat!(
    "WITH asked AS (\
        SELECT * FROM unnest($2::text[], $3::text[], $4::uuid[], $5::bigint[], $6::bigint[]) \
            AS u (region, image_id, last_event, unsure, number)), \
    held AS (\
        SELECT l.region, l.image_id FROM lane_locks AS l JOIN asked AS a USING (region, image_id) \
        WHERE l.holder = $1 AND l.number = a.number ORDER BY 1, 2 FOR UPDATE OF l), \
    freed AS (\
        UPDATE lane_locks AS l SET ",
    hand_over!(),
    ", last_event = GREATEST(l.last_event, a.last_event), unsure_until = clock_timestamp() + a.unsure * interval '1 ms' \
        FROM asked AS a JOIN held AS h USING (region, image_id) \
        WHERE l.region = a.region AND l.image_id = a.image_id AND l.holder = $1 AND l.number = a.number \
        RETURNING l.*)",
    tell_granted!()
);

const STEP_BACK: &str = "WITH mine AS (\
        SELECT l.region, l.image_id FROM lane_locks AS l \
        JOIN unnest($2::text[], $3::text[]) AS u (region, image_id) USING (region, image_id) \
        WHERE $1 = ANY (l.waiting) ORDER BY 1, 2 FOR UPDATE OF l) \
    UPDATE lane_locks AS l SET waiting = array_remove(l.waiting, $1) \
    FROM mine AS m WHERE l.region = m.region AND l.image_id = m.image_id";

/// What was handed over meanwhile is handed on, as it is: nothing was done under it.
const HAND_ON: &str = concat!(
    "WITH held AS (\
        SELECT l.region, l.image_id FROM lane_locks AS l \
        JOIN unnest($2::text[], $3::text[]) AS u (region, image_id) USING (region, image_id) \
        WHERE l.holder = $1 ORDER BY 1, 2 FOR UPDATE OF l), \
    freed AS (\
        UPDATE lane_locks AS l SET ",
    hand_over!(),
    " FROM held AS h WHERE l.region = h.region AND l.image_id = h.image_id AND l.holder = $1 \
        RETURNING l.*)",
    tell_granted!()
);

/// Names a lock: an image where it lives.
pub type LockKey = (Region, ImageId);

/// A lock that this gateway has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Whose.
    pub key: LockKey,
    /// The greatest id of those who had it before.
    pub last_event: Option<EventId>,
    /// How long nothing may be sent yet: a call of who had it before may go on.
    pub wait: Duration,
    /// Whether calls of those who had it before may take effect late.
    pub unsure: bool,
    /// Whether others wait for it.
    pub wanted: bool,
    /// Greater each time it is given to somebody.
    pub number: i64,
}

/// What a take found of a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// This gateway has it.
    Mine(Grant),
    /// Another has it, by a grant of this number, and this one stands in line.
    Others(LockKey, i64),
}

/// A lock that this gateway has no use for any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetGo {
    /// Whose.
    pub key: LockKey,
    /// The last event of this gateway.
    pub last_event: Option<EventId>,
    /// For how long calls of it may take effect late.
    pub unsure: Duration,
    /// That of the grant: what was given again since then stays.
    pub number: i64,
}

/// What somebody else says of a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockWord {
    /// This gateway was given it; by then it may have let it go again: see [`Grant::number`].
    Granted(Grant),
    /// This gateway has it, and others wait for it.
    Wanted(LockKey),
    /// Words may have been lost.
    Lost,
}

/// One connection that takes locks and lets them go, and one that listens.
#[derive(Debug)]
pub struct Locks {
    url: ServerUrl,
    connection: Option<PgConnection>,
    listener: Option<PgListener>,
}

/// What a take gives of a lock.
type Taken = (
    String,
    String,
    bool,
    i64,
    Option<Uuid>,
    bool,
    Option<i64>,
    bool,
    Option<String>,
);

impl Locks {
    /// Nothing is opened yet.
    pub(in crate::audit) fn new(url: &ServerUrl) -> Self {
        Self {
            url: url.clone(),
            connection: None,
            listener: None,
        }
    }

    /// Opens what is needed for this chain. Returns whether words may have been lost before.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn open(&mut self, chain_id: &str) -> Result<bool, StoreError> {
        if self.connection.is_none() {
            self.connection =
                Some(connect(&self.url, &format!("locks {chain_id}"), LOCKING).await?);
        }
        let listens = self.listener.is_some();
        if !listens {
            let options = options(&self.url, &format!("listener {chain_id}"))?;
            let pool = PgPoolOptions::new()
                .max_connections(1)
                .acquire_timeout(ROUND_TIME)
                .connect_lazy_with(options);
            let listening = async {
                let mut listener = PgListener::connect_with(&pool).await?;
                // It is opened again here: whoever waits for a word may stop waiting at any time.
                listener.eager_reconnect(false);
                listener.listen(&format!("{CHANNEL}{chain_id}")).await?;
                Ok(listener)
            };
            let listener = timeout(ROUND_TIME, listening).await;
            let listener = listener.unwrap_or(Err(sqlx::Error::PoolTimedOut));
            self.listener = Some(listener.map_err(|error| refused(&self.url, error))?);
        }
        Ok(!listens)
    }

    /// Drops both: the chain is another, or something failed.
    pub fn hang_up(&mut self) {
        (self.connection, self.listener) = (None, None);
    }

    /// Lets go of some for this chain.
    ///
    /// # Errors
    /// Where the database does not answer; they are held still, or not.
    pub async fn let_go(&mut self, chain_id: &str, locks: &[LetGo]) -> Result<(), StoreError> {
        let (mut regions, mut images, mut events, mut unsure, mut numbers) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for LetGo {
            key: (region, image_id),
            last_event,
            unsure: late,
            number,
        } in locks
        {
            regions.push(region.as_str());
            images.push(image_id.as_str());
            events.push(last_event.map(EventId::as_uuid));
            let millis = i64::try_from(late.as_millis()).unwrap_or(i64::MAX);
            unsure.push((millis > 0).then_some(millis));
            numbers.push(*number);
        }
        self.run(async |connection| {
            let letting_go = sqlx::query(LET_GO)
                .bind(chain_id)
                .bind(regions)
                .bind(images)
                .bind(events)
                .bind(unsure)
                .bind(numbers);
            letting_go.execute(connection).await.map(drop)
        })
        .await
    }

    async fn run<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, StoreError> {
        let Some(connection) = &mut self.connection else {
            return Err(away(&self.url, "there is no connection"));
        };
        let done = timeout(ROUND_TIME, work(connection)).await;
        done.unwrap_or(Err(sqlx::Error::PoolTimedOut))
            .map_err(|error| {
                if !is_of_the_statement(&error) {
                    self.hang_up();
                }
                refused(&self.url, error)
            })
    }

    /// Takes some for this chain, or stands in line for them.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn take(
        &mut self,
        chain_id: &str,
        keys: &[LockKey],
    ) -> Result<Vec<Found>, StoreError> {
        let (regions, images) = columns(keys);
        let taken: Vec<Taken> = self
            .run(async |connection| {
                let taking = sqlx::query_as(TAKE).bind(chain_id);
                let taking = taking.bind(regions).bind(images);
                taking.fetch_all(connection).await
            })
            .await?;
        Ok(taken.into_iter().filter_map(found).collect())
    }

    /// Stands in line no more for some, and has none of them.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn step_back(&mut self, chain_id: &str, keys: &[LockKey]) -> Result<(), StoreError> {
        let (regions, images) = columns(keys);
        self.run(async |connection| {
            for statement in [STEP_BACK, HAND_ON] {
                let step = sqlx::query(statement).bind(chain_id);
                let step = step.bind(&regions).bind(&images);
                step.execute(&mut *connection).await?;
            }
            Ok(())
        })
        .await
    }

    /// Those that this chain has and others wait for.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn wanted_of(&mut self, chain_id: &str) -> Result<Vec<LockKey>, StoreError> {
        let wanted = "SELECT region, image_id FROM lane_locks WHERE holder = $1 AND cardinality(waiting) > 0";
        let wanted: Vec<(String, String)> = self
            .run(async |connection| {
                let wanted = sqlx::query_as(wanted).bind(chain_id);
                wanted.fetch_all(connection).await
            })
            .await?;
        Ok(lock_keys(wanted))
    }

    /// Waits for what others say.
    pub async fn word(&mut self) -> LockWord {
        let Some(listener) = &mut self.listener else {
            return std::future::pending().await;
        };
        while let Ok(Some(notification)) = listener.try_recv().await {
            if let Some(word) = read(notification.payload()) {
                return word;
            }
        }
        self.listener = None;
        LockWord::Lost
    }
}

/// Keys as a statement takes them: regions, and images.
fn columns(keys: &[LockKey]) -> (Vec<&str>, Vec<&str>) {
    let pairs = keys.iter();
    pairs
        .map(|(region, image_id)| (region.as_str(), image_id.as_str()))
        .unzip()
}

/// Keys as a statement gives them.
pub(super) fn lock_keys(rows: Vec<(String, String)>) -> Vec<LockKey> {
    let key =
        |(region, image_id): (String, String)| Some((region.parse().ok()?, image_id.parse().ok()?));
    rows.into_iter().filter_map(key).collect()
}

fn found(taken: Taken) -> Option<Found> {
    let (region, image_id, is_mine, number, last_event, wanted, wait, unsure, _) = taken;
    let key = (region.parse().ok()?, image_id.parse().ok()?);
    Some(if is_mine {
        Found::Mine(Grant {
            key,
            last_event: last_event.map(EventId::new),
            wait: millis(wait),
            unsure,
            wanted,
            number,
        })
    } else {
        Found::Others(key, number)
    })
}

fn millis(wait: Option<i64>) -> Duration {
    let wait = wait.and_then(|wait| u64::try_from(wait).ok());
    Duration::from_millis(wait.unwrap_or(0))
}

fn read(payload: &str) -> Option<LockWord> {
    let (word, region, image_id): (&str, &str, &str) = match serde_json::from_str(payload) {
        Ok(read) => read,
        Err(_) => return read_granted(payload),
    };
    let key = (region.parse().ok()?, image_id.parse().ok()?);
    (word == WANTED).then_some(LockWord::Wanted(key))
}

type Granted<'a> = (
    &'a str,
    &'a str,
    &'a str,
    i64,
    Option<String>,
    bool,
    Option<i64>,
    bool,
);

fn read_granted(payload: &str) -> Option<LockWord> {
    let (word, region, image_id, number, last_event, wanted, wait, unsure): Granted<'_> =
        serde_json::from_str(payload).ok()?;
    let grant = Grant {
        key: (region.parse().ok()?, image_id.parse().ok()?),
        last_event: last_event
            .map(|id| id.parse().map(EventId::new))
            .transpose()
            .ok()?,
        wait: millis(wait),
        unsure,
        wanted,
        number,
    };
    (word == GRANTED).then_some(LockWord::Granted(grant))
}

//! The connections of a listener: how many there may be, and which are cut.
//!
//! The server times the first head of a connection; later ones, bodies that nobody takes and streams that nobody takes
//! it leaves alone, so whoever holds connections open could hold a gateway's descriptors for a day. So each connection
//! is one [`Guarded`] socket, known here: it is cut when it is idle for too long, when its answer is not taken for too
//! long, and, where there are too many, when it is among those that have been idle the longest.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::web::Bytes;
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::domain::Deadline;

/// Where there are too many, one in so many is cut, so that not each newcomer looks through all.
const CUT_ONE_IN: usize = 64;
/// How often connections are looked through for those that are of no use.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// The same at a stop, and how long an answer may not be taken then.
const LOOK_INTERVAL_AT_STOP: Duration = Duration::from_millis(500);
const STALLED_AT_STOP: Duration = Duration::from_secs(3);

/// All connections of a listener.
#[derive(Debug, Clone)]
pub struct Connections {
    all: Arc<Mutex<Vec<Weak<Connection>>>>,
    most: usize,
}

/// One of them.
#[derive(Debug)]
pub(in crate::http) struct Connection {
    cut: AtomicBool,
    waker: AtomicWaker,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    answering: usize,
    /// Whether a body is being made while it is sent.
    streaming: bool,
    idle_since: Instant,
    /// Since when the socket takes nothing of what is to be sent.
    stalled_since: Option<Instant>,
}

/// A request that is being answered.
pub(super) struct Answering(Arc<Connection>);

impl Connections {
    /// None yet, and at most so many at once.
    #[must_use]
    pub fn at_most(most: usize) -> Self {
        Self {
            all: Arc::default(),
            most: most.max(1),
        }
    }

    /// Takes a new connection in. Where there are too many those that have been idle the longest make room; where none
    /// is idle there is no room.
    pub(super) fn take_in<S>(&self, socket: S) -> Option<Guarded<S>> {
        let mut all = self.all();
        if all.len() >= self.most {
            all.retain(|connection| connection.strong_count() > 0);
        }
        if all.len() >= self.most && !cut_the_idlest(&mut all) {
            return None;
        }
        let connection = Arc::new(Connection {
            cut: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            state: Mutex::new(State {
                answering: 0,
                streaming: false,
                idle_since: Deadline::now().instant(),
                stalled_since: None,
            }),
        });
        all.push(Arc::downgrade(&connection));
        Some(Guarded { socket, connection })
    }

    /// Cuts what is of no use for so long, until nobody serves them any more. Once `stopping` resolves, whoever takes
    /// nothing of an answer that is there already keeps nobody waiting; streams are calls in flight, and are waited for.
    pub fn tend<S: Future<Output = ()>>(
        &self,
        longest: Duration,
        stopping: S,
    ) -> impl Future<Output = ()> + use<S> {
        let (all, most) = (Arc::downgrade(&self.all), self.most);
        async move {
            let mut stopping = std::pin::pin!(stopping);
            let (mut interval, mut stalled) = (LOOK_INTERVAL.min(longest), longest);
            let mut serving = true;
            loop {
                tokio::select! {
                    () = tokio::time::sleep(interval) => {}
                    () = &mut stopping, if serving => {
                        serving = false;
                        (interval, stalled) = (LOOK_INTERVAL_AT_STOP, stalled.min(STALLED_AT_STOP));
                    }
                }
                let Some(all) = all.upgrade() else {
                    return;
                };
                Self { all, most }.cut(Deadline::now().instant(), longest, stalled);
            }
        }
    }

    /// Cuts what has not begun to be answered for so long, or of which nothing was taken; of an answer that is there
    /// already for as long as `stalled`.
    fn cut(&self, now: Instant, longest: Duration, stalled: Duration) {
        self.all().retain(|connection| {
            let Some(connection) = connection.upgrade() else {
                return false;
            };
            let stays = {
                let state = connection.state();
                let lasted = |since| now.saturating_duration_since(since);
                match state.stalled_since {
                    None => state.answering > 0 || lasted(state.idle_since) < longest,
                    Some(since) if state.streaming => lasted(since) < longest,
                    Some(since) => lasted(since) < stalled,
                }
            };
            if !stays {
                connection.cut();
            }
            stays
        });
    }

    fn all(&self) -> MutexGuard<'_, Vec<Weak<Connection>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether any was idle. How long it has been idle alone counts: who asks now and then keeps its place however many
/// come who ask for nothing, and whoever has just come has one, however many asked once and hold theirs.
fn cut_the_idlest(all: &mut Vec<Weak<Connection>>) -> bool {
    let idle = |connection: &Weak<Connection>| {
        let connection = connection.upgrade()?;
        let state = connection.state();
        (state.answering == 0).then_some(state.idle_since)
    };
    let mut since: Vec<_> = all.iter().filter_map(idle).collect();
    if since.is_empty() {
        return false;
    }
    let last = since.len().div_ceil(CUT_ONE_IN) - 1;
    let (_, last, _) = since.select_nth_unstable(last);
    let last = *last;
    all.retain(|connection| {
        let cut = idle(connection).is_some_and(|since| since <= last);
        if cut && let Some(connection) = connection.upgrade() {
            connection.cut();
        }
        !cut
    });
    true
}

impl Connection {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins to be answered.
    pub(super) fn begin(self: &Arc<Self>) -> Answering {
        let mut state = self.state();
        state.answering += 1;
        Answering(Arc::clone(self))
    }

    /// From now on its socket gives errors, so that the server lets go of it.
    fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn poll_cut(&self, context: &Context<'_>) -> io::Result<()> {
        self.waker.register(context.waker());
        if self.cut.load(Ordering::Acquire) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.answering -= 1;
        state.streaming = false;
        state.idle_since = Deadline::now().instant();
    }
}

/// What the server writes at once.
const ONE_WRITE_BYTES: u64 = 32 * 1024;

/// A body that is sent piece by piece; the request is being answered until it ends.
struct Streaming {
    body: BoxBody,
    _answering: Answering,
}

impl Answering {
    /// Goes on until `body` is sent, where that takes more than one write.
    pub(super) fn until_sent(self, body: BoxBody) -> BoxBody {
        let size = body.size();
        self.0.state().streaming = size == BodySize::Stream;
        match size {
            BodySize::None | BodySize::Sized(..=ONE_WRITE_BYTES) => body,
            BodySize::Stream | BodySize::Sized(_) => BoxBody::new(Streaming {
                body,
                _answering: self,
            }),
        }
    }
}

impl MessageBody for Streaming {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}

/// A connection's socket.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    socket: S,
    connection: Arc<Connection>,
}

impl<S> Guarded<S> {
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Notes whether the other end takes what it is sent.
    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let mut state = self.connection.state();
        match &written {
            Poll::Pending => {
                let now = || Deadline::now().instant();
                state.stalled_since.get_or_insert_with(now);
            }
            Poll::Ready(_) => state.stalled_since = None,
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.connection.poll_cut(context)?;
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.connection.poll_cut(context)?;
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.wrote(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.poll_cut(context)?;
        Pin::new(&mut self.socket).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.connection.poll_cut(context)?;
        let written = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const LONGEST: Duration = Duration::from_secs(85);

    fn now() -> Instant {
        Deadline::now().instant()
    }

    async fn is_open(guarded: &mut Guarded<DuplexStream>) -> bool {
        // Nothing is sent by the other end, so an open one waits.
        let read = futures_util::poll!(Box::pin(guarded.read(&mut [0])));
        read.is_pending()
    }

    fn taken_in(connections: &Connections) -> (Guarded<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(16);
        (connections.take_in(near).expect("there is room"), far)
    }

    #[tokio::test]
    async fn what_answers_nothing_for_too_long_is_cut_and_what_is_at_work_is_not() {
        let connections = Connections::at_most(10);
        let (mut idle, _far) = taken_in(&connections);
        let (mut busy, _far) = taken_in(&connections);
        drop(taken_in(&connections));
        let answering = busy.connection().begin();
        connections.cut(now() + LONGEST / 2, LONGEST, LONGEST);
        assert!(is_open(&mut idle).await);
        connections.cut(now() + LONGEST * 2, LONGEST, LONGEST);
        assert!(!is_open(&mut idle).await && is_open(&mut busy).await);
        drop(answering);
        connections.cut(now() + LONGEST / 2, LONGEST, LONGEST);
        assert!(is_open(&mut busy).await, "it is idle for a moment only");
        connections.cut(now() + LONGEST * 2, LONGEST, LONGEST);
        assert!(!is_open(&mut busy).await);
        assert!(connections.all().is_empty(), "what is gone is forgotten");
    }

    #[tokio::test]
    async fn an_answer_that_nobody_takes_is_cut_and_one_that_is_taken_slowly_is_not() {
        let connections = Connections::at_most(10);
        let (mut stalled, _far) = taken_in(&connections);
        let (mut slow, mut far) = taken_in(&connections);
        let _answering = [stalled.connection().begin(), slow.connection().begin()];
        for guarded in [&mut stalled, &mut slow] {
            let sent = futures_util::poll!(Box::pin(guarded.write_all(&[7; 64])));
            assert!(sent.is_pending());
        }
        far.read_exact(&mut [0; 16]).await.expect("it was sent");
        let sent = futures_util::poll!(Box::pin(slow.write(&[7; 8])));
        assert!(sent.is_ready(), "the other end took something");
        connections.cut(now() + LONGEST * 2, LONGEST, LONGEST);
        assert!(!is_open(&mut stalled).await && is_open(&mut slow).await);
    }

    #[tokio::test]
    async fn newcomers_take_the_places_of_those_that_are_idle_the_longest() {
        let connections = Connections::at_most(4);
        let (mut silent, _far) = taken_in(&connections);
        let (mut asked, _far) = taken_in(&connections);
        let (mut busy, _far) = taken_in(&connections);
        let _answering = busy.connection().begin();
        let (mut young, _far) = taken_in(&connections);
        drop(asked.connection().begin());
        let (mut first, _far) = taken_in(&connections);
        assert!(!is_open(&mut silent).await, "it came first");
        let (mut second, _far) = taken_in(&connections);
        assert!(!is_open(&mut young).await, "the other has asked since");
        let (mut third, _far) = taken_in(&connections);
        assert!(!is_open(&mut asked).await, "the others came since");
        for other in [&mut busy, &mut first, &mut second, &mut third] {
            assert!(is_open(other).await);
        }
        let _answering = [&first, &second, &third].map(|one| one.connection().begin());
        let one_more = connections.take_in(duplex(16).0);
        assert!(one_more.is_none(), "nobody is idle");
    }
}

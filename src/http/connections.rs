//! Connections on which nobody asks anything: the server closes those that are quiet, and this cuts those that are
//! not: a client that sends a byte of its next head now and then would otherwise hold its connection for ever.
//!
//! Each connection is known by a second handle of its socket, since the server does not lend its own. What a
//! connection answers is counted, so that one that is at work is never cut.

use std::any::Any;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::Extensions;
use actix_web::web::Bytes;

use crate::domain::Deadline;

/// All connections of a listener.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<Mutex<Vec<Weak<Connection>>>>);

/// One of them; it is forgotten with the server's own.
#[derive(Debug)]
pub(super) struct Connection {
    socket: TcpStream,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    answering: usize,
    idle_since: Instant,
}

/// A request that is being answered.
pub(super) struct Answering(Arc<Connection>);

impl Connections {
    /// Notes a new connection in what goes with it; for the server to call.
    pub fn note(&self, stream: &dyn Any, data: &mut Extensions) {
        type Plain = actix_web::rt::net::TcpStream;
        let plain = stream.downcast_ref::<Plain>();
        let secure = stream.downcast_ref::<TlsStream<Plain>>();
        let stream = plain.or_else(|| secure.map(|stream| stream.get_ref().0));
        // Without a second handle the connection is not cut; nothing else depends on it.
        let Some(Ok(socket)) = stream.map(|stream| stream.as_fd().try_clone_to_owned()) else {
            return;
        };
        let connection = Arc::new(Connection {
            socket: socket.into(),
            state: Mutex::new(State {
                answering: 0,
                idle_since: Deadline::now().instant(),
            }),
        });
        self.all().push(Arc::downgrade(&connection));
        data.insert(connection);
    }

    /// Cuts what has not begun to be answered for so long.
    pub fn cut_idle(&self, now: Instant, longest: Duration) {
        self.all().retain(|connection| {
            let Some(connection) = connection.upgrade() else {
                return false;
            };
            let stays = {
                let state = connection.state();
                state.answering > 0 || now.saturating_duration_since(state.idle_since) < longest
            };
            if !stays {
                let _ = connection.socket.shutdown(Shutdown::Both);
            }
            stays
        });
    }

    fn all(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Connection>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins to be answered.
    pub(super) fn begin(self: &Arc<Self>) -> Answering {
        self.state().answering += 1;
        Answering(Arc::clone(self))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.answering -= 1;
        state.idle_since = Deadline::now().instant();
    }
}

/// A body that is made while it is sent; the request is being answered until it ends.
struct Streaming {
    body: BoxBody,
    _answering: Answering,
}

impl Answering {
    /// Goes on until `body` is sent, where that is made on the way. One that is there already is not waited for: whoever
    /// takes it too slowly is cut.
    pub(super) fn until_sent(self, body: BoxBody) -> BoxBody {
        match body.size() {
            BodySize::Stream => BoxBody::new(Streaming {
                body,
                _answering: self,
            }),
            BodySize::None | BodySize::Sized(_) => body,
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

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const LONGEST: Duration = Duration::from_secs(85);

    /// A connection that is noted, what goes with it, and its other end.
    async fn connected(connections: &Connections) -> (Extensions, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let client = TcpStream::connect(address).expect("connects");
        let (stream, _) = listener.accept().await.expect("accepts");
        let mut data = Extensions::new();
        connections.note(&stream, &mut data);
        (data, client)
    }

    fn is_open(client: &TcpStream) -> bool {
        client.set_nonblocking(true).expect("a socket");
        let read = (&*client).read(&mut [0]);
        matches!(read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }

    #[tokio::test]
    async fn what_answers_nothing_for_too_long_is_cut_and_what_is_at_work_is_not() {
        let connections = Connections::default();
        let (idle, idle_client) = connected(&connections).await;
        let (busy, busy_client) = connected(&connections).await;
        let (gone, _) = connected(&connections).await;
        drop(gone);
        let connection = busy.get::<Arc<Connection>>().expect("it was noted");
        let answering = connection.begin();
        let now = Deadline::now().instant();
        connections.cut_idle(now + LONGEST / 2, LONGEST);
        assert!(is_open(&idle_client) && idle.contains::<Arc<Connection>>());
        connections.cut_idle(now + LONGEST * 2, LONGEST);
        // A socket that is shut down is read to its end, at once on loopback.
        assert!(!is_open(&idle_client));
        drop(answering);
        connections.cut_idle(Deadline::now().instant() + LONGEST / 2, LONGEST);
        assert!(
            !connections.all().is_empty(),
            "it is idle for a moment only"
        );
        connections.cut_idle(now + LONGEST * 2, LONGEST);
        assert!(!is_open(&busy_client));
        assert!(connections.all().is_empty(), "what is gone is forgotten");
    }
}

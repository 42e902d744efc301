//! Listeners: from a socket to the routes.
//!
//! Actix's own `HttpServer` gives its sockets away for good. Here each is taken in by [`Connections`] first, so that it
//! can be cut without a second descriptor, and what it reads passes [`WithoutUpgrade`].

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_http::HttpService;
use actix_http::error::DispatchError;
use actix_service::{IntoServiceFactory as _, ServiceFactory, ServiceFactoryExt as _, map_config};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, Server, ServiceRequest, ServiceResponse, fn_service};
use actix_web::rt::net::TcpStream;
use actix_web::{App, Error};
use arc_swap::ArcSwap;
use rustix::net::sockopt::set_socket_send_buffer_size;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connections::{Connection, Connections, Guarded};
use super::upgrade::WithoutUpgrade;

/// How long a client may take to send its first head, or to shake hands.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How much longer than it is kept idle a connection may be: the next head comes meanwhile.
const CUT_GRACE: Duration = Duration::from_secs(10);
/// What the system holds of an answer, and as much again for its bookkeeping. A socket takes more once about a third of it is free, and by that is seen whether
/// its peer takes anything: with the megabytes that the system gives by itself a slow reader would pass for one that takes
/// nothing.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// Connections that may wait to be accepted; std's own bind allows 128.
const BACKLOG: u32 = 1024;

/// How a listener serves.
#[derive(Debug, Clone)]
pub struct Serving {
    /// All of its connections.
    pub connections: Connections,
    /// How long a connection on which nothing is asked is kept.
    pub keep_alive: Duration,
    /// How long a stop waits for answers, in whole seconds.
    pub shutdown_timeout: Duration,
    /// Threads that answer; as many as there are processors where it says nothing.
    pub workers: Option<usize>,
    /// TLS, where it is served; each connection is taken in by what stands there then.
    pub tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
}

impl Serving {
    /// After how long without use a connection is cut.
    #[must_use]
    pub fn cut_after(&self) -> Duration {
        self.keep_alive + CUT_GRACE
    }
}

/// Listens.
///
/// # Errors
/// What the system says.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// What an app is made of that answers with bodies of `B`.
pub trait Answers<B>:
    ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<B>,
        Error = Error,
        InitError = (),
    > + 'static
{
}

impl<B, A> Answers<B> for A where
    A: ServiceFactory<
            ServiceRequest,
            Config = (),
            Response = ServiceResponse<B>,
            Error = Error,
            InitError = (),
        > + 'static
{
}

/// Serves what `app` makes, once for each worker.
///
/// # Errors
/// What the system says of the listener.
pub fn serve<F, A, B>(listener: TcpListener, serving: &Serving, app: F) -> io::Result<Server>
where
    F: Fn() -> App<A> + Clone + Send + 'static,
    A: Answers<B>,
    B: MessageBody + 'static,
{
    let mut server = Server::build().disable_signals();
    if let Some(workers) = serving.workers {
        server = server.workers(workers);
    }
    // Which connections there are room for is decided where they are taken in.
    server = server
        .max_concurrent_connections(usize::MAX >> 1)
        .shutdown_timeout(serving.shutdown_timeout.as_secs() + 1);
    let stopping = server.graceful_shutdown_signal();
    let http = Http {
        keep_alive: serving.keep_alive,
        stopping: move || {
            let stopping = stopping.clone();
            async move { stopping.notified().await }
        },
    };
    let connections = serving.connections.clone();
    let server = match serving.tls.clone() {
        None => server.listen("http", listener, move || {
            let connections = connections.clone();
            let take_in = move |stream: TcpStream| {
                let taken = taken_in(&connections, stream);
                async move {
                    let (socket, peer) = taken?;
                    Ok((WithoutUpgrade::new(socket), peer))
                }
            };
            fn_service(take_in).and_then(http.clone().service(app()))
        }),
        Some(tls) => server.listen("https", listener, move || {
            let (connections, tls) = (connections.clone(), Arc::clone(&tls));
            let take_in = move |stream: TcpStream| {
                let taken = taken_in(&connections, stream);
                let acceptor = TlsAcceptor::from(tls.load_full());
                async move {
                    let (socket, peer) = taken?;
                    let secure = timeout(HEAD_TIMEOUT, acceptor.accept(socket)).await;
                    let secure = secure.map_err(io::Error::from).flatten();
                    let stream = secure.map_err(DispatchError::Io)?;
                    Ok((WithoutUpgrade::new(stream), peer))
                }
            };
            fn_service(take_in).and_then(http.clone().service(app()))
        }),
    };
    Ok(server?.run())
}

/// A connection and its peer, where there is room for it; else it is closed.
fn taken_in(
    connections: &Connections,
    stream: TcpStream,
) -> Result<(Guarded<TcpStream>, Option<SocketAddr>), DispatchError> {
    // Whoever reset the connection already has no address any more, and what it sent could still be read: it would be
    // asked for by nobody from nowhere.
    let peer = stream.peer_addr().map_err(DispatchError::Io)?;
    // Answers are written whole; waiting for more would only hold them up. Nothing depends on either.
    let _ = stream.set_nodelay(true);
    let _ = set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES);
    let full = || DispatchError::Io(io::ErrorKind::QuotaExceeded.into());
    let socket = connections.take_in(stream).ok_or_else(full)?;
    Ok((socket, Some(peer)))
}

/// A stream of which it is known which connection it is.
trait Known {
    fn connection(&self) -> &Arc<Connection>;
}

impl Known for Guarded<TcpStream> {
    fn connection(&self) -> &Arc<Connection> {
        self.connection()
    }
}

impl Known for TlsStream<Guarded<TcpStream>> {
    fn connection(&self) -> &Arc<Connection> {
        self.get_ref().0.connection()
    }
}

/// HTTP/1.1 over any stream.
#[derive(Clone)]
struct Http<S> {
    keep_alive: Duration,
    stopping: S,
}

impl<S, Stopping> Http<S>
where
    S: Fn() -> Stopping + Clone + 'static,
    Stopping: Future<Output = ()> + 'static,
{
    fn service<T, A, B>(
        self,
        app: App<A>,
    ) -> impl ServiceFactory<
        (WithoutUpgrade<T>, Option<SocketAddr>),
        Config = (),
        Response = (),
        Error = DispatchError,
        InitError = (),
    >
    where
        T: Known + AsyncRead + AsyncWrite + Unpin + 'static,
        A: Answers<B>,
        B: MessageBody + 'static,
    {
        let app = app
            .into_factory()
            .map_err(|error: Error| error.as_response_error().error_response());
        HttpService::build()
            .graceful_shutdown_signal(self.stopping)
            .keep_alive(self.keep_alive)
            .client_request_timeout(HEAD_TIMEOUT)
            .on_connect_ext(|stream: &WithoutUpgrade<T>, data| {
                data.insert(Arc::clone(stream.stream().connection()));
            })
            .h1(map_config(app, |()| AppConfig::default()))
    }
}

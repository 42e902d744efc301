//! The two listeners: REST, and metrics and probes.

use std::io;
use std::net::{SocketAddr, TcpListener};

use actix_web::App as ActixApp;
use actix_web::body::MessageBody;
use actix_web::dev::{Server, ServerHandle};
use actix_web::middleware::from_fn;
use actix_web::web::ServiceConfig;

use crate::config;
use crate::http::{self, Connections, Parts, Serving};
use crate::tasks::Tasks;

use super::StartError;
use super::tls::LiveTls;

/// Connections of the admin listener at once: scrapers and probes.
const ADMIN_CONNECTIONS_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Listening {
    pub(super) address: SocketAddr,
    pub(super) handle: ServerHandle,
    pub(super) task: tokio::task::JoinHandle<io::Result<()>>,
}

/// Listens for REST, and for whoever watches the gateway where that is on.
pub(super) fn listeners(
    settings: &config::Server,
) -> Result<(TcpListener, Option<TcpListener>), StartError> {
    let rest = listen(settings.bind, "server.bind")?;
    let admin = settings.admin_bind;
    let admin = admin.map(|address| listen(address, "server.admin_bind"));
    Ok((rest, admin.transpose()?))
}

/// Says in the log where is served what.
pub(super) fn tell_where(rest: &Listening, admin: Option<&Listening>, over_tls: bool) {
    let (address, port) = (rest.address.ip(), rest.address.port());
    tracing::info!(server.address = %address, server.port = port, server.over_tls = over_tls, "serving REST");
    if let Some(admin) = admin {
        let (address, port) = (admin.address.ip(), admin.address.port());
        tracing::info!(server.address = %address, server.port = port, "serving metrics and probes");
    }
}

fn listen(address: SocketAddr, key: &'static str) -> Result<TcpListener, StartError> {
    http::listen(address).map_err(|source| StartError::Listen {
        address,
        key,
        source,
    })
}

pub(super) fn serve_rest(
    listener: TcpListener,
    tls: Option<&LiveTls>,
    parts: Parts,
    settings: &config::Server,
    most_connections: usize,
) -> Result<Listening, StartError> {
    let serving = Serving {
        connections: Connections::at_most(most_connections),
        keep_alive: settings.keep_alive,
        shutdown_timeout: settings.shutdown_timeout,
        workers: None,
        tls: tls.map(LiveTls::settings),
    };
    let origins = settings.cors_origins.clone();
    let over_tls = tls.is_some();
    serve(
        listener,
        "server.bind",
        &serving,
        &parts.tasks.clone(),
        move || {
            let routes_of = |routes: &mut ServiceConfig| {
                if over_tls {
                    routes.app_data(http::OverTls);
                }
                http::routes(&parts, routes);
            };
            ActixApp::new()
                .app_data(parts.metrics.clone())
                .app_data(parts.traces.clone())
                .app_data(parts.requests.clone())
                .app_data(parts.proxies.clone())
                .configure(routes_of)
                .wrap(http::cors(&origins))
                .wrap(from_fn(http::observe))
        },
    )
}

pub(super) fn serve_admin(
    listener: TcpListener,
    parts: Parts,
    settings: &config::Server,
) -> Result<Listening, StartError> {
    let serving = Serving {
        connections: Connections::at_most(ADMIN_CONNECTIONS_MAX),
        keep_alive: settings.keep_alive,
        shutdown_timeout: settings.shutdown_timeout,
        workers: Some(1),
        tls: None,
    };
    serve(
        listener,
        "server.admin_bind",
        &serving,
        &parts.tasks.clone(),
        move || {
            ActixApp::new()
                .configure(|routes| http::admin_routes(&parts, routes))
                .wrap(from_fn(http::observe))
        },
    )
}

/// Serves, and cuts connections that are of no use.
fn serve<A, B>(
    listener: TcpListener,
    key: &'static str,
    serving: &Serving,
    tasks: &Tasks,
    app: impl Fn() -> ActixApp<A> + Clone + Send + 'static,
) -> Result<Listening, StartError>
where
    A: http::Answers<B>,
    B: MessageBody + 'static,
{
    let refused = |source| StartError::Listen {
        address: ([0, 0, 0, 0], 0).into(),
        key,
        source,
    };
    let address = listener.local_addr().map_err(refused)?;
    let server = http::serve(listener, serving, app).map_err(|source| StartError::Listen {
        address,
        key,
        source,
    })?;
    let stopping = tasks.clone();
    let tending = serving.connections.tend(serving.cut_after(), async move {
        stopping.stopping().await;
    });
    tasks.serve(tending);
    Ok(run(address, server))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a server is stopped and waited for by itself"
)]
fn run(address: SocketAddr, server: Server) -> Listening {
    let handle = server.handle();
    Listening {
        address,
        handle,
        task: tokio::spawn(server),
    }
}

//! Puts the rooms together: start, reload, drain. No logic of its own.

mod descriptors;
mod files;
mod identity;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix_web::App as ActixApp;
use actix_web::body::MessageBody;
use actix_web::dev::{Server, ServerHandle};
use actix_web::middleware::from_fn;
use actix_web::web::Data;
use tokio::time::{timeout, timeout_at};

use crate::audit::{self, Accepted, Health, Reader, StoreError, Writer, WriterTask};
use crate::auth::{Authenticator, KeySet, SourceError};
use crate::authorization::Authorizer;
use crate::config::{self, Config, Faults, Sources};
use crate::domain::{Deadline, Timestamp};
use crate::http::{self, Check, Connections, Parts, Readiness, Requests, Serving};
use crate::sharing::Sharing;
use crate::tasks::Tasks;
use crate::telemetry::{LostLines, Metrics};
use crate::upstream::{ClientError, Keys, Upstream};

use descriptors::most_connections;
pub use files::with_file_checks;
use files::{load_policies, tls_settings};
use identity::authenticator;

/// Connections of the admin listener at once: scrapers and probes.
const ADMIN_CONNECTIONS_MAX: usize = 64;
/// What work in flight gets to write down where it stands once its time is up.
const GIVING_UP_TIME: Duration = Duration::from_secs(2);
/// What the last commit gets, however late it is.
const LAST_COMMIT_TIME: Duration = Duration::from_secs(2);
/// What their answers get to reach their callers.
const LAST_ANSWERS_TIME: Duration = Duration::from_secs(1);

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The trail cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No client for the upstream.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No client for the keys.
    #[error(transparent)]
    KeySource(#[from] SourceError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({key})")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The key that names it.
        key: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// A file that was right a moment ago is not any more.
    #[error("{key}: {message}")]
    File {
        /// The key that names it.
        key: String,
        /// What is wrong.
        message: String,
    },
}

/// A running gateway.
#[derive(Debug)]
pub struct App {
    rest: Listening,
    admin: Option<Listening>,
    secure: bool,
    tasks: Tasks,
    requests: Requests,
    writer: WriterTask,
    reader: Reader,
    readiness: Data<Readiness>,
    authenticator: Data<Authenticator>,
    authorizer: Arc<Authorizer>,
    upstream: Arc<Upstream>,
    sharing: Sharing,
    settings: config::Server,
    /// As it was at the start.
    identity: config::Auth,
    metrics: Metrics,
}

#[derive(Debug)]
struct Listening {
    address: SocketAddr,
    handle: ServerHandle,
    task: tokio::task::JoinHandle<io::Result<()>>,
}

impl App {
    /// Starts everything. `sandbox_keys` are used where the configuration asks for throw-away keys.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub async fn start(
        config: Config,
        sandbox_keys: Option<KeySet>,
        accepted: Accepted,
    ) -> Result<Self, StartError> {
        for odd in config.inert.iter().chain(&config.warnings) {
            tracing::warn!("{odd}");
        }
        let rest_listener = listen(config.server.bind, "server.bind")?;
        let admin_listener = config
            .server
            .admin_bind
            .map(|address| listen(address, "server.admin_bind"))
            .transpose()?;
        let tls = config.server.tls.as_ref().map(tls_settings).transpose();
        let tls = tls.map_err(|message| StartError::File {
            key: "server.tls_key_file".into(),
            message,
        })?;
        let secure = tls.is_some();

        let metrics = Metrics::new();
        let (tasks, requests) = (Tasks::on_this_runtime(), Requests::default());
        let authenticator = Arc::new(authenticator(&config.auth, sandbox_keys)?);
        authenticator.follow(&tasks)?;
        let authenticator = Data::from(authenticator);
        let policies = load_policies(config.authorization.policy_file.as_deref());
        let policies = policies.map_err(|message| StartError::File {
            key: "authorization.policy_file".into(),
            message,
        })?;
        let authorizer = Arc::new(Authorizer::new(policies));
        let upstream = Arc::new(Upstream::new(&config.upstream, metrics.clone())?);
        let (writer, writer_task, reader) =
            audit::open(&config.audit.database, accepted, metrics.clone()).await?;
        let sharing = Sharing::new(
            Arc::clone(&authorizer),
            writer.clone(),
            reader.clone(),
            Arc::clone(&upstream),
            tasks.clone(),
            metrics.clone(),
            &config.upstream,
        );
        sharing.recover().await;

        let checks = checks(authenticator.clone(), writer, sharing.clone());
        let readiness = Data::new(Readiness::new(checks));
        let parts = Parts {
            authenticator: authenticator.clone(),
            authorizer: Data::from(Arc::clone(&authorizer)),
            sharing: Data::new(sharing.clone()),
            reader: Data::new(reader.clone()),
            tasks: Data::new(tasks.clone()),
            streams: Data::new(http::Streams::new(tasks.clone(), requests.clone())),
            requests: Data::new(requests.clone()),
            bounds: Data::new(http::RequestBounds {
                region: config.upstream.region.clone(),
                regions: config.upstream.regions.clone(),
                request_timeout: config.server.request_timeout,
            }),
            limits: Data::new(http::RateLimits::new(&config.limits)),
            proxies: Data::new(http::TrustedProxies::new(
                config.server.trusted_proxies.clone(),
                config.server.client_address_header,
            )),
            readiness: readiness.clone(),
            metrics: Data::new(metrics.clone()),
        };
        let most = most_connections(&config);
        let rest = serve_rest(rest_listener, tls, parts.clone(), &config.server, most)?;
        let admin = admin_listener
            .map(|listener| serve_admin(listener, parts, &config.server))
            .transpose()?;
        tracing::info!(server.address = %rest.address, server.tls = secure, "serving REST");
        if let Some(admin) = &admin {
            tracing::info!(server.address = %admin.address, "serving metrics and probes");
        }
        Ok(Self {
            rest,
            admin,
            secure,
            tasks,
            requests,
            writer: writer_task,
            reader,
            readiness,
            authenticator,
            authorizer,
            upstream,
            sharing,
            settings: config.server,
            identity: config.auth,
            metrics,
        })
    }

    /// Takes over the count of log lines that nobody read.
    pub fn count_lost_lines(&self, lost: LostLines) {
        self.metrics.count_lost_lines(lost);
    }

    /// The URL that REST is served at.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!(
            "{}://{}",
            if self.secure { "https" } else { "http" },
            reachable(self.rest.address)
        )
    }

    /// Where metrics and probes are served, if they are.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|admin| admin.address)
    }

    /// Reads the key set, the policies and the upstream keys again; what is faulty leaves all old ones in place. Keys
    /// that somebody else serves are fetched; where that fails the old ones work on, and the log says so.
    ///
    /// # Errors
    /// The faults; nothing was changed then.
    pub async fn reload(&self, sources: &Sources) -> Result<(), Faults> {
        let config = Config::load_over(sources, self.authorizer.has_policies())?;
        identity::check_same(&self.identity, &config.auth)?;
        for odd in &config.warnings {
            tracing::warn!("{odd}");
        }
        let fault = |key: &str| {
            let key = key.to_owned();
            move |message| {
                Faults(vec![config::Fault {
                    key,
                    origin: None,
                    message,
                }])
            }
        };
        let keys =
            identity::keys_of_files(&config.auth).map_err(|(key, message)| fault(&key)(message))?;
        let policies = load_policies(config.authorization.policy_file.as_deref())
            .map_err(fault("authorization.policy_file"))?;
        let policies_gone = policies.is_none() && self.authorizer.has_policies();
        for (name, keys) in keys {
            self.authenticator.use_keys(name, keys);
        }
        if policies_gone {
            // Whoever takes all limits away has to stop the gateway for it; a variable is forgotten more easily.
            tracing::warn!(
                "authorization.policy_file is not configured any more; the policies of before stay until a restart"
            );
        } else {
            self.authorizer.use_policies(policies);
        }
        self.upstream.use_keys(Keys {
            public: config.upstream.public_key,
            private: config.upstream.private_key,
        });
        // The last of all: who serves keys may be slow.
        for issuer in self.authenticator.reload().await {
            tracing::warn!(
                issuer,
                "the key set could not be fetched; the last good one, where there is one, works on"
            );
        }
        let policies = if policies_gone { "" } else { "policies, " };
        tracing::info!("reloaded: keys for tokens, {policies}keys for the upstream");
        Ok(())
    }

    /// Resolves when a server has ended although nobody stopped it; with words for the log.
    pub async fn server_ended(&mut self) -> String {
        let admin = async {
            match &mut self.admin {
                Some(admin) => (&mut admin.task).await,
                None => std::future::pending().await,
            }
        };
        let (which, ended) = tokio::select! {
            ended = &mut self.rest.task => ("REST", ended),
            ended = admin => ("metrics and probes", ended),
        };
        let how = match ended {
            Ok(Ok(())) => "without an error".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        format!("the server of {which} has ended: {how}")
    }

    /// Drains: not ready at once, after the delay no new connections, then calls in flight finish and their
    /// outcomes get to disk. Returns whether all of them did within the configured time.
    pub async fn stop(self) -> bool {
        self.readiness.drain();
        tracing::info!("stopping: not ready any more");
        tokio::time::sleep(self.settings.drain_delay).await;
        self.tasks.stop();
        let deadline = Deadline::after(self.settings.shutdown_timeout);
        // Closes the listener at once; resolves when every request that came is answered.
        let mut answering = std::pin::pin!(self.rest.handle.stop(true));
        let all = all_answered(&self.requests, answering.as_mut());
        let answered = timeout_at(deadline.instant().into(), all).await.is_ok();
        let finished = self.tasks.finish(deadline, GIVING_UP_TIME).await;
        self.sharing.tell_what_is_left();
        if !answered {
            // Work that gave up has an answer now; it gets a moment to reach its caller.
            let _ = timeout(LAST_ANSWERS_TIME, &mut answering).await;
        }
        self.rest.task.abort();
        // A query that nobody waits for any more may still run; it changes nothing.
        let _ = timeout(LAST_ANSWERS_TIME, self.reader.close()).await;
        let closed = self.writer.stop(deadline.or_after(LAST_COMMIT_TIME)).await;
        if let Some(admin) = self.admin {
            let _ = timeout(LAST_ANSWERS_TIME, admin.handle.stop(false)).await;
            admin.task.abort();
        }
        let recorded = closed.is_some_and(|closed| closed.lost_outcomes == 0);
        let clean = answered && finished && recorded;
        tracing::info!(clean, at = %Timestamp::now(), "stopped");
        clean
    }
}

/// What must hold for the gateway to be ready.
fn checks(authenticator: Data<Authenticator>, writer: Writer, sharing: Sharing) -> Vec<Check> {
    let keys_known = Check::new("auth", move || {
        let detail = authenticator.detail();
        if authenticator.is_ready() {
            Ok(detail)
        } else {
            Err(detail.unwrap_or_else(|| "no key set is loaded".to_owned()))
        }
    });
    let trail_writable = Check::new("audit", move || match writer.health() {
        Health::Writable => Ok(clock_in_words(writer.clock_behind())),
        Health::Failing(why) => Err(why.to_owned()),
    });
    // An upstream that is down makes no gateway unready: every replica would be taken out of service at once, and
    // nobody would be told why.
    let upstream_breaker = Check::new("upstream", move || {
        let state = sharing.breaker_state().as_str();
        Ok(Some(format!("circuit breaker: {state}")))
    });
    vec![keys_known, trail_writable, upstream_breaker]
}

/// Changes go on where the clock is behind, but whoever looks should know.
fn clock_in_words(behind: Duration) -> Option<String> {
    (behind > audit::CLOCK_BEHIND_TOLD).then(|| {
        let seconds = behind.as_secs();
        format!("the clock is {seconds} s behind the last event's id; new events bear that time")
    })
}

/// Waits until every request that came is answered. Followers of the feed were told to end by then; one whose
/// client takes nothing cannot be, and is not waited for.
async fn all_answered(requests: &Requests, mut answering: Pin<&mut impl Future<Output = ()>>) {
    loop {
        tokio::select! {
            () = &mut answering => return,
            () = requests.only_followers() => {}
        }
        let ended = timeout(LAST_ANSWERS_TIME, &mut answering).await.is_ok();
        if ended || requests.are_only_followers() {
            return;
        }
    }
}

fn listen(address: SocketAddr, key: &'static str) -> Result<TcpListener, StartError> {
    http::listen(address).map_err(|source| StartError::Listen {
        address,
        key,
        source,
    })
}

fn serve_rest(
    listener: TcpListener,
    tls: Option<rustls::ServerConfig>,
    parts: Parts,
    settings: &config::Server,
    most_connections: usize,
) -> Result<Listening, StartError> {
    let serving = Serving {
        connections: Connections::at_most(most_connections),
        keep_alive: settings.keep_alive,
        shutdown_timeout: settings.shutdown_timeout,
        workers: None,
        tls: tls.map(Arc::new),
    };
    let origins = settings.cors_origins.clone();
    serve(
        listener,
        "server.bind",
        &serving,
        &parts.tasks.clone(),
        move || {
            ActixApp::new()
                .app_data(parts.metrics.clone())
                .app_data(parts.requests.clone())
                .app_data(parts.proxies.clone())
                .configure(|routes| http::routes(&parts, routes))
                .wrap(http::cors(&origins))
                .wrap(from_fn(http::observe))
        },
    )
}

fn serve_admin(
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

/// An address under which a listener on `bound` can be reached from this machine.
#[must_use]
pub fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}

//! Puts the rooms together: start, reload, drain. No logic of its own.

mod descriptors;
mod files;
mod identity;
mod reload;
mod serving;
mod tls;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web::Data;
use tokio::time::{timeout, timeout_at};

use crate::audit::{self, Accepted, Doors, Health, Reader, StoreError, Writer, WriterTask};
use crate::auth::{Authenticator, KeySet, SandboxTokens, SourceError};
use crate::authorization::Authorizer;
use crate::config::Config;
use crate::domain::Deadline;
pub use crate::http::Readiness;
use crate::http::{self, Check, Parts, Requests};
use crate::sharing::{Sharing, Trail};
use crate::tasks::Tasks;
use crate::telemetry::traces::{Exporting, TraceError};
use crate::telemetry::{Instruments, LostLines, Metrics, Traces};
use crate::upstream::{ClientError, Upstream};

use descriptors::most_connections;
use files::load_policies;
pub use files::with_file_checks;
use identity::authenticator;
use serving::{Listening, listeners, serve_admin, serve_rest, tell_where};
use tls::LiveTls;

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
    /// Traces cannot be exported.
    #[error(transparent)]
    Traces(#[from] TraceError),
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

/// The throw-away keys of a sandbox, and what signs with them.
#[derive(Debug)]
pub struct SandboxKeys {
    /// By which tokens are checked.
    pub keys: KeySet,
    /// What pages offer; nothing where no key can sign.
    pub tokens: Option<SandboxTokens>,
}

impl SandboxKeys {
    fn apart(self) -> (KeySet, Option<SandboxTokens>) {
        (self.keys, self.tokens)
    }
}

fn request_bounds(config: &Config) -> http::RequestBounds {
    http::RequestBounds {
        region: config.upstream.region.clone(),
        regions: config.upstream.regions.clone(),
        request_timeout: config.server.request_timeout,
    }
}

/// A running gateway.
#[derive(Debug)]
pub struct App {
    rest: Listening,
    admin: Option<Listening>,
    tls: Option<Arc<LiveTls>>,
    tasks: Tasks,
    requests: Requests,
    writer: WriterTask,
    reader: Reader,
    readiness: Data<Readiness>,
    authenticator: Data<Authenticator>,
    authorizer: Arc<Authorizer>,
    upstream: Arc<Upstream>,
    sharing: Sharing,
    /// As it was at the start.
    config: Config,
    metrics: Metrics,
    exporting: Option<Exporting>,
}

impl App {
    /// Starts everything. The keys of `sandbox` are used where the configuration asks for throw-away ones.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub async fn start(
        config: Config,
        sandbox: Option<SandboxKeys>,
        accepted: Accepted,
    ) -> Result<Self, StartError> {
        tell_odd(&config);
        let (rest_listener, admin_listener) = listeners(&config.server)?;
        let metrics = Metrics::new();
        let (tasks, requests) = (Tasks::on_this_runtime(), Requests::default());
        let tls = start_tls(&config, &metrics, &tasks)?;
        let (traces, exporting) = start_traces(&config, &metrics)?;
        let instruments = Instruments {
            metrics: metrics.clone(),
            traces: traces.clone(),
        };
        let (sandbox_keys, sandbox_tokens) = sandbox.map(SandboxKeys::apart).unzip();
        let authenticator = Arc::new(authenticator(&config.auth, sandbox_keys, metrics.clone())?);
        authenticator.follow(&tasks)?;
        let authenticator = Data::from(authenticator);
        let authorizer = Arc::new(start_authorizer(&config, &metrics)?);
        let upstream = Arc::new(Upstream::new(&config.upstream, instruments.clone())?);
        let call_time = config.upstream.timeout;
        let opened = audit::open(&config.audit.database, accepted, call_time, metrics.clone());
        let Doors {
            writer,
            task: writer_task,
            reader,
            replicas,
        } = opened.await?;
        let trail = Trail {
            writer: writer.clone(),
            reader: reader.clone(),
            replicas,
        };
        let sharing = Sharing::new(
            Arc::clone(&authorizer),
            trail,
            Arc::clone(&upstream),
            tasks.clone(),
            instruments,
            &config.upstream,
        );
        sharing.recover().await;

        let checks = checks(authenticator.clone(), writer, sharing.clone());
        let readiness = Data::new(Readiness::new(checks));
        let links = http::Links::new(config.server.public_url.clone());
        let bounds = request_bounds(&config);
        let parts = Parts {
            authenticator: authenticator.clone(),
            authorizer: Data::from(Arc::clone(&authorizer)),
            sharing: Data::new(sharing.clone()),
            reader: Data::new(reader.clone()),
            tasks: Data::new(tasks.clone()),
            streams: Data::new(http::Streams::new(
                tasks.clone(),
                requests.clone(),
                metrics.clone(),
            )),
            requests: Data::new(requests.clone()),
            document: Data::new(http::document_text(&links, &bounds)),
            links: Data::new(links),
            sandbox_tokens: Data::new(sandbox_tokens.flatten()),
            bounds: Data::new(bounds),
            limits: Data::new(http::RateLimits::new(&config.limits, metrics.clone())),
            proxies: Data::new(http::TrustedProxies::new(
                config.server.trusted_proxies.clone(),
                config.server.client_address_header,
            )),
            readiness: readiness.clone(),
            metrics: Data::new(metrics.clone()),
            traces: Data::new(traces),
        };
        let most = most_connections(&config);
        let rest = serve_rest(
            rest_listener,
            tls.as_deref(),
            parts.clone(),
            &config.server,
            most,
        )?;
        let admin = admin_listener
            .map(|listener| serve_admin(listener, parts, &config.server))
            .transpose()?;
        tell_where(&rest, admin.as_ref(), tls.is_some());
        Ok(Self {
            rest,
            admin,
            tls,
            tasks,
            requests,
            writer: writer_task,
            reader,
            readiness,
            authenticator,
            authorizer,
            upstream,
            sharing,
            config,
            metrics,
            exporting,
        })
    }

    /// Takes over the count of log lines that nobody read.
    pub fn count_lost_lines(&self, lost: LostLines) {
        self.metrics.count_lost_lines(lost);
    }

    /// Whether the gateway wants requests.
    #[must_use]
    pub fn readiness(&self) -> Arc<Readiness> {
        self.readiness.clone().into_inner()
    }

    /// The URL that REST is served at.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!(
            "{}://{}",
            if self.tls.is_some() { "https" } else { "http" },
            reachable(self.rest.address)
        )
    }

    /// Where metrics and probes are served, if they are.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|admin| admin.address)
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
        self.requests.drain();
        tracing::info!("stopping: not ready any more");
        tokio::time::sleep(self.config.server.drain_delay).await;
        self.tasks.stop();
        let deadline = Deadline::after(self.config.server.shutdown_timeout);
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
        let _ = timeout(LAST_COMMIT_TIME, self.sharing.leave()).await;
        let closed = self.writer.stop(deadline.or_after(LAST_COMMIT_TIME)).await;
        if let Some(admin) = self.admin {
            let _ = timeout(LAST_ANSWERS_TIME, admin.handle.stop(false)).await;
            admin.task.abort();
        }
        if let Some(exporting) = self.exporting {
            exporting.stop().await;
        }
        let recorded = closed.is_some_and(|closed| closed.lost_outcomes == 0);
        let clean = answered && finished && recorded;
        tracing::info!(stop.clean = clean, "stopped");
        clean
    }
}

fn start_tls(
    config: &Config,
    metrics: &Metrics,
    tasks: &Tasks,
) -> Result<Option<Arc<LiveTls>>, StartError> {
    let files = config.server.tls.as_ref();
    let tls = files.map(|files| LiveTls::start(files, metrics.clone(), tasks));
    tls.transpose().map_err(|(key, message)| StartError::File {
        key: key.into(),
        message,
    })
}

fn start_authorizer(config: &Config, metrics: &Metrics) -> Result<Authorizer, StartError> {
    let policies = load_policies(config.authorization.policy_file.as_deref());
    let policies = policies.map_err(|message| StartError::File {
        key: "authorization.policy_file".into(),
        message,
    })?;
    Ok(Authorizer::new(policies, metrics.clone()))
}

/// Says in the log what is allowed and unwise.
fn tell_odd(config: &Config) {
    for odd in &config.warnings {
        tracing::warn!("{odd}");
    }
}

fn start_traces(
    config: &Config,
    metrics: &Metrics,
) -> Result<(Traces, Option<Exporting>), TraceError> {
    let settings = config.telemetry.traces.as_ref();
    let started = settings.map(|settings| Traces::start(settings, metrics.clone()));
    let (traces, exporting) = started.transpose()?.unzip();
    Ok((traces.unwrap_or_default(), exporting))
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
        Health::Writable => match writer.lease().clock_off() {
            Some(by) => Err(format!(
                "the clock is {} s off the database's",
                by.as_secs()
            )),
            None if !writer.lease().settles() => {
                Err("who may change an image cannot be settled with other gateways".to_owned())
            }
            None => Ok(clock_in_words(writer.clock_behind())),
        },
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

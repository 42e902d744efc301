//! `serve`: runs the gateway, holds the signals, prints the sandbox's banner.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failure, ServeArgs, print, service_manager};
use crate::app::{App, SandboxKeys, with_file_checks};
use crate::audit::Accepted;
use crate::auth::{KeySet, SANDBOX_TOKEN_TTL, SandboxToken, SandboxTokens, throw_away_set};
use crate::config::{Config, KeySource, Sources};
use crate::sandbox::{Sandbox, Settings};
use crate::telemetry::start_logging;

pub(super) async fn run(args: ServeArgs) -> Result<ExitCode, Failure> {
    let mut stop = stop_signal()?;
    let mut reload =
        signal(SignalKind::hangup()).map_err(|error| Failure::could_not_run(&error))?;
    let mut sources = with_file_checks(Sources::of_this_process(args.config.as_deref()));
    let upstream = if args.sandbox {
        Some(SandboxUpstream::prepare(&mut sources)?)
    } else {
        None
    };
    // Aside: a file that does not answer keeps nobody from stopping it.
    let reading = tokio::task::spawn_blocking(move || (Config::load(&sources), sources));
    let read = tokio::select! {
        read = reading => read.map_err(|error| Failure::could_not_run(&error))?,
        () = stop.recv() => return Ok(ExitCode::SUCCESS),
    };
    let (config, sources) = (read.0?, read.1);
    let filter = sources.environment.get("RUST_LOG");
    let logging = start_logging(config.telemetry.log_format, filter.map(String::as_str));
    let sandbox_keys = throw_away_keys(&config)?;
    let tokens = sandbox_keys
        .as_ref()
        .and_then(|sandbox| sandbox.tokens.as_ref());
    let tokens = tokens.map(SandboxTokens::sign);
    let running = upstream
        .map(|upstream| upstream.start(&config))
        .transpose()?;
    let accepted = Accepted {
        clock: args.accept_clock,
        cut_trail: args.accept_cut_trail,
    };
    let mut app = App::start(config, sandbox_keys, accepted)
        .await
        .map_err(|error| Failure::could_not_run(&error))?;
    app.count_lost_lines(logging.lost());
    if args.sandbox {
        print(&banner(&app.base_url(), tokens.as_deref()))?;
    }
    let mut served = true;
    service_manager::keep_telling_alive(app.readiness());
    let mut ready = std::pin::pin!(service_manager::tell_ready(app.readiness()));
    let mut told_ready = false;
    loop {
        tokio::select! {
            () = stop.recv() => break,
            why = app.server_ended() => {
                tracing::error!("{why}; the gateway stops");
                served = false;
                break;
            }
            () = &mut ready, if !told_ready => told_ready = true,
            Some(()) = reload.recv() => {
                if told_ready {
                    service_manager::tell_reloading();
                }
                let again = sources_again(&sources);
                let reloaded = tokio::select! {
                    reloaded = app.reload(again) => reloaded,
                    () = stop.recv() => break,
                };
                match reloaded {
                    Ok(()) => {}
                    Err(faults) => for fault in faults.0 {
                        tracing::error!("not reloaded: {fault}");
                    },
                }
                if told_ready {
                    service_manager::tell_reloaded();
                }
            }
        }
    }
    service_manager::tell_stopping();
    let stopped = tokio::select! {
        clean = app.stop() => clean,
        () = stop.recv() => {
            tracing::warn!("stopped at once by a second signal; changes in flight read `unknown` after the next start");
            false
        }
    };
    if let Some(sandbox) = running {
        sandbox.stop().await;
    }
    Ok(if stopped && served {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Either of the signals that ask for a stop.
pub(super) struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    pub(super) async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Listens for SIGTERM and SIGINT from now on.
pub(super) fn stop_signal() -> Result<StopSignal, Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::could_not_run(&error));
    Ok(StopSignal {
        terminate: listen(SignalKind::terminate())?,
        interrupt: listen(SignalKind::interrupt())?,
    })
}

/// The built-in upstream, bound but not serving until its settings are known.
struct SandboxUpstream {
    listener: TcpListener,
}

impl SandboxUpstream {
    /// Binds a port and sets what `--sandbox` sets where neither file nor environment does.
    fn prepare(sources: &mut Sources) -> Result<Self, Failure> {
        let cannot = |error: std::io::Error| Failure::could_not_run(&error);
        let listener = TcpListener::bind("127.0.0.1:0").map_err(cannot)?;
        let base_url = format!("http://{}/", listener.local_addr().map_err(cannot)?);
        let key = || uuid::Uuid::new_v4().simple().to_string();
        sources.sandbox = true;
        sources.defaults.extend([
            ("auth.issuer", "https://sandbox.invalid".to_owned()),
            ("auth.audience", "image-share-gateway".to_owned()),
            ("audit.database_url", "sqlite://data/sandbox.db".to_owned()),
            ("upstream.base_url", base_url),
            ("upstream.public_key", key()),
            ("upstream.private_key", key()),
        ]);
        Ok(Self { listener })
    }

    /// Serves with the regions and keys of the configuration.
    fn start(self, config: &Config) -> Result<Sandbox, Failure> {
        use secrecy::ExposeSecret as _;
        let settings = Settings {
            public_key: config.upstream.public_key.expose_secret().to_owned(),
            private_key: config.upstream.private_key.expose_secret().to_owned(),
            latency: Duration::ZERO,
            fault_rate: 0.0,
        };
        Sandbox::start(self.listener, settings).map_err(|error| Failure::could_not_run(&error))
    }
}

/// What is read again at SIGHUP: the same layers, files and secrets anew.
fn sources_again(sources: &Sources) -> Sources {
    let fresh = with_file_checks(Sources::of_this_process(sources.file.as_deref()));
    Sources {
        defaults: sources.defaults.clone(),
        sandbox: sources.sandbox,
        ..fresh
    }
}

/// Throw-away keys, where the configuration asks for them: what is signed with other keys might be good elsewhere.
fn throw_away_keys(config: &Config) -> Result<Option<SandboxKeys>, Failure> {
    let first = &config.auth.first;
    if first.keys != KeySource::Sandbox {
        return Ok(None);
    }
    let set = throw_away_set();
    Ok(Some(SandboxKeys {
        keys: KeySet::parse(&set).map_err(|error| Failure::could_not_run(&error))?,
        tokens: SandboxTokens::new(&set, &first.iss, &first.audience),
    }))
}

fn banner(base_url: &str, tokens: Option<&[SandboxToken]>) -> String {
    let mut text = format!(
        "The gateway runs against a sandbox: nothing leaves this machine.\n\n\
         Base URL    {base_url}\n\
         Swagger UI  {base_url}/swagger-ui/\n\
         Console     {base_url}/console/\n"
    );
    let hours = SANDBOX_TOKEN_TTL.as_secs() / 3600;
    // Writing to a String cannot fail.
    let _ = match tokens {
        Some([sharer, auditor]) => {
            for SandboxToken { role, scope, token } in [sharer, auditor] {
                let _ = write!(
                    text,
                    "\nToken of the {role} ({scope}), good for {hours} hours:\n{token}\n"
                );
            }
            let (sharer, auditor) = (&sharer.token, &auditor.token);
            write!(
                text,
                "\nShare an image with an account:\n\
                 curl -i -X PUT -H 'Authorization: Bearer {sharer}' \
                 '{base_url}/images/compshareImage-sandbox1/shares/12345?reason=trying%20it%20out'\n\
                 \nSee it in the audit trail, or in the console:\n\
                 curl -H 'Authorization: Bearer {auditor}' '{base_url}/audit/events?limit=5'\n\
                 \nCtrl-C stops it.\n"
            )
        }
        _ => write!(
            text,
            "\nThe keys are those of the configuration: bring a token of your own.\n\
             \nShare an image with an account:\n\
             curl -i -X PUT -H \"Authorization: Bearer $TOKEN\" \
             '{base_url}/images/compshareImage-sandbox1/shares/12345?reason=trying%20it%20out'\n\
             \nCtrl-C stops it.\n"
        ),
    };
    text
}

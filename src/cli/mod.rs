//! The command line: what each command prints and how it ends.
//!
//! Results go to stdout, everything else to stderr. Exit code 0: done; 1: it could not run, or the check
//! failed; 2: wrong usage or configuration. `audit verify` has its own meaning of 2.

mod backup;
mod check_config;
mod completions;
mod examples;
mod export;
mod healthcheck;
mod import;
mod openapi;
mod policy;
mod progress;
mod sandbox;
mod serve;
mod service_manager;
mod token;
mod verify;

use std::error::Error;
use std::fmt::{Display, Write as _};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::audit::{EventOperation, Expected};
use crate::config::{Config, Faults, Sources, TrailPlace, parse_duration, trail_place};
use crate::domain::{AccountId, ImageId, Outcome, Timestamp};

/// Share CompShare machine images through REST, audited, with keys that only the gateway holds.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway.
    #[command(after_help = examples::SERVE)]
    Serve(ServeArgs),
    /// Run the upstream sandbox alone, for other clients.
    #[command(after_help = examples::SANDBOX)]
    Sandbox(SandboxArgs),
    /// Sign a token for development with a key of a JWK Set.
    #[command(after_help = examples::TOKEN)]
    Token(TokenArgs),
    /// Print the OpenAPI document.
    #[command(after_help = examples::OPENAPI)]
    Openapi {
        /// How it is written.
        #[arg(long, value_enum, default_value_t = DocumentFormat::Json)]
        format: DocumentFormat,
    },
    /// Look after the audit trail.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Try policies.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Look at everything that `serve` would need, and print the configuration that takes effect, without secrets; exit 0,
    /// or 2 with every fault.
    #[command(after_help = examples::CHECK_CONFIG)]
    CheckConfig(CheckConfigArgs),
    /// Ask a running gateway whether it is ready.
    #[command(after_help = examples::HEALTHCHECK)]
    Healthcheck(HealthcheckArgs),
    /// Print what a shell completes commands by.
    #[command(after_help = examples::COMPLETIONS)]
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: CompletionShell,
    },
}

#[derive(Debug, Args)]
struct CheckConfigArgs {
    /// The configuration, in TOML.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// The configuration, in TOML.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Run against a built-in upstream, with throw-away keys and no configuration.
    #[arg(long)]
    sandbox: bool,
    /// Start although the clock is far behind the trail's last event.
    #[arg(long)]
    accept_clock: bool,
    /// Start although the trail does not hold the last row that this host noted, after a restore, say.
    #[arg(long)]
    accept_cut_trail: bool,
}

#[derive(Debug, Args)]
struct SandboxArgs {
    /// Where to listen.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    bind: SocketAddr,
    /// The public key that calls must name.
    #[arg(long, value_name = "K", default_value = "sandbox-public-key")]
    public_key: String,
    /// The private key that calls must be signed with.
    #[arg(long, value_name = "K", default_value = "sandbox-private-key")]
    private_key: String,
    /// How long each answer is held back.
    #[arg(long, value_name = "N", default_value_t = 0)]
    latency_ms: u64,
    /// The share of calls, 0 to 1, that get HTTP 503, RetCode 150 or a reset, in turn.
    #[arg(long, value_name = "F", default_value_t = 0.0, value_parser = parse_rate)]
    fault_rate: f64,
}

#[derive(Debug, Args)]
struct TokenArgs {
    /// Whom the token is for.
    #[arg(long, value_name = "S", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    sub: String,
    /// What it allows: scopes with spaces between them.
    #[arg(long, value_name = "A B")]
    scope: String,
    /// How long it is good for.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    ttl: Duration,
    /// The JWK Set with private or symmetric keys; that of the configuration unless given.
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,
    /// Which key of the set; the first that can sign unless given.
    #[arg(long, value_name = "K")]
    kid: Option<String>,
    /// The issuer; that of the configuration unless given.
    #[arg(long, value_name = "I")]
    iss: Option<String>,
    /// The audience; that of the configuration unless given.
    #[arg(long, value_name = "A")]
    aud: Option<String>,
    /// The configuration, in TOML.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Walk the hash chain and print its head; exit 0 intact, 1 broken, 2 could not look.
    #[command(after_help = examples::VERIFY)]
    Verify(VerifyArgs),
    /// Copy a SQLite trail into a new file, also while a gateway runs, and verify the copy; prints its head.
    #[command(after_help = examples::BACKUP)]
    Backup(BackupArgs),
    /// Stream events to stdout, newest first unless asked otherwise.
    #[command(after_help = examples::EXPORT)]
    Export(ExportArgs),
    /// Copy a SQLite trail into an empty database of PostgreSQL, rows and hashes as they are, and verify it; prints its head.
    #[command(after_help = examples::IMPORT)]
    Import(ImportArgs),
}

#[derive(Debug, Args)]
struct ImportArgs {
    #[arg(help = "The trail, sqlite://PATH; its gateway has to be stopped")]
    from: String,
    #[arg(help = "The database, postgres://USER@HOST:PORT/DATABASE; no trail may be in it")]
    to: String,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// The trail, as in `audit.database_url`.
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// A head noted earlier, so that a tail cut off is found too. May be given more than once.
    #[arg(long, value_name = "[CHAIN:]SEQUENCE:HASH", num_args = 1..)]
    expect: Vec<Expected>,
    /// The configuration, in TOML.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct BackupArgs {
    /// The copy; nothing may be there.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// The trail, as in `audit.database_url`.
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// The configuration, in TOML.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ExportArgs {
    /// The trail, as in `audit.database_url`.
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// How events are written.
    #[arg(long, value_enum, default_value_t = ExportFormat::Ndjson)]
    format: ExportFormat,
    /// Begins CSV with a byte order mark, for Excel.
    #[arg(long)]
    bom: bool,
    /// Events at or after this time (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse_rfc3339)]
    from: Option<Timestamp>,
    /// Events before this time (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse_rfc3339)]
    to: Option<Timestamp>,
    /// Who asked, exactly.
    #[arg(long, value_name = "S", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    subject: Option<String>,
    /// The image.
    #[arg(long, value_name = "IMAGE")]
    image_id: Option<ImageId>,
    /// The account.
    #[arg(long, value_name = "ACCOUNT")]
    account_id: Option<AccountId>,
    /// `share`, `unshare` or `update`.
    #[arg(long, value_name = "OPERATION")]
    operation: Option<EventOperation>,
    /// `pending`, `succeeded`, `invalid_account`, `denied`, `failed` or `unknown`.
    #[arg(long, value_name = "OUTCOME")]
    outcome: Option<Outcome>,
    /// The request's id, exactly.
    #[arg(long, value_name = "ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    request_id: Option<String>,
    /// Most events; all of them unless given.
    #[arg(long, value_name = "N", value_parser = parse_limit)]
    limit: Option<usize>,
    /// Which end of the trail comes first.
    #[arg(long, value_enum, default_value_t = ExportOrder::Desc)]
    order: ExportOrder,
    /// The configuration, in TOML.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Say whether a request would be allowed and why; exit 0 allow, 1 deny, 2 a faulty file or token.
    #[command(after_help = examples::POLICY_CHECK)]
    Check(PolicyCheckArgs),
}

#[derive(Debug, Args)]
struct PolicyCheckArgs {
    /// The policies, in Cedar.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Whose token; it is read and not verified.
    #[arg(
        long,
        value_name = "T",
        required_unless_present = "claims",
        conflicts_with = "claims"
    )]
    token: Option<String>,
    /// A file with the claims of a token, in JSON.
    #[arg(long, value_name = "FILE")]
    claims: Option<PathBuf>,
    /// The method of the request.
    #[arg(long, value_name = "M")]
    method: String,
    /// Its path; `?reason=` and `?region=` count too.
    #[arg(long, value_name = "P")]
    path: String,
    /// Where the request comes from.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    client_ip: IpAddr,
    /// The configuration, in TOML: which issuers there are and what their claims mean, and which regions may be named;
    /// without it claims are read as those of one issuer, and any region may be named.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ExportFormat {
    Ndjson,
    Csv,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ExportOrder {
    Desc,
    Asc,
}

#[derive(Debug, Args)]
struct HealthcheckArgs {
    /// The gateway's base URL; that of the configured listener unless given.
    #[arg(long)]
    url: Option<url::Url>,
    /// The configuration, in TOML.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum CompletionShell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DocumentFormat {
    Json,
    Yaml,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.0..=1.0).contains(rate));
    rate.ok_or_else(|| "must be a number from 0 to 1".into())
}

fn parse_limit(text: &str) -> Result<usize, &'static str> {
    // As the API reads it: digits alone, none of them a leading zero.
    let plain = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    let limit = text.parse().ok().filter(|limit| plain && *limit > 0);
    limit.ok_or("must be an integer from 1 up")
}

/// Where the trail lies: by option, else by configuration.
fn trail_at(database_url: Option<String>, config: Option<&Path>) -> Result<TrailPlace, Failure> {
    if let Some(url) = database_url {
        return trail_place(&url).map_err(|why| Failure::usage(format!("--database-url {why}")));
    }
    Ok(Config::load_audit(&Sources::of_this_process(config))?.database)
}

/// Runs the command that the process was started with.
#[must_use]
pub fn run() -> ExitCode {
    let ended = match CommandLine::parse().command {
        Command::Serve(args) => on_runtime(serve::run(args)),
        Command::Sandbox(args) => on_runtime(sandbox::run(args)),
        Command::Token(args) => token::run(&args),
        Command::Openapi { format } => openapi::run(format),
        Command::Audit(AuditCommand::Verify(args)) => on_runtime(verify::run(args)),
        Command::Audit(AuditCommand::Backup(args)) => on_runtime(backup::run(args)),
        Command::Audit(AuditCommand::Export(args)) => on_runtime(export::run(args)),
        Command::Audit(AuditCommand::Import(args)) => on_runtime(import::run(args)),
        Command::Policy(PolicyCommand::Check(args)) => policy::run(&args),
        Command::CheckConfig(args) => check_config::run(&args),
        Command::Healthcheck(args) => on_runtime(healthcheck::run(args)),
        Command::Completions { shell } => completions::run(shell),
    };
    ended.unwrap_or_else(Failure::report)
}

/// Use cases and what they wait for run here. The REST listener has threads of its own, one a processor; so half
/// as many do for the rest, and wake each other less.
fn on_runtime(
    command: impl Future<Output = Result<ExitCode, Failure>>,
) -> Result<ExitCode, Failure> {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(processors.div_ceil(2))
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::could_not_run(&error))?;
    let ended = runtime.block_on(command);
    // Whatever reads a file that does not answer is not waited for.
    runtime.shutdown_background();
    ended
}

/// Why a command did not do what it is for.
#[derive(Debug)]
struct Failure {
    lines: Vec<String>,
    code: u8,
}

impl Failure {
    fn could_not_run(error: &dyn Error) -> Self {
        Self {
            lines: vec![chain(error)],
            code: 1,
        }
    }

    fn stopped(line: &str) -> Self {
        Self {
            lines: vec![line.to_owned()],
            code: 1,
        }
    }

    fn usages(lines: Vec<String>) -> Self {
        Self { lines, code: 2 }
    }

    fn usage(line: impl Display) -> Self {
        Self {
            lines: vec![line.to_string()],
            code: 2,
        }
    }

    fn report(self) -> ExitCode {
        let mut stderr = std::io::stderr().lock();
        for line in self.lines {
            // Nobody is left to tell where stderr is gone.
            let _ = writeln!(stderr, "image-share-gateway: {line}");
        }
        ExitCode::from(self.code)
    }
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Self {
            lines: faults.0.iter().map(ToString::to_string).collect(),
            code: 2,
        }
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        // Some libraries repeat their cause in their own text.
        if !line.contains(&text) {
            // Writing to a String cannot fail.
            let _ = write!(line, ": {text}");
        }
        source = cause.source();
    }
    line
}

/// Prints results; a reader that has gone, as `| head` does, is no failure.
fn print(text: &str) -> Result<(), Failure> {
    write_out(text.as_bytes()).map(|_| ())
}

/// Writes to stdout. Returns whether there may be more: not where its reader has gone.
fn write_out(bytes: &[u8]) -> Result<bool, Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::could_not_run(&error)),
    }
}

//! What can be wrong with a source of keys.

use reqwest::StatusCode;

use crate::auth::key_set::KeySetError;

/// Longest answer, uncompressed.
pub(super) const BYTES_MAX: usize = 1024 * 1024;

/// Why there is no key set, in words that anybody may read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No client could be made.
    #[error("no HTTP client can be made for key sets")]
    Client(#[source] reqwest::Error),
    /// A file that the fetch needs.
    #[error("{key}: `{path}` {message}")]
    File {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: String,
        /// What is wrong with it.
        message: String,
    },
    /// It cannot be connected to.
    #[error("it cannot be reached")]
    Unreachable,
    /// It is not who it should be.
    #[error("its certificate is not trusted; fetch_ca_file may name its authority")]
    NotTrusted,
    /// It does not answer in time.
    #[error("it does not answer in time")]
    TimedOut,
    /// The answer broke off.
    #[error("the connection was lost")]
    Lost,
    /// It answered with another status than 200.
    #[error("it answers with HTTP {0}")]
    Status(StatusCode),
    /// It answered that what is asked for is somewhere else.
    #[error(
        "it answers with HTTP {status} and leads to `{to}`, which is not followed: configure that if it is meant"
    )]
    Redirect {
        /// The status.
        status: StatusCode,
        /// The URL that it names, without its query.
        to: String,
    },
    /// The answer is too long.
    #[error("its answer is longer than {BYTES_MAX} bytes")]
    TooLong,
    /// The answer is compressed, and badly.
    #[error("its answer cannot be decompressed (gzip)")]
    Encoding,
    /// The discovery document cannot be used.
    #[error("its discovery document {0}")]
    Discovery(String),
    /// The answer holds no keys.
    #[error("its answer {0}")]
    Keys(#[from] KeySetError),
    /// What was asked is another URL than the configured one.
    #[error("{url}: {error}")]
    At {
        /// Which one.
        url: String,
        /// What is wrong.
        error: Box<SourceError>,
    },
}

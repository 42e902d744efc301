//! What tests act through: a gateway, a program, an upstream that misbehaves on demand.

mod gateway;
mod program;
mod upstream;

use std::time::{Duration, Instant};

pub(crate) use gateway::{Answer, Gateway, PRIVATE_KEY, keys_file, mint, token};
pub(crate) use program::{Program, binary, python};
pub(crate) use upstream::{Call, Reply, Scripted};

/// How long a condition may take before a test fails; only a failure ever takes so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until `look` gives something.
#[expect(
    clippy::disallowed_methods,
    reason = "a limit for failures, not a wait"
)]
pub(crate) async fn eventually<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "{what}: not within {PATIENCE:?}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

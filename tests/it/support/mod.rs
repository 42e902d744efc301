//! What tests act through: a gateway, a program, an upstream that misbehaves on demand.

mod certificates;
mod collector;
mod document;
mod gateway;
// Trails of a day or a year, as the benches look at them.
#[allow(dead_code, reason = "the benches use more of it")]
#[path = "../../../benches/shared/generate.rs"]
pub(crate) mod generate;
mod key_server;
mod postgres;
mod program;
mod proxy;
mod upstream;

use std::time::{Duration, Instant};

pub(crate) use certificates::{Authority, Certificates, Leaf};
pub(crate) use collector::{Collecting, Collector, attribute};
pub(crate) use document::{assert_documented, committed_document, resolved};
pub(crate) use gateway::{
    Answer, Gateway, ISSUER, LONG_TRAIL_ROWS, PRIVATE_KEY, SECRET, keys_file, mint, set_of, token,
    token_with,
};
pub(crate) use key_server::{KeyAnswer, KeyServer};
pub(crate) use postgres::{POSTGRES_PASSWORD, Postgres};
pub(crate) use program::{
    PROGRAM_PRIVATE_KEY, PROGRAM_PUBLIC_KEY, Program, beside_python, binary, ended, environment,
    node_modules, printed, python, python_with, said, search_path,
};
pub(crate) use proxy::{Proxy, free_port};
pub(crate) use upstream::{Call, MISSING_ACCOUNTS, Reply, Scripted, refusal};

/// Keeps what the gateway told, for `tests/run` to search all of it for secrets once all tests have run.
pub(crate) fn keep(kind: &str, text: &str) {
    if let Some(directory) = std::env::var_os("ISG_TEST_OUTPUT") {
        let name = format!("{}.{kind}", uuid::Uuid::new_v4());
        std::fs::write(std::path::Path::new(&directory).join(name), text).unwrap();
    }
}

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

/// A client that goes to loopback in the clear, whatever the environment says of proxies.
pub(crate) fn client() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]);
    client.build().unwrap()
}

/// Shares an image with account 7, as team-a.
pub(crate) async fn share(base_url: &str) -> Answer {
    let put = client().put(format!("{base_url}/images/img/shares/7"));
    Answer::of(put.bearer_auth(token("team-a", "shares:write"))).await
}

/// How many rounds a long test makes: `few` in `tests/run`, `many` where `ISG_TEST_FULL` is set.
pub(crate) fn rounds(few: u32, many: u32) -> u32 {
    if std::env::var_os("ISG_TEST_FULL").is_some() {
        many
    } else {
        few
    }
}

/// Numbers that look random (splitmix64); tests name the seed when they fail, and take it from `ISG_TEST_SEED`.
#[derive(Debug, Clone)]
pub(crate) struct Luck {
    pub(crate) seed: u64,
    state: u64,
}

impl Luck {
    pub(crate) fn new() -> Self {
        let given = std::env::var_os("ISG_TEST_SEED");
        let seed = match given {
            Some(text) => text.to_str().unwrap().parse().unwrap(),
            None => {
                u64::from(std::process::id()) << 32 | u64::from(uuid::Uuid::new_v4().as_fields().0)
            }
        };
        Self { seed, state: seed }
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % bound
    }
}

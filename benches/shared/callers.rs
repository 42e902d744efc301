//! Keep-alive callers that wait for each answer before they ask again.
//!
//! Plain sockets and a minimal reading of answers: a full client would take the CPU that is measured.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Who calls, and for how long.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) address: String,
    pub(crate) tokens: Vec<String>,
    pub(crate) asks: Asks,
    /// The status of each answer; others are errors.
    pub(crate) expects: u16,
    pub(crate) duration: Duration,
}

impl Load {
    /// The same for another time.
    pub(crate) fn for_the_time(&self, duration: Duration) -> Self {
        Self {
            duration,
            ..self.clone()
        }
    }
}

/// What the callers ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asks {
    /// Shares of images, each caller's its own.
    DistinctImages,
    /// The same, of images that others do not ask for.
    ImagesOf(&'static str),
    /// Shares of one image.
    OneImage,
    /// The same target again and again.
    Get(String),
}

impl Asks {
    /// A caller's request for an account, up to its headers.
    fn line(&self, caller: usize, account: u64) -> String {
        match self {
            Self::DistinctImages => format!("PUT /images/bench-{caller}/shares/{account}"),
            Self::ImagesOf(name) => format!("PUT /images/bench-{name}-{caller}/shares/{account}"),
            Self::OneImage => format!("PUT /images/bench-hot/shares/{account}"),
            Self::Get(target) => format!("GET {target}"),
        }
    }
}

/// Accounts of one caller, so that no two callers ever ask for the same change.
pub(crate) const ACCOUNTS_PER_CALLER: u64 = 1_000_000_000;

/// What came of it.
pub(crate) struct Outcome {
    /// Those that were as expected; percentiles are of these.
    pub(crate) answers: usize,
    pub(crate) errors: usize,
    latencies: Vec<Duration>,
}

impl Outcome {
    /// A percentile of the latencies, in milliseconds.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a length"
        )]
        let index = ((self.latencies.len() as f64 * share) as usize).min(self.latencies.len() - 1);
        self.latencies[index].as_secs_f64() * 1000.0
    }
}

/// Lets all callers work at once.
pub(crate) async fn drive(load: &Load) -> Outcome {
    let until = Instant::now() + load.duration;
    let callers = load.tokens.iter().enumerate().map(|(number, token)| {
        let accounts = number as u64 * ACCOUNTS_PER_CALLER;
        call(load, number, accounts, token, until)
    });
    let (mut latencies, mut errors) = (Vec::new(), 0);
    for (of_one, errors_of_one) in futures_util::future::join_all(callers).await {
        latencies.extend(of_one);
        errors += errors_of_one;
    }
    latencies.sort_unstable();
    Outcome {
        answers: latencies.len(),
        errors,
        latencies,
    }
}

async fn call(
    load: &Load,
    caller: usize,
    mut account: u64,
    token: &str,
    until: Instant,
) -> (Vec<Duration>, usize) {
    let mut stream = TcpStream::connect(&load.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut latencies, mut errors) = (Vec::new(), 0);
    let mut buffer = Vec::with_capacity(4096);
    while Instant::now() < until {
        account += 1;
        let line = load.asks.line(caller, account);
        let request = format!(
            "{line} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\n\r\n"
        );
        let begun = Instant::now();
        stream.write_all(request.as_bytes()).await.unwrap();
        if read_answer(&mut stream, &mut buffer).await == load.expects {
            latencies.push(begun.elapsed());
        } else {
            errors += 1;
        }
    }
    (latencies, errors)
}

async fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> u16 {
    buffer.clear();
    let mut end = None;
    while end.is_none_or(|end| buffer.len() < end) {
        assert_ne!(
            stream.read_buf(buffer).await.unwrap(),
            0,
            "the connection was closed"
        );
        if end.is_none()
            && let Some(head) = buffer.windows(4).position(|window| window == b"\r\n\r\n")
        {
            let text = std::str::from_utf8(&buffer[..head])
                .unwrap()
                .to_ascii_lowercase();
            let length = text
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            end = Some(head + 4 + length.map_or(0, |length| length.parse::<usize>().unwrap()));
        }
    }
    std::str::from_utf8(&buffer[9..12])
        .unwrap()
        .parse()
        .unwrap()
}

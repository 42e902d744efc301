//! What is left of a subject's bucket, as the headers `RateLimit` and `RateLimit-Policy` tell it
//! (draft-ietf-httpapi-ratelimit-headers-10).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Where a bucket stands once a request was counted.
#[derive(Debug, Clone)]
pub(super) struct BucketState {
    /// What is in it.
    pub(super) left: u32,
    /// What a full one holds.
    pub(super) policy: Policy,
}

/// What a full bucket holds, and how it fills.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    pub(super) burst: u32,
    /// How long one takes to come back.
    pub(super) period: Duration,
    /// As the header tells it.
    header: HeaderValue,
}

impl Policy {
    pub(super) fn new(burst: u32, period: Duration) -> Self {
        let window = seconds(burst, period).max(1);
        let told = format!(r#""subject";q={burst};w={window}"#);
        Self {
            burst,
            period,
            header: HeaderValue::try_from(told).expect("digits and the text above are ASCII"),
        }
    }
}

/// How long so many take to come back, in whole seconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a million times a quarter of an hour at most, and not below zero"
)]
fn seconds(tokens: u32, period: Duration) -> u64 {
    (period.as_secs_f64() * f64::from(tokens)).ceil() as u64
}

impl BucketState {
    fn write(&self, headers: &mut HeaderMap) {
        let Policy {
            burst,
            period,
            header,
        } = &self.policy;
        let until_full = seconds(burst.saturating_sub(self.left), *period);
        let told = format!(r#""subject";r={};t={until_full}"#, self.left);
        let told = HeaderValue::try_from(told).expect("digits and the text above are ASCII");
        headers.insert(RATE_LIMIT, told);
        headers.insert(RATE_LIMIT_POLICY, header.clone());
    }
}

/// A request's place for what its subject's bucket held, from where it is counted to where its answer leaves.
#[derive(Debug, Clone, Default)]
pub(super) struct Counted(Arc<OnceLock<BucketState>>);

impl Counted {
    pub(super) fn note(&self, state: BucketState) {
        // A request is counted once.
        let _ = self.0.set(state);
    }

    /// Writes the headers, where the request was counted.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        if let Some(state) = self.0.get() {
            state.write(headers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_whole_and_never_too_few() {
        let told = |burst, left, millis| {
            let mut headers = HeaderMap::new();
            let period = Duration::from_millis(millis);
            let policy = Policy::new(burst, period);
            let state = BucketState { left, policy };
            state.write(&mut headers);
            [RATE_LIMIT, RATE_LIMIT_POLICY].map(|name| {
                let value = headers.get(name).expect("it is there");
                value.to_str().expect("ASCII").to_owned()
            })
        };
        let full = [r#""subject";r=100;t=0"#, r#""subject";q=100;w=2"#];
        assert_eq!(told(100, 100, 20), full);
        assert_eq!(told(100, 99, 20)[0], r#""subject";r=99;t=1"#);
        assert_eq!(told(100, 0, 20)[0], r#""subject";r=0;t=2"#);
        assert_eq!(
            told(1, 0, 1_000_000),
            [r#""subject";r=0;t=1000"#, r#""subject";q=1;w=1000"#]
        );
        assert_eq!(told(1, 1, 1)[1], r#""subject";q=1;w=1"#);
    }
}

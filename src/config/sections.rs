//! Each section's keys: their defaults, their form, and how they depend on one another.

use std::io::IsTerminal as _;

use url::Url;

use crate::domain::Region;

use super::proxy::proxy_url;
use super::reader::KeyReader;
use super::trail::trail_place;
use super::values::{is_loopback, without_secrets};
use super::{
    Audit, Authorization, Limits, LogFormat, Proxy, Rate, Telemetry, TraceSettings,
    UpstreamSettings,
};

/// Who may do what. `sandbox` says that it is all for trying out.
pub(super) fn authorization(reader: &mut KeyReader, sandbox: bool) -> Authorization {
    let policy_file = reader.path("authorization.policy_file");
    if !reader.is_set("authorization.policy_file") && !sandbox {
        reader.warn(
            "authorization.policy_file",
            "is not set: whoever has the scope may share any image with anybody",
        );
    }
    Authorization { policy_file }
}

/// The default region, and those that callers may name.
pub(super) fn regions(reader: &mut KeyReader) -> Option<(Region, Vec<Region>)> {
    let region = match reader
        .text("upstream.region")
        .map(|text| text.parse::<Region>())
    {
        None => None,
        Some(Ok(region)) => Some(region),
        Some(Err(error)) => reader.fault("upstream.region", &error.to_string()),
    };
    let mut regions = Vec::new();
    for text in reader.list("upstream.regions") {
        match text.parse::<Region>() {
            Ok(region) if regions.contains(&region) => {}
            Ok(region) => regions.push(region),
            Err(error) => {
                let text = without_secrets(&text);
                reader.fault::<()>("upstream.regions", &format!("`{text}` {error}"));
            }
        }
    }
    if let Some(region) = &region {
        if regions.is_empty() {
            regions.push(region.clone());
        } else if !regions.contains(region) {
            reader.fault::<()>(
                "upstream.regions",
                &format!("must contain upstream.region, `{region}`"),
            );
        }
    }
    Some((region?, regions))
}

/// Tokens that `--sandbox` prints are good for the sandbox alone: a real upstream behind them would obey whoever has read
/// the terminal.
pub(super) fn refuse_real_upstream(reader: &mut KeyReader) {
    for key in [
        "upstream.base_url",
        "upstream.public_key",
        "upstream.public_key_file",
        "upstream.private_key",
        "upstream.private_key_file",
    ] {
        if reader.is_given(key) {
            reader.fault::<()>(
                key,
                "cannot be set with --sandbox, which brings its own upstream",
            );
        }
    }
}

pub(super) fn upstream(reader: &mut KeyReader) -> Option<UpstreamSettings> {
    let base_url = match reader
        .text("upstream.base_url")
        .map(|text| Url::parse(&text))
    {
        None => None,
        Some(Ok(url)) if url.scheme() == "https" => Some(url),
        Some(Ok(url)) if url.scheme() == "http" && is_loopback(&url) => {
            if reader.is_given("upstream.base_url") {
                reader.warn(
                    "upstream.base_url",
                    "is not https: what is sent can be read by whoever is on this machine",
                );
            }
            Some(url)
        }
        Some(Ok(url)) if url.scheme() == "http" => reader.fault(
            "upstream.base_url",
            "must be https: requests are signed, but not kept secret or fresh",
        ),
        Some(_) => reader.fault(
            "upstream.base_url",
            "must be a URL, such as https://api.compshare.cn",
        ),
    };
    let regions = regions(reader);
    let project_id = reader.text("upstream.project_id");
    let public_key = reader.required_secret("upstream.public_key");
    let private_key = reader.required_secret("upstream.private_key");
    let timeout = reader.positive_duration("upstream.timeout");
    let connect_timeout = reader.positive_duration("upstream.connect_timeout");
    let max_retries = reader.integer("upstream.max_retries", 0..=100);
    let max_in_flight = reader.integer("upstream.max_in_flight", 1..=10_000);
    let requests_per_second = reader.number("upstream.requests_per_second");
    let zone = reader.text("upstream.zone");
    let proxy = upstream_proxy(reader, base_url.as_ref());
    let (region, regions) = regions?;
    Some(UpstreamSettings {
        base_url: base_url?,
        region,
        regions,
        project_id,
        public_key: public_key?,
        private_key: private_key?,
        timeout: timeout?,
        connect_timeout: connect_timeout?,
        max_retries: u32::try_from(max_retries?).ok()?,
        max_in_flight: usize::try_from(max_in_flight?).ok()?,
        requests_per_second: requests_per_second.filter(|rate| *rate > 0.0),
        zone,
        proxy: proxy?,
    })
}

/// The proxy for calls to the upstream. Plain HTTP is for loopback alone, and no proxy lies between.
#[expect(
    clippy::option_option,
    reason = "outer: whether it is right; inner: whether there is one"
)]
fn upstream_proxy(reader: &mut KeyReader, base_url: Option<&Url>) -> Option<Option<Proxy>> {
    const KEY: &str = "upstream.proxy";
    let direct = base_url.is_some_and(is_loopback);
    let proxy = match reader.text(KEY).as_deref() {
        Some(text) if text.eq_ignore_ascii_case("none") => Ok(None),
        Some(text) if !text.contains("://") => {
            Err("must be an HTTP proxy, such as http://proxy.example.com:3128, or none".into())
        }
        Some(text) => proxy_url(text).map(|url| Some(Proxy { url, except: None })),
        None if direct || reader.is_given(KEY) => Ok(None),
        None => {
            let named = reader.proxies.proxy(base_url);
            named.map_err(|why| format!("{why}; set upstream.proxy to another, or to none"))
        }
    };
    match proxy {
        Ok(proxy) => Some(proxy.filter(|_| !direct)),
        Err(message) => reader.fault(KEY, &message),
    }
}

pub(super) fn audit_database(reader: &mut KeyReader) -> Option<Audit> {
    let url = reader.secret("audit.database_url")?;
    match trail_place(&url) {
        Ok(database) => Some(Audit { database }),
        Err(message) => {
            let key = reader.given_by("audit.database_url");
            reader.fault(&key, &message)
        }
    }
}

/// The slowest rate of a bucket: below it a full one would take years to come back.
const RATE_MIN: f64 = 0.001;

pub(super) fn limits(reader: &mut KeyReader) -> Option<Limits> {
    let per_second = reader.number("limits.requests_per_second");
    let burst = reader.integer("limits.burst", 1..=1_000_000);
    let failed = reader.number("limits.failed_authentications_per_minute");
    for (key, rate) in [
        ("limits.requests_per_second", per_second),
        ("limits.failed_authentications_per_minute", failed),
    ] {
        if rate.is_some_and(|rate| rate > 0.0 && rate < RATE_MIN) {
            reader.fault::<()>(
                key,
                &format!("must be 0, which turns it off, or at least {RATE_MIN}"),
            );
        }
    }
    let (per_second, burst, failed) = (per_second?, u32::try_from(burst?).ok()?, failed?);
    let on = |rate: &Rate| rate.per_second > 0.0;
    // A minute's worth may come at once.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 1 to a thousand million"
    )]
    let failed_at_once = failed.ceil().max(1.0) as u32;
    let failed = Rate {
        per_second: failed / 60.0,
        burst: failed_at_once,
    };
    Some(Limits {
        requests: Some(Rate { per_second, burst }).filter(on),
        failed_authentications: Some(failed).filter(on),
    })
}

pub(super) fn telemetry(reader: &mut KeyReader) -> Option<Telemetry> {
    let log_format = match reader.text("telemetry.log_format").as_deref() {
        Some("json") => Some(LogFormat::Json),
        Some("text") => Some(LogFormat::Text),
        None => Some(if std::io::stderr().is_terminal() {
            LogFormat::Text
        } else {
            LogFormat::Json
        }),
        Some(_) => reader.fault("telemetry.log_format", "must be json or text"),
    };
    let traces = traces(reader);
    Some(Telemetry {
        log_format: log_format?,
        traces,
    })
}

fn traces(reader: &mut KeyReader) -> Option<TraceSettings> {
    const ENDPOINT: &str = "telemetry.otlp_endpoint";
    const RATIO: &str = "telemetry.trace_sample_ratio";
    let ratio = reader.number(RATIO);
    let sample_ratio = match ratio {
        Some(ratio) if ratio > 1.0 => reader.fault(RATIO, "must be a number from 0 to 1"),
        ratio => ratio,
    };
    let endpoint = match reader.text(ENDPOINT).map(|text| Url::parse(&text)) {
        None => None,
        Some(Ok(url))
            if matches!(url.scheme(), "http" | "https")
                && url.query().is_none()
                && url.fragment().is_none() =>
        {
            Some(url)
        }
        Some(_) => reader.fault(ENDPOINT, "must be a base URL of http or https"),
    };
    if endpoint.is_none() && !reader.is_given(ENDPOINT) && reader.is_given(RATIO) {
        reader.warn(
            RATIO,
            &format!("is set, and {ENDPOINT} is not: there are no traces"),
        );
    }
    let endpoint = endpoint?;
    let proxy = if endpoint.scheme() == "http" || is_loopback(&endpoint) {
        None
    } else {
        match reader.proxies.proxy(Some(&endpoint)) {
            Ok(proxy) => proxy,
            Err(why) => {
                let message = format!("{why}; name its host in NO_PROXY");
                return reader.fault(ENDPOINT, &message);
            }
        }
    };
    Some(TraceSettings {
        endpoint,
        sample_ratio: sample_ratio?,
        proxy,
    })
}

//! What one caller waits for and costs, and what a request costs that changes nothing.

use super::callers::{Asks, Load};
use super::crowd::tell;
use super::measured::{changes, measure};
use super::process::{Process, token};
use super::{Bench, Mark};

pub(crate) const CALLER: &str = "one caller";
pub(crate) const REFUSED: &str = "a refused token";
pub(crate) const EVENT: &str = "one event";

const SWITCHES_MAX: f64 = 14.0;
/// A change's CPU over that of the plain service.
const CPU_OVER_PLAIN_MAX: f64 = 0.9;
/// A change's p50 over two commits and a call.
const OVER_ALONE_MAX: f64 = 1.5;
const REFUSED_OVER_PLAIN_MAX: f64 = 1.0;
const EVENT_OVER_ROUTE_MAX: f64 = 6.0;
/// Callers of what is read or refused.
const READERS: usize = 64;

/// One caller alone, beside the plain service.
pub(crate) async fn caller(bench: &Bench) -> Vec<Mark> {
    println!("\n{CALLER}, {} s", bench.duration.as_secs());
    let gateway = bench.gateway(CALLER);
    let load = changes(&gateway.url, 1, Asks::DistinctImages, bench.duration);
    let ours = measure(&gateway, &load).await;
    drop(gateway);
    tell(&ours);
    let plain = bench.plain("plain one caller", "plain");
    let load = changes(&plain.url, 1, Asks::DistinctImages, bench.duration);
    let theirs = measure(&plain, &load).await;
    println!("the plain service");
    tell(&theirs);
    let over_alone = ours.outcome.percentile(0.5) / bench.floor.alone_ms;
    vec![
        Mark::no_errors(CALLER, ours.outcome.errors + theirs.outcome.errors),
        Mark::at_most(
            &format!("{CALLER}, voluntary switches a change"),
            ours.switches,
            SWITCHES_MAX,
        ),
        Mark::at_most(
            &format!("{CALLER}, CPU over the plain service's"),
            ours.cpu / theirs.cpu,
            CPU_OVER_PLAIN_MAX,
        ),
        Mark::at_most(
            &format!("{CALLER}, p50 over two commits and a call"),
            over_alone,
            OVER_ALONE_MAX,
        ),
    ]
}

/// Tokens that are no good: text that is none, and one whose signature is not that of the key.
pub(crate) async fn refused(bench: &Bench) -> Vec<Mark> {
    println!("\n{REFUSED}, {} s each", bench.duration.as_secs());
    let (folder, upstream) = (bench.folder(REFUSED), &bench.sandbox.url);
    let unlimited = [("ISG__LIMITS__FAILED_AUTHENTICATIONS_PER_MINUTE", "0")];
    let gateway = Process::gateway_with(&folder, upstream, &unlimited);
    let plain = bench.plain("plain refused", "plain-with-tokens");
    let good = token("team", "shares:write", std::time::Duration::from_hours(1));
    let mut marks = Vec::new();
    for (name, token) in [
        ("no token", "nonsense".to_owned()),
        ("forged", forged(&good)),
    ] {
        let load = |process: &Process| Load {
            tokens: vec![token.clone(); READERS],
            expects: 401,
            ..changes(&process.url, 0, Asks::DistinctImages, bench.duration)
        };
        let ours = measure(&gateway, &load(&gateway)).await;
        let theirs = measure(&plain, &load(&plain)).await;
        println!("  {name:<12} CPU a request        {:>9.1} µs", ours.cpu);
        println!("  the plain service                 {:>9.1} µs", theirs.cpu);
        marks.extend([
            Mark::no_errors(REFUSED, ours.outcome.errors + theirs.outcome.errors),
            Mark::at_most(
                &format!("{REFUSED}, {name}, CPU over the plain service's"),
                ours.cpu / theirs.cpu,
                REFUSED_OVER_PLAIN_MAX,
            ),
        ]);
    }
    marks
}

/// The same token with another signature.
fn forged(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (first, rest) = signature.split_at(1);
    let other = if first == "A" { "B" } else { "A" };
    format!("{signed}.{other}{rest}")
}

/// One event of the trail, again and again.
pub(crate) async fn event(bench: &Bench) -> Vec<Mark> {
    println!("\n{EVENT}, {} s", bench.duration.as_secs());
    let gateway = bench.gateway(EVENT);
    let change = changes(&gateway.url, 1, Asks::DistinctImages, bench.duration);
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]);
    let put = client
        .build()
        .unwrap()
        .put(format!("{}/images/bench-1/shares/1", gateway.url))
        .bearer_auth(&change.tokens[0]);
    let answer = put.send().await.unwrap();
    let id = answer.headers()["audit-id"].to_str().unwrap().to_owned();
    let reader = token("auditor", "audit:read", std::time::Duration::from_hours(1));
    let load = Load {
        tokens: vec![reader; READERS],
        asks: Asks::Get(format!("/audit/events/{id}")),
        ..change
    };
    let measured = measure(&gateway, &load).await;
    let over = measured.cpu / bench.floor.route;
    println!(
        "  CPU a request                     {:>9.1} µs",
        measured.cpu
    );
    println!("  CPU over a route that only answers{over:>9.2} times");
    vec![
        Mark::no_errors(EVENT, measured.outcome.errors),
        Mark::at_most(
            &format!("{EVENT}, CPU over a route that only answers"),
            over,
            EVENT_OVER_ROUTE_MAX,
        ),
    ]
}

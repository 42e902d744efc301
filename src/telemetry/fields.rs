//! The fields of log lines: what each is, and no name that others use for something else.
//!
//! Elastic's Common Schema and OpenTelemetry have names of their own; where either has one for a thing it is used, and
//! none of theirs is used for another. A field whose name is an object there (`error`, `source`) as a text here would make
//! Elasticsearch drop the line.

use std::fmt::Write as _;

/// Name and meaning of each; `timestamp`, `level`, `target` and `message` stand in every line besides.
pub const LOG_FIELDS: [(&str, &str); 39] = [
    ("request_id", "the request's `X-Request-Id`"),
    ("trace_id", "the trace that it belongs to"),
    ("client.address", "where it came from"),
    (
        "user_agent.original",
        "what the client calls itself, cut at 200 characters",
    ),
    (
        "http.request.method",
        "its method, `_OTHER` where that is none of HTTP's",
    ),
    ("http.route", "its route's path, `none` where there is none"),
    ("http.response.status_code", "how it was answered"),
    (
        "duration_ms",
        "how long it, or what the line is about, took",
    ),
    ("subject", "who asked: the token's `sub`"),
    ("issuer", "whose token it is: its `iss`"),
    (
        "problem",
        "the slug of the problem that it was answered with",
    ),
    (
        "why",
        "why it was refused, with what was expected and what came; no token",
    ),
    ("image.id", "the image"),
    ("account.id", "the account"),
    ("audit.event_id", "the event in the trail"),
    ("audit.operation", "what a change does that is undone"),
    ("audit.outcome", "how a change ended whose caller had left"),
    (
        "audit.chain",
        "the chain that a gateway writes, or the one of another that is gone",
    ),
    ("audit.head", "the head of the chain, to be noted elsewhere"),
    ("audit.entries", "entries of a commit"),
    (
        "audit.migrations",
        "changes of the audit database's schema that are to be made",
    ),
    (
        "audit.pending",
        "changes that an earlier run left without an outcome",
    ),
    ("audit.recovered", "how many of them were closed"),
    ("audit.outcomes", "outcomes that are lost"),
    (
        "audit.accounts",
        "accounts of which changes may still take effect",
    ),
    ("audit.failing", "why the trail cannot be written"),
    (
        "audit.clock_behind_seconds",
        "how far the clock is behind the trail's last id",
    ),
    ("upstream.action", "the action that was called"),
    ("upstream.result", "how the call went, in one word"),
    ("upstream.hint", "what an operator can do about it"),
    ("keys.source", "where a key set comes from"),
    (
        "config.section",
        "the section of the configuration that the line is about",
    ),
    ("policy.id", "the `@id` of a policy"),
    ("server.address", "where a listener listens"),
    ("server.port", "its port"),
    ("server.over_tls", "whether it serves TLS"),
    (
        "stop.clean",
        "whether all that was begun was finished and written down",
    ),
    ("error.message", "what failed, in the words of what failed"),
    ("error.cause", "why that failed"),
];

/// The fields as a table in Markdown, for the documentation.
#[must_use]
pub fn table_of_fields() -> String {
    let mut text = String::from("| field | what it is |\n| --- | --- |\n");
    for (name, meaning) in LOG_FIELDS {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| `{name}` | {meaning} |");
    }
    text
}

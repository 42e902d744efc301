//! The OpenAPI document as tests hold answers against it.

use std::sync::LazyLock;

use reqwest::header::HeaderMap;
use serde_json::Value;

static COMMITTED: LazyLock<Value> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
});

/// The document in the repository.
pub(crate) fn committed_document() -> Value {
    COMMITTED.clone()
}

/// What stands there, or where it refers to.
pub(crate) fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document
            .pointer(&reference[1..])
            .unwrap_or_else(|| panic!("{reference} leads nowhere")),
        None => value,
    }
}

/// The operation of a request, where the document has one.
fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let paths = COMMITTED["paths"].as_object().unwrap();
    let segments: Vec<&str> = path.split('/').collect();
    let fits = |pattern: &str| {
        let pattern: Vec<&str> = pattern.split('/').collect();
        let alike = |(one, real): (&&str, &&str)| one == real || one.starts_with('{');
        pattern.len() == segments.len() && pattern.iter().zip(&segments).all(alike)
    };
    // A path without parameters goes before one with.
    let mut fitting: Vec<&String> = paths.keys().filter(|path| fits(path)).collect();
    fitting.sort_by_key(|path| path.matches('{').count());
    let item = &paths[*fitting.first()?];
    let method = if method == "HEAD" { "GET" } else { method };
    Some(&item[method.to_lowercase()]).filter(|operation| operation.is_object())
}

/// Headers of which the document tells where they stand.
const TOLD: [&str; 8] = [
    "X-Request-Id",
    "Audit-Id",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "WWW-Authenticate",
    "Link",
    "ETag",
];

/// Every answer of the API that tests see is one that the document tells of: its status, its media type, its headers.
#[track_caller]
pub(crate) fn assert_documented(method: &str, path: &str, status: u16, headers: &HeaderMap) {
    let Some(operation) = operation(method, path) else {
        return;
    };
    let media_type = headers.get("content-type");
    let media_type = media_type.map(|media_type| media_type.to_str().unwrap());
    let about = format!("{method} {path}: {status} {media_type:?}");
    let responses = &operation["responses"];
    let response = resolved(&COMMITTED, &responses[status.to_string()]);
    assert!(response.is_object(), "{about} is not in the document");
    for header in TOLD
        .into_iter()
        .filter(|header| headers.contains_key(*header))
    {
        assert!(
            response["headers"][header].is_object(),
            "{about}: {header} is not in the document"
        );
    }
    let media_type = media_type.map(|whole| whole.split(';').next().unwrap().trim());
    if let (Some(media_type), Some(content)) = (media_type, response["content"].as_object()) {
        // The page of the catalogue is for people.
        let page = media_type == "text/html" && path.starts_with("/problems");
        assert!(page || content.contains_key(media_type), "{about}");
    }
}

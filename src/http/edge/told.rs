//! What is told of a request, in its log line, its numbers and its span: words of a known few, and of a caller's texts so much
//! as is fit to be told.

use std::borrow::Cow;

use actix_web::HttpRequest;
use actix_web::http::Method;

use crate::http::wire::Resource;

/// Longest text of a caller's that a log line holds, in characters; a longer one is cut.
const LOGGED_CHARACTERS_MAX: usize = 200;
/// What stands at the end of a text that was cut.
const CUT_MARK: &str = "… (cut)";

/// So much of a caller's text as is told, and nothing of one in which a token stands by a slip: the word with which each
/// begins, and its two dots.
pub(super) fn shown(text: &str) -> Cow<'_, str> {
    let has_two_dots = |text: &str| text.matches('.').nth(1).is_some();
    let begin = || text.find("eyJ").map(|at| &text[at..]);
    if has_two_dots(text) && begin().is_some_and(has_two_dots) {
        return "what looks like a token".into();
    }
    cut(text)
}

/// So much of a caller's text as a log line holds.
pub(super) fn cut(text: &str) -> Cow<'_, str> {
    cut_to(text, LOGGED_CHARACTERS_MAX)
}

/// The first so many characters of a text, with a mark where there are more.
pub(super) fn cut_to(text: &str, characters_max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(characters_max) {
        None => text.into(),
        Some((end, _)) => format!("{}{CUT_MARK}", &text[..end]).into(),
    }
}

pub(super) const NO_ROUTE: &str = "none";

/// The route's path, where there is one.
pub(super) fn route_word(request: &HttpRequest) -> &'static str {
    let resource = request.app_data::<&'static Resource>();
    resource.map_or(NO_ROUTE, |resource| resource.path)
}

pub(super) const OTHER_METHOD: &str = "_OTHER";

/// A method, by OpenTelemetry's word where it is none of HTTP's.
pub(super) fn method_word(method: &Method) -> &'static str {
    const METHODS: [&str; 9] = [
        "GET", "HEAD", "PUT", "DELETE", "PATCH", "POST", "OPTIONS", "TRACE", "CONNECT",
    ];
    METHODS
        .into_iter()
        .find(|known| *known == method.as_str())
        .unwrap_or(OTHER_METHOD)
}

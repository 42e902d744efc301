//! Which of several formats a caller wants (RFC 9110, section 12.5.1).

use actix_web::HttpRequest;
use actix_web::http::header::{self, Accept, Header as _, HeaderValue, Quality};

use crate::problem::ProblemKind;

use super::problem::Problem;

/// The offer that the caller likes best, the first where it does not say. A range that names a format beats a
/// wildcard of the same quality, as `text/csv, */*` means it.
///
/// # Errors
/// 406 where it takes none of them.
pub(in crate::http) fn choose<T: Copy>(
    request: &HttpRequest,
    offers: &[(&'static str, T)],
) -> Result<T, Problem> {
    let refused = || {
        let names: Vec<&str> = offers.iter().map(|(name, _)| *name).collect();
        let detail = format!("this path answers in {}", names.join(" or "));
        Problem::new(ProblemKind::NotAcceptable, detail)
    };
    // A header that nobody can read says nothing.
    let ranges = Accept::parse(request).map_or_else(|_| Vec::new(), |accept| accept.0);
    let asked = request.headers().get_all(header::ACCEPT);
    if ranges.is_empty() || asked.map(HeaderValue::as_bytes).all(<[u8]>::is_empty) {
        return offers.first().map(|(_, offer)| *offer).ok_or_else(refused);
    }
    let liking = |name: &str| {
        let (kind, subtype) = name.split_once('/').unwrap_or((name, ""));
        let matching = ranges.iter().enumerate().filter_map(|(place, range)| {
            let (wanted, sub) = (range.item.type_().as_str(), range.item.subtype().as_str());
            // `x-ndjson` and the like: mime splits a suffix behind `+` off, which none of ours has.
            let specific = match (wanted, sub) {
                ("*", "*") => 0,
                (wanted, "*") if wanted == kind => 1,
                (wanted, sub) if wanted == kind && sub == subtype => 2,
                _ => return None,
            };
            Some((specific, std::cmp::Reverse(place), range.quality))
        });
        matching.max_by_key(|(specific, place, _)| (*specific, *place))
    };
    let liked = offers
        .iter()
        .enumerate()
        .filter_map(|(index, (name, offer))| {
            let (specific, place, quality) = liking(name)?;
            let order = (quality, specific, place, std::cmp::Reverse(index));
            (quality > Quality::ZERO).then_some((order, *offer))
        });
    let best = liked.max_by_key(|(order, _)| *order);
    best.map(|(_, offer)| offer).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn chosen(accept: &[&str]) -> Option<&'static str> {
        let mut request = TestRequest::default();
        for header in accept {
            request = request.append_header((header::ACCEPT, *header));
        }
        let names = ["application/json", "application/x-ndjson", "text/csv"];
        choose(&request.to_http_request(), &names.map(|name| (name, name))).ok()
    }

    #[test]
    fn the_caller_gets_what_it_likes_best() {
        for (accept, expected) in [
            (&[] as &[&str], Some("application/json")),
            (&[""], Some("application/json")),
            (&["*/*"], Some("application/json")),
            (&["text/csv"], Some("text/csv")),
            (&["TEXT/CSV; charset=utf-8"], Some("text/csv")),
            (&["text/*"], Some("text/csv")),
            (&["application/*"], Some("application/json")),
            (&["application/x-ndjson"], Some("application/x-ndjson")),
            (&["text/csv, */*"], Some("text/csv")),
            (&["*/*, text/csv"], Some("text/csv")),
            (
                &["text/csv;q=0.5, application/x-ndjson;q=0.6"],
                Some("application/x-ndjson"),
            ),
            (
                &["text/csv;q=0.5", "application/x-ndjson;q=0.4"],
                Some("text/csv"),
            ),
            (
                &["text/html, application/xhtml+xml, */*;q=0.8"],
                Some("application/json"),
            ),
            (&["application/json;q=0, */*"], Some("application/x-ndjson")),
            (&["text/html"], None),
            (&["*/*;q=0"], None),
            (&["application/problem+json"], None),
        ] {
            assert_eq!(chosen(accept), expected, "{accept:?}");
        }
    }
}

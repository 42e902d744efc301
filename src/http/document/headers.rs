//! The headers of answers, each described once.

use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::{Header, Ref, RefOr, Response};

use crate::schema::{integer, text};

/// A header of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Described {
    pub(super) name: &'static str,
    description: &'static str,
    example: &'static str,
}

pub(super) const REQUEST_ID: Described = Described {
    name: "X-Request-Id",
    description: "The request's id, in logs and trail: the one that came in, or one that was made.",
    example: "4f0c2e9a-6c1b-4a55-9b0e-0c6f3a1d2b77",
};
pub(super) const AUDIT_ID: Described = Described {
    name: "Audit-Id",
    description: "The change's event in the trail, where it has one.",
    example: "019ab3c4-d5e6-7f00-8123-456789abcdef",
};
/// draft-ietf-httpapi-ratelimit-headers.
pub(super) const OF_LIMITS: [Described; 2] = [
    Described {
        name: "RateLimit",
        description: "What the subject has left (`r`), and the seconds until all of it is back (`t`).",
        example: r#""subject";r=99;t=1"#,
    },
    Described {
        name: "RateLimit-Policy",
        description: "How much a subject may ask at once (`q`), and the seconds in which that grows back (`w`).",
        example: r#""subject";q=100;w=2"#,
    },
];
pub(super) const RETRY_AFTER: Described = Described {
    name: "Retry-After",
    description: "Seconds to wait before another try.",
    example: "1",
};
pub(super) const WWW_AUTHENTICATE: Described = Described {
    name: "WWW-Authenticate",
    description: "What is missing (RFC 6750).",
    example: r#"Bearer realm="image-share-gateway""#,
};
pub(super) const LINK: Described = Described {
    name: "Link",
    description: "The next page, where there is one (RFC 8288); relative unless the gateway knows its own address.",
    example: r#"<?cursor=AbC&limit=100>; rel="next""#,
};

pub(super) const ETAG: Described = Described {
    name: "ETag",
    description: "Names this form of the answer; `If-None-Match` asks whether it still is so.",
    example: r#""9f86d081884c7d659a2feaa0c55ad015-plain""#,
};

/// All of them, for the components.
pub(super) fn all() -> impl Iterator<Item = (&'static str, Header)> {
    let all = [
        REQUEST_ID,
        AUDIT_ID,
        RETRY_AFTER,
        WWW_AUTHENTICATE,
        LINK,
        ETAG,
    ];
    all.into_iter().chain(OF_LIMITS).map(|header| {
        let seconds = header.name == RETRY_AFTER.name;
        let schema = if seconds {
            integer().minimum(Some(1))
        } else {
            text()
        };
        let example = if seconds {
            1.into()
        } else {
            header.example.into()
        };
        let built = HeaderBuilder::new()
            .schema(Some(schema))
            .description(Some(header.description))
            .example(Some(example));
        (header.name, built.build())
    })
}

/// Says that an answer has a header.
pub(super) fn add(response: &mut Response, header: Described) {
    let reference = Ref::new(format!("#/components/headers/{}", header.name));
    response
        .headers
        .insert(header.name.to_owned(), RefOr::Ref(reference));
}

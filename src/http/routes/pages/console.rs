//! The console: its files, and in a sandbox the tokens that it offers.

use std::sync::LazyLock;

use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;

use super::{Page, of_file};
use crate::auth::SandboxTokens;
use crate::http::wire::Problem;
use crate::pages;

/// No script, style or image but the page's own, no other host, nothing inline.
pub(super) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static PAGE: LazyLock<Page> = LazyLock::new(|| {
    Page::new(
        |name| pages::console(name).map(of_file),
        "the console has no such file",
        CONTENT_SECURITY_POLICY,
    )
});

/// The console, out of the gateway itself.
pub(in crate::http) async fn console(request: HttpRequest) -> Result<HttpResponse, Problem> {
    PAGE.answer(&request)
}

/// A token as pages offer it.
#[derive(Serialize)]
struct Offered {
    role: &'static str,
    token: String,
}

/// The tokens of the sandbox's roles; none where the gateway is in earnest.
pub(in crate::http) async fn sandbox_tokens(tokens: Data<Option<SandboxTokens>>) -> HttpResponse {
    let signed = tokens.as_ref().as_ref().map(SandboxTokens::sign);
    let offered = signed.into_iter().flatten().map(|signed| Offered {
        role: signed.role,
        token: signed.token,
    });
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(offered.collect::<Vec<_>>())
}

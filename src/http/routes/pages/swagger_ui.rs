//! Swagger UI: its own files, with a page and a beginning of ours.

use std::sync::{Arc, LazyLock};

use actix_web::{HttpRequest, HttpResponse};
use utoipa_swagger_ui::Config;

use super::{Page, of_file};
use crate::http::wire::{Asset, Problem};
use crate::pages;

/// No script or style but the page's own, no other host. The hash is that of Swagger UI's one inline style
/// and changes with its version; the browser's console names the new one.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' \
    'sha256-RL3ie0nH+Lzz2YNqQN83mnU0J1ot4QL7b99vMdIX99w='; img-src 'self' data:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Its own files need none: the page tells it what it shows.
static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(Arc::default);
static PAGE: LazyLock<Page> =
    LazyLock::new(|| Page::new(load, "Swagger UI has no such file", CONTENT_SECURITY_POLICY));

/// Swagger UI, out of the gateway itself.
pub(in crate::http) async fn swagger_ui(request: HttpRequest) -> Result<HttpResponse, Problem> {
    PAGE.answer(&request)
}

fn load(name: &str) -> Option<Asset> {
    if let Some(ours) = pages::swagger_ui(name) {
        return Some(of_file(ours));
    }
    // Its files lie in no folders, and what is asked for in one would be its own first page.
    if name.contains('/') {
        return None;
    }
    let file = utoipa_swagger_ui::serve(name, CONFIG.clone())
        .ok()
        .flatten()?;
    let bytes = file.bytes.into_owned().into();
    Some(if file.gzpipped {
        Asset::gzipped(&file.content_type, bytes)
    } else {
        Asset::plain(&file.content_type, bytes)
    })
}

//! Pages for people: Swagger UI, out of the binary, asking no other host.

use std::sync::{Arc, LazyLock};

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse};
use utoipa_swagger_ui::Config;

use crate::problem::ProblemKind;

use super::path;
use super::problem::Problem;

/// No script or style but the page's own, no other host. The hash is that of Swagger UI's one inline style
/// and changes with its version; the browser's console names the new one.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' \
    'sha256-RL3ie0nH+Lzz2YNqQN83mnU0J1ot4QL7b99vMdIX99w='; img-src 'self' data:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static SWAGGER_UI: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    let config = Config::from(path::OPENAPI);
    Arc::new(
        config
            .validator_url("none")
            .display_request_duration(true)
            .try_it_out_enabled(true)
            .deep_linking(true),
    )
});

/// Leads to Swagger UI.
#[utoipa::path(
    get, path = path::ROOT, operation_id = "root", tag = "operations",
    responses((status = 307, description = "Swagger UI is at `/swagger-ui/`",
        headers(("Location" = String, description = "`/swagger-ui/`")))),
    security(())
)]
pub(super) async fn to_swagger_ui() -> HttpResponse {
    HttpResponse::TemporaryRedirect()
        .insert_header((header::LOCATION, "/swagger-ui/"))
        .finish()
}

/// Swagger UI, out of the gateway itself.
#[utoipa::path(
    get, path = path::SWAGGER_UI_PAGE, operation_id = "swagger_ui", tag = "operations",
    responses((status = 200, description = "The page; its assets lie beside it", body = String,
        content_type = "text/html", example = "<!DOCTYPE html>")),
    security(())
)]
pub(super) async fn swagger_ui(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let absent = || Problem::new(ProblemKind::NotFound, "Swagger UI has no such file");
    let name = request.match_info().get("file").unwrap_or_default();
    let file = utoipa_swagger_ui::serve(name, SWAGGER_UI.clone())
        .ok()
        .flatten()
        .ok_or_else(absent)?;
    let mut response = HttpResponse::Ok();
    response
        .content_type(file.content_type)
        .insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY));
    if file.gzpipped {
        response.insert_header((header::CONTENT_ENCODING, "gzip"));
    }
    Ok(response.body(file.bytes.into_owned()))
}

//! The OpenAPI document, as the gateway serves it.

use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};

use crate::http::wire::{Parser, Problem, path};

/// The document as JSON.
#[derive(Debug, Clone)]
pub struct DocumentText(pub(in crate::http) Bytes);

/// This document.
#[utoipa::path(
    get, path = path::OPENAPI, operation_id = "openapi", tag = "operations",
    responses((status = 200, description = "The OpenAPI document of this gateway", content_type = "application/json",
        body = serde_json::Value, example = json!({"openapi": "3.1.0"}))),
)]
pub(in crate::http) async fn openapi_json(
    request: HttpRequest,
    document: Data<DocumentText>,
) -> Result<HttpResponse, Problem> {
    Parser::new(&request, &[]).finish(Some(()))?;
    let mut response = HttpResponse::Ok();
    Ok(response
        .content_type("application/json")
        .body(document.0.clone()))
}

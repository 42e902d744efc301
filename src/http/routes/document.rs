//! The OpenAPI document, as the gateway serves it.

use std::sync::OnceLock;

use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};

use crate::http::wire::{Links, Parser, Problem, path};

/// The document as JSON. Made when it is asked for first: it takes time and memory that a gateway which nobody asks need not give.
#[derive(Debug)]
pub struct DocumentText {
    text: OnceLock<Bytes>,
    make: fn(&Links) -> String,
    links: Links,
}

impl DocumentText {
    pub(in crate::http) fn new(links: Links, make: fn(&Links) -> String) -> Self {
        Self {
            text: OnceLock::new(),
            make,
            links,
        }
    }

    fn get(&self) -> Bytes {
        let make = || (self.make)(&self.links).into();
        self.text.get_or_init(make).clone()
    }
}

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
        .body(document.get()))
}

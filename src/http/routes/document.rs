//! The OpenAPI document, as the gateway serves it.

use std::sync::OnceLock;

use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use utoipa::openapi::OpenApi;

use crate::http::wire::params::IfNoneMatchHeader;
use crate::http::wire::{Asset, Links, Parser, Problem, RequestBounds, path};

pub(in crate::http) const JSON: &str = "application/json";
/// RFC 9512.
pub(in crate::http) const YAML: &str = "application/yaml";

/// The document, as text. Made when it is asked for first: it takes time and memory that a gateway which nobody asks need not
/// give.
#[derive(Debug)]
pub struct DocumentText {
    json: OnceLock<Asset>,
    yaml: OnceLock<Asset>,
    make: fn(&Links, &RequestBounds) -> OpenApi,
    links: Links,
    bounds: RequestBounds,
}

impl DocumentText {
    pub(in crate::http) fn new(
        links: Links,
        bounds: RequestBounds,
        make: fn(&Links, &RequestBounds) -> OpenApi,
    ) -> Self {
        Self {
            json: OnceLock::new(),
            yaml: OnceLock::new(),
            make,
            links,
            bounds,
        }
    }

    fn json(&self) -> &Asset {
        self.json.get_or_init(|| {
            // All of it is text, lists and maps with texts for keys.
            let text = (self.make)(&self.links, &self.bounds).to_json();
            Asset::plain(JSON, Bytes::from(text.unwrap_or_default()))
        })
    }

    fn yaml(&self) -> &Asset {
        self.yaml.get_or_init(|| {
            let text = yaml(&(self.make)(&self.links, &self.bounds));
            Asset::plain(YAML, Bytes::from(text.unwrap_or_default()))
        })
    }
}

/// The document as YAML that readers of YAML 1.1 and of 1.2 understand alike: what either would take for a time, a truth
/// value or a number stands in quotes.
///
/// # Errors
/// None that is known: all of it is text, lists and maps with texts for keys.
pub fn yaml(document: &OpenApi) -> Result<String, serde_saphyr::ser_error::Error> {
    serde_saphyr::to_string(document)
}

/// This document.
///
/// The API of this gateway, with its regions. `/openapi.yaml` is the same as YAML.
#[utoipa::path(
    get, path = path::OPENAPI, operation_id = "get_openapi_json", tag = "operations",
    params(IfNoneMatchHeader),
    responses(
        (status = 200, description = "The OpenAPI document of this gateway", content_type = "application/json",
            body = Object, example = json!({"openapi": "3.1.0"})),
        (status = 304, description = "It is the one that you have"),
    ),
)]
pub(in crate::http) async fn openapi_json(
    request: HttpRequest,
    document: Data<DocumentText>,
) -> Result<HttpResponse, Problem> {
    Parser::new(&request, &[]).finish(Some(()))?;
    Ok(document.json().answer(&request, None))
}

/// This document, as YAML.
///
/// The same as `/openapi.json`, for readers of YAML 1.1 as of 1.2.
#[utoipa::path(
    get, path = path::OPENAPI_YAML, operation_id = "get_openapi_yaml", tag = "operations",
    params(IfNoneMatchHeader),
    responses(
        (status = 200, description = "The OpenAPI document of this gateway", content_type = "application/yaml",
            body = String, example = json!("openapi: \"3.1.0\"\n")),
        (status = 304, description = "It is the one that you have"),
    ),
)]
pub(in crate::http) async fn openapi_yaml(
    request: HttpRequest,
    document: Data<DocumentText>,
) -> Result<HttpResponse, Problem> {
    Parser::new(&request, &[]).finish(Some(()))?;
    Ok(document.yaml().answer(&request, None))
}

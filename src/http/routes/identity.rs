//! What the gateway makes of a token.

use std::collections::{BTreeMap, BTreeSet};

use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::Principal;
use crate::schema;

use crate::http::edge::Authenticated;
use crate::http::wire::{Parser, Problem, path};

/// Who a token says that its holder is, and what it means here.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Whoami<'a> {
    /// The token's `sub`, as events name it.
    subject: &'a str,
    /// Its `iss`.
    issuer: &'a str,
    /// Its `jti`, where it has one.
    #[schema(required)]
    token_id: Option<&'a str>,
    /// The scopes that it means here.
    scopes: &'a BTreeSet<String>,
    /// Its groups.
    groups: &'a BTreeSet<String>,
    /// Those of its claims that policies see, by name, as they see them: texts.
    claims: &'a BTreeMap<String, String>,
    /// When it ends.
    #[schema(value_type = schema::Time)]
    expires_at: String,
}

impl<'a> From<&'a Principal> for Whoami<'a> {
    fn from(principal: &'a Principal) -> Self {
        Self {
            subject: &principal.subject,
            issuer: &principal.issuer,
            token_id: principal.token_id.as_deref(),
            scopes: &principal.scopes,
            groups: &principal.groups,
            claims: &principal.claims,
            expires_at: principal.expires_at.to_string(),
        }
    }
}

/// See what the gateway makes of your token.
///
/// The first thing to try: who you are to it, by which issuer, with which scopes and groups, and what policies see of you.
#[utoipa::path(
    get, path = path::WHOAMI, operation_id = "whoami", tag = "identity",
    responses((status = 200, description = "Who you are", body = Whoami, content_type = "application/json",
        example = json!({"subject": "team-a", "issuer": "https://login.example.com", "token_id": "b3c1",
            "scopes": ["shares:read", "shares:write"], "groups": ["vision"], "claims": {"environment": "production"},
            "expires_at": "2026-01-31T12:00:00.000Z"}))),
)]
pub(in crate::http) async fn whoami(
    caller: Authenticated,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    Parser::new(&request, &[]).finish(Some(()))?;
    caller.admit(0)?;
    let principal = &caller.caller().principal;
    Ok(HttpResponse::Ok().json(Whoami::from(principal.as_ref())))
}

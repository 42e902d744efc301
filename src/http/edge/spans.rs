//! The span of a request, by OpenTelemetry's conventions for servers of HTTP.

use actix_web::HttpMessage as _;
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::web::Data;

use crate::domain::SpanContext;
use crate::telemetry::{Span, Traces};

use super::client_address::ClientAddress;
use super::told::{NO_ROUTE, OTHER_METHOD, cut, method_word, shown};
use crate::http::wire::path;

/// Lies with the routes of a listener that serves TLS.
#[derive(Debug, Clone, Copy)]
pub struct OverTls;

/// The request's span, where traces are on. Probes have none: they come every few seconds and tell nothing.
pub(super) fn begin_span(
    request: &ServiceRequest,
    caller: Option<SpanContext>,
) -> Option<(Span, SpanContext)> {
    let traces = request.app_data::<Data<Traces>>()?;
    if matches!(request.path(), path::LIVEZ | path::READYZ) {
        return None;
    }
    traces.request(method_word(request.method()), caller)
}

/// By OpenTelemetry's conventions for servers of HTTP.
pub(super) fn describe(span: &mut Span, response: &ServiceResponse<BoxBody>, route: &'static str) {
    if !span.is_kept() {
        return;
    }
    let request = response.request();
    let (method, status) = (method_word(request.method()), response.status());
    let named = if method == OTHER_METHOD {
        "HTTP"
    } else {
        method
    };
    if route == NO_ROUTE {
        span.rename(named.to_owned());
    } else {
        span.rename(format!("{named} {route}"));
        span.set("http.route", route);
    }
    span.set("http.request.method", method);
    span.set("http.response.status_code", i64::from(status.as_u16()));
    if method == OTHER_METHOD {
        let original = cut(request.method().as_str()).into_owned();
        span.set("http.request.method_original", original);
    }
    span.set("url.path", shown(request.path()).into_owned());
    if let Some(host) = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
    {
        let (address, port) = match host.rsplit_once(':') {
            Some((address, port)) if !port.ends_with(']') => (address, port.parse::<u16>().ok()),
            _ => (host, None),
        };
        span.set("server.address", shown(address).into_owned());
        if let Some(port) = port {
            span.set("server.port", i64::from(port));
        }
    }
    let over_tls = request.app_data::<OverTls>().is_some();
    span.set("url.scheme", if over_tls { "https" } else { "http" });
    let version = format!("{:?}", request.version());
    span.set("network.protocol.version", version.replace("HTTP/", ""));
    if let Some(client) = request.extensions().get::<ClientAddress>() {
        span.set("client.address", client.told().to_string());
    }
    if let Some(agent) = request.headers().get(header::USER_AGENT) {
        let agent = String::from_utf8_lossy(agent.as_bytes());
        span.set("user_agent.original", shown(&agent).into_owned());
    }
    if status.is_server_error() {
        span.fail(status.as_str().to_owned());
    }
}

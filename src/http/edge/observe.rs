//! Around every request: its id, its size, its log line, its numbers, its last headers, its problem.

use std::borrow::Cow;
use std::sync::Arc;

use actix_cors::CorsError;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, Method, Uri};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpMessage as _, HttpRequest};

use crate::domain::{Principal, RequestId, SpanContext, Stopwatch};
use crate::problem::ProblemKind;
use crate::telemetry::traces::{Within, within};
use crate::telemetry::{Metrics, Span, Traces};

use super::client_address::{ClientAddress, TrustedProxies};
use super::connections::Connection;
use super::cors;
use super::quota::Counted;
use crate::http::wire::{AUDIT_ID, Arrival, Problem, Requests, Resource, path};

/// Largest head: request line and headers.
const HEAD_BYTES_MAX: usize = 32 * 1024;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Longest text of a caller's that a log line holds, in characters; a longer one is cut.
const LOGGED_CHARACTERS_MAX: usize = 200;
/// The same of why a request was refused, where it says what was expected too.
const WHY_CHARACTERS_MAX: usize = 1500;
/// What stands at the end of a text that was cut.
const CUT_MARK: &str = "… (cut)";

/// For how long browsers ask over TLS alone once they came so: a year (RFC 6797).
const STRICT_TRANSPORT: &str = "max-age=31536000";

/// Lies with the routes of a listener that serves TLS.
#[derive(Debug, Clone, Copy)]
pub struct OverTls;

/// Who a request's log line says that asked.
pub(super) struct Asker(pub(super) Arc<Principal>);

/// The middleware.
///
/// # Errors
/// None of its own: what the routes return as an error is rendered here.
pub async fn observe(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let caller = sole(request.headers(), &TRACEPARENT).and_then(SpanContext::from_traceparent);
    let (mut span, context) = begin_span(&request, caller).unzip();
    let arrival = Arrival {
        request_id: request_id(request.headers()),
        trace_id: context.or(caller).map(|context| context.trace_id()),
        since: Stopwatch::start(),
    };
    request.extensions_mut().insert(arrival.clone());
    note_client(&request);
    let metrics = request.app_data::<Data<Metrics>>().cloned();
    let _in_flight = metrics
        .as_ref()
        .map(|metrics| metrics.http_request_in_flight());
    let requests = request.app_data::<Data<Requests>>().cloned();
    let _counted = requests.as_ref().map(|requests| requests.begin());
    let connection = request.conn_data::<Arc<Connection>>();
    let answering = connection.map(Connection::begin);
    let changes = !request.method().is_safe();
    let over_tls = request.app_data::<OverTls>().is_some();
    let head = head_bytes(&request);
    let (mut response, problem) = if head > HEAD_BYTES_MAX {
        let detail =
            format!("request line and headers take {head} bytes; {HEAD_BYTES_MAX} are allowed");
        let problem = Problem::new(ProblemKind::HeadersTooLarge, detail);
        let rendered = problem.render(&arrival.request_id, changes);
        (request.into_response(rendered), Some(problem))
    } else {
        let response = match Within::all(context) {
            None => next.call(request).await?,
            spans => within(spans, next.call(request)).await?,
        };
        let problem = response.response().error().and_then(|error| {
            let refused = || error.as_error::<CorsError>().map(cors::refused);
            error.as_error::<Problem>().cloned().or_else(refused)
        });
        match problem {
            None => (response.map_into_boxed_body(), None),
            Some(problem) => {
                let mut rendered = problem.render(&arrival.request_id, changes);
                cors::keep_headers(response.headers(), rendered.headers_mut());
                (
                    ServiceResponse::new(response.into_parts().0, rendered),
                    Some(problem),
                )
            }
        }
    };
    finish(response.headers_mut(), &arrival.request_id);
    if requests.is_some_and(|requests| requests.are_draining()) {
        let head = response.response_mut().head_mut();
        head.set_connection_type(ConnectionType::Close);
    }
    if over_tls {
        let value = HeaderValue::from_static(STRICT_TRANSPORT);
        response
            .headers_mut()
            .insert(header::STRICT_TRANSPORT_SECURITY, value);
    }
    let counted = response.request().extensions().get::<Counted>().cloned();
    if let Some(counted) = counted {
        counted.write(response.headers_mut());
    }
    let route = route_word(response.request());
    log(
        response.request(),
        route,
        response.status().as_u16(),
        response.headers(),
        &arrival,
        problem.as_ref(),
    );
    if let Some(span) = span.as_mut() {
        describe(span, &response, route);
    }
    if let Some(metrics) = metrics {
        let method = method_word(response.request().method());
        metrics.http_request(
            method,
            route,
            response.status().as_u16(),
            arrival.since.elapsed(),
        );
    }
    Ok(match answering {
        Some(answering) => response.map_body(|_, body| answering.until_sent(body)),
        None => response,
    })
}

/// The request's span, where traces are on. Probes have none: they come every few seconds and tell nothing.
fn begin_span(
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
fn describe(span: &mut Span, response: &ServiceResponse<BoxBody>, route: &'static str) {
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

/// Where the request came from, for its log line and for whoever has to know it.
fn note_client(request: &ServiceRequest) {
    let proxies = request.app_data::<Data<TrustedProxies>>();
    if let Some(peer) = request.peer_addr() {
        let peer = peer.ip().to_canonical();
        let client = match proxies {
            Some(proxies) => proxies.client(peer, request.headers()),
            None => Ok(peer),
        };
        request
            .extensions_mut()
            .insert(ClientAddress { peer, client });
    }
}

fn request_id(headers: &HeaderMap) -> RequestId {
    sole(headers, &REQUEST_ID)
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(RequestId::generate)
}

/// The value of a header that came once.
fn sole<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name);
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// The size of the head as HTTP/1.1 writes it.
fn head_bytes(request: &ServiceRequest) -> usize {
    let line =
        request.method().as_str().len() + target_bytes(request.uri()) + " HTTP/1.1\r\n".len() + 1;
    let fields = request
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    line + fields.sum::<usize>() + "\r\n".len()
}

/// The size of the target as it came: a path with its query, and what stands before it in absolute form.
fn target_bytes(uri: &Uri) -> usize {
    let scheme = uri
        .scheme_str()
        .map_or(0, |scheme| scheme.len() + "://".len());
    let authority = uri
        .authority()
        .map_or(0, |authority| authority.as_str().len());
    scheme + authority + uri.path_and_query().map_or(0, |path| path.as_str().len())
}

fn finish(headers: &mut HeaderMap, request_id: &RequestId) {
    if let Ok(value) = HeaderValue::from_str(request_id.as_str()) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

fn log(
    request: &HttpRequest,
    route: &'static str,
    status: u16,
    headers: &HeaderMap,
    arrival: &Arrival,
    problem: Option<&Problem>,
) {
    let extensions = request.extensions();
    let asker = extensions.get::<Asker>().map(|asker| &asker.0);
    let client = extensions.get::<ClientAddress>();
    let event_id = headers.get(AUDIT_ID).and_then(|value| value.to_str().ok());
    let event_id = event_id
        .map(str::to_owned)
        .or_else(|| problem?.event_id().map(|id| id.to_string()));
    let agent = request.headers().get(header::USER_AGENT);
    let agent = agent.map(|agent| shown(&String::from_utf8_lossy(agent.as_bytes())).into_owned());
    let why = problem.map(|problem| cut_to(problem.for_log(), WHY_CHARACTERS_MAX));
    let image = request.match_info().get("image_id").map(shown);
    let account = request.match_info().get("account_id").map(shown);
    let duration_ms = u64::try_from(arrival.since.elapsed().as_millis()).unwrap_or(u64::MAX);
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                request_id = arrival.request_id.as_str(),
                trace_id = arrival.trace_id.as_ref().map(|trace| trace.as_str()),
                client.address = client.map(|client| tracing::field::display(client.told())),
                user_agent.original = agent,
                http.request.method = method_word(request.method()),
                http.route = route,
                http.response.status_code = status,
                problem = problem.map(Problem::slug),
                why = why.as_deref(),
                subject = asker.map(|asker| cut(&asker.subject)).as_deref(),
                issuer = asker.map(|asker| cut(&asker.issuer)).as_deref(),
                image.id = image.as_deref(),
                account.id = account.as_deref(),
                audit.event_id = event_id.as_deref(),
                duration_ms,
                "answered"
            )
        };
    }
    match route {
        path::LIVEZ | path::READYZ | path::METRICS => line!(debug),
        _ if status >= 500 => line!(warn),
        _ => line!(info),
    }
}

/// So much of a caller's text as is told, and nothing of one in which a token stands by a slip: the word with which each
/// begins, and its two dots.
fn shown(text: &str) -> Cow<'_, str> {
    let may_be_token = |text: &str| text.matches('.').count() >= 2;
    match text.find("eyJ") {
        Some(at) if may_be_token(&text[at..]) => "what looks like a token".into(),
        _ => cut(text),
    }
}

/// So much of a caller's text as a log line holds.
fn cut(text: &str) -> Cow<'_, str> {
    cut_to(text, LOGGED_CHARACTERS_MAX)
}

/// The first so many characters of a text, with a mark where there are more.
pub(super) fn cut_to(text: &str, characters_max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(characters_max) {
        None => text.into(),
        Some((end, _)) => format!("{}{CUT_MARK}", &text[..end]).into(),
    }
}

const NO_ROUTE: &str = "none";

/// The route's path, where there is one.
fn route_word(request: &HttpRequest) -> &'static str {
    let resource = request.app_data::<&'static Resource>();
    resource.map_or(NO_ROUTE, |resource| resource.path)
}

const OTHER_METHOD: &str = "_OTHER";

/// A method, by OpenTelemetry's word where it is none of HTTP's.
fn method_word(method: &Method) -> &'static str {
    const METHODS: [&str; 9] = [
        "GET", "HEAD", "PUT", "DELETE", "PATCH", "POST", "OPTIONS", "TRACE", "CONNECT",
    ];
    METHODS
        .into_iter()
        .find(|known| *known == method.as_str())
        .unwrap_or(OTHER_METHOD)
}

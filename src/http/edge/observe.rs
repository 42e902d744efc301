//! Around every request: its id, its size, its log line, its numbers, its last headers, its problem.

use std::sync::Arc;

use actix_cors::CorsError;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, Uri};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpMessage as _, HttpRequest};

use crate::domain::{Principal, RequestId, SpanContext, Stopwatch};
use crate::problem::ProblemKind;
use crate::telemetry::Metrics;
use crate::telemetry::traces::{Within, within};

use super::client_address::{ClientAddress, TrustedProxies};
use super::connections::Connection;
use super::cors;
use super::quota::Counted;
use super::spans::{OverTls, begin_span, describe};
use super::told::{cut, cut_to, method_word, route_word, shown};
use crate::http::wire::{AUDIT_ID, Arrival, Problem, Requests, path};

/// Largest head: request line and headers.
const HEAD_BYTES_MAX: usize = 32 * 1024;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The same of why a request was refused, where it says what was expected too.
const WHY_CHARACTERS_MAX: usize = 1500;

/// For how long browsers ask over TLS alone once they came so: a year (RFC 6797).
const STRICT_TRANSPORT: &str = "max-age=31536000";

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
            Some(spans) => within(spans, next.call(request)).await?,
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
        let asked = !matches!(route, path::LIVEZ | path::READYZ | path::METRICS);
        let took = asked.then(|| arrival.since.elapsed());
        metrics.http_request(method, route, response.status().as_u16(), took);
    }
    Ok(match answering {
        Some(answering) => response.map_body(|_, body| answering.until_sent(body)),
        None => response,
    })
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

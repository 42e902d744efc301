//! The upstream in memory: a real implementation of the share actions, for trying out and for tests.
//!
//! It imports nothing of the gateway, so that it is a second, independent reading of the protocol: a name
//! shared with the client would hide the client's mistakes. The official SDKs work against it unchanged:
//! POST or GET to `/`, with `?Action=` in the URL or without, form or JSON (flat or nested), the signature
//! over all parameters, refusals with HTTP 200.
//!
//! Account ids from 9000000000000000 up do not exist, image ids that begin with `compshareImage-missing`
//! do not exist, every other account, image and region does. A call that names an account that does not
//! exist changes nothing.

mod actions;
mod faults;
mod ledger;
mod request;
mod signature;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};

use faults::{Fault, Faults};
use ledger::Ledger;

/// Largest body that is read.
const BODY_BYTES_MAX: usize = 1024 * 1024;
const REQUEST_UUID: &str = "X-UCLOUD-REQUEST-UUID";

/// How a sandbox behaves.
#[derive(Clone)]
pub struct Settings {
    /// The public key that calls must name.
    pub public_key: String,
    /// The private key that calls must be signed with.
    pub private_key: String,
    /// How long each answer is held back.
    pub latency: Duration,
    /// The share of calls, 0 to 1, that are answered with HTTP 503, `RetCode` 150 or a reset, in turn.
    pub fault_rate: f64,
}

/// A running sandbox.
pub struct Sandbox {
    address: SocketAddr,
    handle: ServerHandle,
    server: tokio::task::JoinHandle<io::Result<()>>,
}

struct State {
    settings: Settings,
    ledger: Ledger,
    faults: Faults,
}

impl Sandbox {
    /// Serves on a listener that is bound already.
    ///
    /// # Errors
    /// Where the listener cannot be used.
    #[expect(
        clippy::disallowed_methods,
        reason = "the sandbox is waited for by itself"
    )]
    pub fn start(listener: TcpListener, settings: Settings) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let faults = Faults::new(settings.fault_rate);
        let state = Data::new(State {
            settings,
            ledger: Ledger::default(),
            faults,
        });
        let server = HttpServer::new(move || {
            App::new()
                .app_data(state.clone())
                .app_data(web::PayloadConfig::new(BODY_BYTES_MAX))
                .route("/", web::post().to(answer))
                .route("/", web::get().to(answer))
        });
        let server = server
            .workers(1)
            .disable_signals()
            .shutdown_timeout(1)
            .keep_alive(Duration::from_secs(75));
        let server = server.listen(listener)?.run();
        let handle = server.handle();
        Ok(Self {
            address,
            handle,
            server: tokio::spawn(server),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening and waits for calls in flight.
    pub async fn stop(self) {
        self.handle.stop(true).await;
        let _ = self.server.await;
    }
}

async fn answer(request: HttpRequest, body: Bytes, state: Data<State>) -> HttpResponse {
    if !state.settings.latency.is_zero() {
        tokio::time::sleep(state.settings.latency).await;
    }
    let uuid = uuid::Uuid::new_v4().to_string();
    match state.faults.next() {
        None => {}
        Some(Fault::Http503) => {
            return HttpResponse::ServiceUnavailable()
                .insert_header((REQUEST_UUID, uuid))
                .finish();
        }
        Some(Fault::RetCode150) => {
            let refusal = serde_json::json!({"RetCode": 150, "Message": "Service unavailable"});
            return HttpResponse::Ok()
                .insert_header((REQUEST_UUID, uuid))
                .json(refusal);
        }
        Some(Fault::Reset) => return reset(),
    }
    let is_json = request
        .headers()
        .get("content-type")
        .and_then(|value| value.to_str().ok());
    let is_json =
        is_json.is_some_and(|value| value.to_ascii_lowercase().starts_with("application/json"));
    let call = request::Call::read(request.query_string(), &body, is_json);
    let answer = actions::answer(&call, &state.settings, &state.ledger);
    HttpResponse::Ok()
        .insert_header((REQUEST_UUID, uuid))
        .json(answer)
}

/// A body that fails at once: the connection is closed with nothing of an answer sent.
fn reset() -> HttpResponse {
    let broken = futures_util::stream::once(async {
        Err::<Bytes, _>(io::Error::from(io::ErrorKind::ConnectionReset))
    });
    HttpResponse::Ok().streaming(Box::pin(broken))
}

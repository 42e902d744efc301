//! A plain service that does the same work without the care: what a change could cost.
//!
//! actix-web, one sqlx connection behind a lock, reqwest. Each change is a row and its commit, a call to the upstream, a
//! second row and its commit. There is no chain, no queue, no policy, no index and no log. Where it is asked to, it checks
//! the token of each request, as `jsonwebtoken`'s documentation does it.

use std::path::PathBuf;

use actix_web::web::{self, Data, Path};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde_json::json;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, SqliteConnection};
use tokio::sync::Mutex;

use super::floor::{FORM, on_runtime};
use super::process::{AUDIENCE, ISSUER, KEYS};
use super::row::{Row, TABLE};

struct Plain {
    connection: Mutex<SqliteConnection>,
    client: reqwest::Client,
    upstream: String,
    key: DecodingKey,
    checks: bool,
}

#[derive(serde::Deserialize)]
struct Claims {}

impl Plain {
    fn refuses(&self, request: &HttpRequest) -> bool {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        let header = request.headers().get("authorization");
        let token = header
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.strip_prefix("Bearer "));
        token.is_none_or(|token| decode::<Claims>(token, &self.key, &validation).is_err())
    }

    async fn write(&self, row: Row) {
        let mut connection = self.connection.lock().await;
        row.insert(&mut connection).await;
    }
}

async fn put(plain: Data<Plain>, request: HttpRequest, path: Path<(String, u64)>) -> HttpResponse {
    if plain.checks && plain.refuses(&request) {
        return HttpResponse::Unauthorized().json(json!({"error": "unauthorized"}));
    }
    let (image_id, account_id) = path.into_inner();
    let event_id = uuid::Uuid::now_v7().to_string();
    plain.write(Row::intent(&event_id, account_id)).await;
    let call = plain
        .client
        .post(&plain.upstream)
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(FORM);
    call.send().await.unwrap().bytes().await.unwrap();
    plain.write(Row::outcome(&event_id, account_id)).await;
    HttpResponse::Ok().json(json!({
        "image_id": image_id, "account_id": account_id, "region": "cn-wlcb", "shared": true, "audit_id": event_id,
    }))
}

/// Serves until it is killed; prints its URL.
pub(crate) fn serve(directory: PathBuf, upstream: String, checks: bool) {
    on_runtime(async move {
        let options = SqliteConnectOptions::new()
            .filename(directory.join("plain.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let mut connection = options.connect().await.unwrap();
        sqlx::raw_sql(TABLE).execute(&mut connection).await.unwrap();
        let keys: serde_json::Value = serde_json::from_str(KEYS).unwrap();
        let part = |name: &str| keys["keys"][0][name].as_str().unwrap();
        let plain = Data::new(Plain {
            connection: Mutex::new(connection),
            client: reqwest::Client::builder()
                .no_proxy()
                .tls_certs_only([])
                .build()
                .unwrap(),
            upstream,
            key: DecodingKey::from_ec_components(part("x"), part("y")).unwrap(),
            checks,
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = HttpServer::new(move || {
            App::new().app_data(plain.clone()).service(
                web::resource("/images/{image_id}/shares/{account_id}").route(web::put().to(put)),
            )
        });
        let server = server.disable_signals().listen(listener).unwrap().run();
        println!("http://{address}");
        server.await.unwrap();
    });
}

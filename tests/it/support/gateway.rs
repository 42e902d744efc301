use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use image_share_gateway::app::{App, with_file_checks};
use image_share_gateway::audit;
use image_share_gateway::auth::{Grant, Mint};
use image_share_gateway::config::{Config, Sources};
use image_share_gateway::sandbox::{Sandbox, Settings};
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use super::Scripted;

pub(crate) const ISSUER: &str = "https://issuer.example";
pub(crate) const AUDIENCE: &str = "image-share-gateway";
pub(crate) const PUBLIC_KEY: &str = "the-public-key";
pub(crate) const PRIVATE_KEY: &str = "the-private-key-that-nobody-may-see";

/// A JWK Set with one secret, enough for whoever tests something else than keys.
const KEYS: &str = r#"{"keys":[{"kty":"oct","alg":"HS256","kid":"test","use":"sig","k":"dGhlLXNlY3JldC1vZi10aGUtdGVzdHMtaXMtbG9uZy1lbm91Z2g"}]}"#;

pub(crate) fn mint() -> Mint {
    Mint::from_set(KEYS, None).unwrap()
}

/// Writes the tests' JWK Set into `directory`.
pub(crate) fn keys_file(directory: &std::path::Path) -> PathBuf {
    let path = directory.join("keys.json");
    std::fs::write(&path, KEYS).unwrap();
    path
}

pub(crate) fn token(subject: &str, scope: &str) -> String {
    let ttl = Duration::from_mins(10);
    mint()
        .sign(&Grant {
            subject,
            scope,
            issuer: ISSUER,
            audience: AUDIENCE,
            ttl,
        })
        .unwrap()
}

/// A token of the key `kid` of a set like [`KEYS`] with these claims besides what every token needs.
pub(crate) fn token_with(kid: &str, secret: &[u8], claims: &Value) -> String {
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    header.kid = Some(kid.into());
    let now = jiff::Timestamp::now().as_second();
    let mut all =
        serde_json::json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "team-a", "exp": now + 600});
    all.as_object_mut()
        .unwrap()
        .extend(claims.as_object().unwrap().clone());
    let key = jsonwebtoken::EncodingKey::from_secret(secret);
    jsonwebtoken::encode(&header, &all, &key).unwrap()
}

/// The secret of [`KEYS`].
pub(crate) const SECRET: &[u8] = b"the-secret-of-the-tests-is-long-enough";

/// A JWK Set of one secret.
pub(crate) fn set_of(kid: &str, secret: &[u8]) -> String {
    use base64::Engine as _;
    let k = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(secret);
    serde_json::json!({"keys": [{"kty": "oct", "alg": "HS256", "kid": kid, "k": k}]}).to_string()
}

/// Rows of a trail that no buffer holds.
pub(crate) const LONG_TRAIL_ROWS: usize = 8000;

/// Writes so many denials with long details, as a gateway would.
async fn fill(database: &std::path::Path, rows: usize) {
    use image_share_gateway::audit::{Denial, HttpStatus, Refused};
    use image_share_gateway::domain::{
        Caller, Change, Deadline, Operation, Principal, RequestId, Stopwatch,
    };
    let metrics = image_share_gateway::telemetry::Metrics::new();
    let opened = audit::open_file(database, audit::Accepted::default(), metrics).await;
    let audit::Doors {
        writer,
        task,
        reader,
        ..
    } = opened.unwrap();
    let denial = || Denial {
        caller: std::sync::Arc::new(Caller {
            principal: std::sync::Arc::new(Principal::of_first_issuer("team-a", ISSUER)),
            client_ip: None,
            user_agent: None,
            request_id: RequestId::generate(),
            trace_id: None,
            since_arrival: Stopwatch::start(),
        }),
        refused: Refused::Change(Change {
            operation: Operation::Share,
            image_id: "img".parse().unwrap(),
            account_id: 7.try_into().unwrap(),
            region: "cn-wlcb".parse().unwrap(),
            reason: None,
        }),
        policy_ids: Vec::new(),
        http_status: HttpStatus::new(403),
        detail: "no ".repeat(300),
    };
    let mut tickets = Vec::new();
    while tickets.len() < rows {
        match writer.enqueue_denial(denial()) {
            Ok(ticket) => tickets.push(ticket),
            Err(_) => tokio::task::yield_now().await,
        }
    }
    for ticket in tickets {
        ticket.await.unwrap();
    }
    reader.close().await;
    let closed = task.stop(Deadline::after(Duration::from_secs(30))).await;
    assert_eq!(closed.unwrap().lost_outcomes, 0);
}

/// A running gateway with a database of its own.
pub(crate) struct Gateway {
    app: Option<App>,
    sandbox: Option<Sandbox>,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) base_url: String,
    settings: BTreeMap<&'static str, String>,
    client: reqwest::Client,
}

/// Where the trail of a gateway in this directory lies: in a file there, or in a database of its own on the server that
/// `ISG_TEST_SERVER` names.
fn trail_url(directory: &Path) -> String {
    let Some(server) = std::env::var_os("ISG_TEST_SERVER") else {
        return format!("sqlite://{}", directory.join("audit.db").display());
    };
    let server = server.into_string().unwrap();
    let name = directory.file_name().unwrap().to_string_lossy();
    let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let name = format!("trail_{name}").to_lowercase();
    let mut psql = std::process::Command::new("psql");
    psql.args(["-XAtq", "-d", &format!("{server}/postgres"), "-c"]);
    // One that is there already is the one of the gateway before.
    psql.arg(format!("CREATE DATABASE {name}"))
        .output()
        .unwrap();
    format!("{server}/{name}")
}

impl Gateway {
    /// In front of a sandbox.
    pub(crate) async fn spawn() -> Self {
        Self::spawn_in(tempfile::tempdir().unwrap()).await
    }

    /// The same over a trail that is there.
    pub(crate) async fn spawn_in(directory: tempfile::TempDir) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let settings = Settings {
            public_key: PUBLIC_KEY.into(),
            private_key: PRIVATE_KEY.into(),
            latency: Duration::ZERO,
            fault_rate: 0.0,
        };
        let sandbox = Sandbox::start(listener, settings).unwrap();
        let url = format!("http://{}", sandbox.address());
        let mut gateway = Self::in_directory(directory, &url, &[]).await;
        gateway.sandbox = Some(sandbox);
        gateway
    }

    /// Another one in front of the same upstream: whoever shares there does so by other means.
    pub(crate) async fn other(&self) -> Self {
        Self::in_front_of(&self.settings["upstream.base_url"], &[]).await
    }

    /// In front of a scripted upstream.
    pub(crate) async fn with_upstream(upstream: &Scripted) -> Self {
        Self::in_front_of(&upstream.url, &[]).await
    }

    /// In front of any URL, with more settings by key.
    pub(crate) async fn in_front_of(url: &str, settings: &[(&'static str, &str)]) -> Self {
        Self::in_directory(tempfile::tempdir().unwrap(), url, settings).await
    }

    /// Whose keys come from where `settings` say.
    pub(crate) async fn with_keys_from(settings: &[(&'static str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::configured(directory, "http://127.0.0.1:9", settings).await
    }

    /// In front of any URL, over TLS by whatever certificate, which its callers take.
    pub(crate) async fn over_tls_in_front_of(url: &str, settings: &[(&'static str, &str)]) -> Self {
        let mut gateway = Self::in_front_of(url, settings).await;
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_danger_accept_invalid_certs(true);
        gateway.client = client.build().unwrap();
        gateway
    }

    /// Over a trail that is there.
    pub(crate) async fn in_front_of_trail(directory: tempfile::TempDir, url: &str) -> Self {
        Self::in_directory(directory, url, &[]).await
    }

    /// Stops in order and starts anew over the same trail.
    pub(crate) async fn restarted(mut self, url: &str, settings: &[(&'static str, &str)]) -> Self {
        assert!(self.stop().await, "in order");
        Self::in_directory(self.directory, url, settings).await
    }

    /// The same over a trail of some 12 MB of denials: more than sockets and buffers hold.
    pub(crate) async fn with_long_trail(settings: &[(&'static str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fill(&directory.path().join("audit.db"), LONG_TRAIL_ROWS).await;
        Self::in_directory(directory, "http://127.0.0.1:9", settings).await
    }

    async fn in_directory(
        directory: tempfile::TempDir,
        url: &str,
        settings: &[(&'static str, &str)],
    ) -> Self {
        let keys = keys_file(directory.path()).display().to_string();
        let mut all = vec![("auth.jwks_file", keys.as_str())];
        all.extend(settings);
        Self::configured(directory, url, &all).await
    }

    async fn configured(
        directory: tempfile::TempDir,
        url: &str,
        settings: &[(&'static str, &str)],
    ) -> Self {
        let database = trail_url(directory.path());
        let mut defaults = BTreeMap::from([
            ("server.bind", "127.0.0.1:0".to_owned()),
            ("server.admin_bind", "127.0.0.1:0".to_owned()),
            ("auth.issuer", ISSUER.to_owned()),
            ("auth.audience", AUDIENCE.to_owned()),
            ("upstream.base_url", url.to_owned()),
            ("upstream.regions", "cn-wlcb,cn-sh2".to_owned()),
            ("upstream.public_key", PUBLIC_KEY.to_owned()),
            ("upstream.private_key", PRIVATE_KEY.to_owned()),
            ("audit.database_url", database),
            // Tests ask as fast as they can; those of the limits set their own.
            ("limits.requests_per_second", "0".to_owned()),
            ("limits.failed_authentications_per_minute", "0".to_owned()),
        ]);
        let given = settings
            .iter()
            .map(|(key, value)| (*key, (*value).to_owned()));
        defaults.extend(given);
        Self::start(directory, defaults).await
    }

    /// Whose keys would come from a URL that gives none.
    pub(crate) async fn without_keys() -> Self {
        Self::with_keys_from(&[("auth.jwks_url", "http://127.0.0.1:9/jwks")]).await
    }

    /// As a file says, but for where it listens and writes, and `settings`.
    pub(crate) async fn of_file(
        file: &str,
        upstream: &str,
        settings: &[(&'static str, &str)],
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = format!("sqlite://{}", directory.path().join("audit.db").display());
        let own = [
            ("server.bind", "127.0.0.1:0"),
            ("server.admin_bind", "127.0.0.1:0"),
            ("upstream.base_url", upstream),
            ("audit.database_url", database.as_str()),
            ("limits.requests_per_second", "0"),
        ];
        let all = own.iter().chain(settings);
        let all = all.map(|(key, value)| (*key, (*value).to_owned()));
        Self::start_with(directory, Some(file.into()), all.collect()).await
    }

    async fn start(directory: tempfile::TempDir, defaults: BTreeMap<&'static str, String>) -> Self {
        Self::start_with(directory, None, defaults).await
    }

    async fn start_with(
        directory: tempfile::TempDir,
        file: Option<PathBuf>,
        defaults: BTreeMap<&'static str, String>,
    ) -> Self {
        let settings = defaults.clone();
        let sources = with_file_checks(Sources {
            defaults,
            file,
            ..Sources::default()
        });
        let config = Config::load(&sources).unwrap_or_else(|faults| panic!("{:?}", faults.0));
        let app = App::start(config, None, audit::Accepted::default())
            .await
            .unwrap();
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]);
        let client = client
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Self {
            base_url: app.base_url(),
            app: Some(app),
            sandbox: None,
            directory,
            settings,
            client,
        }
    }

    pub(crate) fn caller(&self, scope: &str) -> Caller<'_> {
        Caller {
            gateway: self,
            token: Some(token("team-a", scope)),
        }
    }

    /// Somebody with this token.
    pub(crate) fn with(&self, token: String) -> Caller<'_> {
        Caller {
            gateway: self,
            token: Some(token),
        }
    }

    pub(crate) fn nobody(&self) -> Caller<'_> {
        Caller {
            gateway: self,
            token: None,
        }
    }

    pub(crate) fn sharer(&self) -> Caller<'_> {
        self.caller("shares:read shares:write")
    }

    pub(crate) fn auditor(&self) -> Caller<'_> {
        self.caller("audit:read")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.directory.path().join("audit.db")
    }

    pub(crate) fn admin_url(&self) -> String {
        format!(
            "http://{}",
            self.app.as_ref().and_then(App::admin_address).unwrap()
        )
    }

    /// What the admin listener tells of the gateway.
    pub(crate) async fn metrics(&self) -> String {
        let url = format!("{}/metrics", self.admin_url());
        let request = self.nobody().request_url("GET", &url);
        let text = request.send().await.unwrap().text().await.unwrap();
        super::keep("metrics", &text);
        text
    }

    /// `/readyz` as the admin listener answers it, with what each check says.
    pub(crate) async fn readiness(&self) -> Answer {
        let url = format!("{}/readyz", self.admin_url());
        Answer::of(self.nobody().request_url("GET", &url)).await
    }

    /// All events, oldest first.
    pub(crate) async fn events(&self) -> Vec<Value> {
        let answer = self
            .auditor()
            .get("/audit/events?limit=1000&order=asc")
            .await;
        assert_eq!(answer.status, 200);
        answer.json()["events"].as_array().unwrap().clone()
    }

    /// All events of a trail of any length, oldest first.
    pub(crate) async fn all_events(&self) -> Vec<Value> {
        let request = self.auditor().request("GET", "/audit/events?order=asc");
        let answer = Answer::of(request.header("Accept", "application/x-ndjson")).await;
        assert_eq!(answer.status, 200);
        answer
            .body
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    pub(crate) async fn only_event(&self) -> Value {
        let events = self.events().await;
        assert_eq!(events.len(), 1, "{events:?}");
        events[0].clone()
    }

    /// The only event, once it has its outcome.
    pub(crate) async fn ended_event(&self) -> Value {
        super::eventually("the event ends", async || {
            let event = self.only_event().await;
            (event["outcome"] != "pending").then_some(event)
        })
        .await
    }

    /// A connection to the trail's database, as a person with `sqlite3` has one.
    pub(crate) async fn connect(&self) -> sqlx::SqliteConnection {
        use sqlx::Connection as _;
        let url = format!("sqlite://{}", self.database().display());
        sqlx::SqliteConnection::connect(&url).await.unwrap()
    }

    /// A key that nobody sets any more at the next reload.
    pub(crate) fn forget(&mut self, key: &'static str) {
        self.settings.remove(key);
    }

    /// As at SIGHUP.
    pub(crate) async fn reload(&self) -> Result<(), Vec<String>> {
        let sources = with_file_checks(Sources {
            defaults: self.settings.clone(),
            ..Sources::default()
        });
        let reloaded = self.app.as_ref().unwrap().reload(sources).await;
        reloaded.map_err(|faults| faults.0.iter().map(ToString::to_string).collect())
    }

    pub(crate) async fn reload_keys(&self) {
        self.reload().await.unwrap();
    }

    /// Stops in order; what is in flight finishes.
    pub(crate) async fn stop(&mut self) -> bool {
        self.app.take().unwrap().stop().await
    }
}

/// Somebody who calls a gateway.
pub(crate) struct Caller<'a> {
    gateway: &'a Gateway,
    pub(crate) token: Option<String>,
}

impl Caller<'_> {
    /// A request to a whole URL, that of the admin listener, say.
    pub(crate) fn request_url(&self, method: &str, url: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        self.gateway.client.request(method, url)
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = self
            .gateway
            .client
            .request(method, format!("{}{path}", self.gateway.base_url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn send(&self, method: &str, path: &str) -> Answer {
        Answer::of(self.request(method, path)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path).await
    }

    pub(crate) async fn put(&self, path: &str) -> Answer {
        self.send("PUT", path).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path).await
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        let (client, request) = request.build_split();
        let request = request.unwrap();
        let (method, url) = (request.method().clone(), request.url().clone());
        let response = client.execute(request).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        super::assert_documented(method.as_str(), url.path(), status, &headers);
        Self {
            status,
            headers,
            body: response.text().await.unwrap(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// A problem of this status and slug, with all that every problem carries.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, slug: &str) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(problem["type"], format!("/problems/{slug}"), "{self:?}");
        assert_eq!(problem["status"], status, "{self:?}");
        assert!(
            problem["title"].is_string() && problem["detail"].is_string(),
            "{self:?}"
        );
        assert_eq!(
            problem["request_id"].as_str(),
            self.header("x-request-id"),
            "{self:?}"
        );
        assert_eq!(
            problem["audit_id"].as_str(),
            self.header("audit-id"),
            "{self:?}"
        );
        problem
    }
}

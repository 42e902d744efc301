//! Each status of each operation of the document, asked for in earnest: none is told of that does not occur.
//!
//! That none occurs that is not told of is held by every test: see `support::assert_documented`.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{
    Answer, Gateway, MISSING_ACCOUNTS, Reply, Scripted, committed_document, refusal, token,
};

/// What nobody can ask for: a fault of ours, of which none is known.
const NOT_ASKED_FOR: [&str; 1] = ["500"];
const IMAGE: &str = "compshareImage-sandbox1";
const EVERYTHING: &str = "shares:read shares:write audit:read";

/// Gateways in every state that a status needs.
struct World {
    sound: Gateway,
    refused: Gateway,
    missing: Gateway,
    unreachable: Gateway,
    late: Gateway,
    limited: Gateway,
    keyless: Gateway,
    /// What the others ask.
    _upstreams: Vec<Scripted>,
}

impl World {
    async fn new() -> Self {
        let refusing = Scripted::start(|_| refusal(299, "no")).await;
        let missing = Scripted::start(|_| refusal(230, "Param CompShareImageId invalid")).await;
        let late = Scripted::start(|_| refusal(110, "timeout")).await;
        let sound = Scripted::start(|_| Reply::Done).await;
        let once = [("upstream.max_retries", "0")];
        Self {
            sound: Gateway::spawn().await,
            refused: Gateway::in_front_of(&refusing.url, &once).await,
            missing: Gateway::in_front_of(&missing.url, &once).await,
            unreachable: Gateway::in_front_of("http://127.0.0.1:9", &once).await,
            late: Gateway::in_front_of(&late.url, &once).await,
            limited: Gateway::in_front_of(
                &sound.url,
                &[("limits.requests_per_second", "1"), ("limits.burst", "1")],
            )
            .await,
            keyless: Gateway::without_keys().await,
            _upstreams: vec![refusing, missing, late, sound],
        }
    }
}

/// An operation, and a request that succeeds.
#[derive(Clone, Copy)]
struct Asked<'a> {
    method: &'a str,
    pattern: &'a str,
}

impl Asked<'_> {
    fn path(self, event: &str) -> String {
        self.pattern
            .replace("{image_id}", IMAGE)
            .replace("{account_id}", "12345")
            .replace("{slug}", "not-found")
            .replace("{id}", event)
    }

    fn is_list(self) -> bool {
        self.pattern.ends_with("/shares")
    }

    fn body(self) -> Option<&'static str> {
        match self.method {
            "PUT" if self.is_list() => Some(r#"{"accounts":[1,12345],"max_removals":1000}"#),
            "PATCH" => Some(r#"{"add":[1]}"#),
            _ => None,
        }
    }

    async fn send(self, gateway: &Gateway, path: &str) -> Answer {
        self.send_with(gateway, path, self.body(), &[]).await
    }

    async fn send_with(
        self,
        gateway: &Gateway,
        path: &str,
        body: Option<&str>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request = gateway.caller(EVERYTHING).request(self.method, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body.to_owned());
            if !headers.iter().any(|(name, _)| *name == "Content-Type") {
                request = request.header("Content-Type", "application/json");
            }
        }
        Answer::of(request).await
    }

    /// Asks for a status; gives the one that came.
    async fn provoke(self, world: &World, status: &str, event: &str) -> u16 {
        let path = self.path(event);
        // A change of a list asks the upstream as a whole only where it has to know what is so.
        let rehearsed = match self.method {
            "PATCH" => format!("{path}?dry_run=true"),
            _ => path.clone(),
        };
        let answer = match status {
            "200" if self.method == "DELETE" => {
                let dry = format!("{path}?dry_run=true");
                self.send(&world.sound, &dry).await
            }
            "200" | "204" => self.send(&world.sound, &path).await,
            "304" => {
                let known = [("If-None-Match", "*")];
                self.send_with(&world.sound, &path, None, &known).await
            }
            "400" => {
                self.send(&world.sound, &format!("{path}?nobody=knows"))
                    .await
            }
            "401" => {
                let anybody = world.sound.nobody().request(self.method, &path);
                Answer::of(anybody).await
            }
            "403" => {
                let stranger = world.sound.caller("other").request(self.method, &path);
                let body = self.body().unwrap_or_default();
                let typed = if body.is_empty() {
                    stranger
                } else {
                    stranger.header("Content-Type", "application/json")
                };
                Answer::of(typed.body(body)).await
            }
            "404" if self.pattern.contains("{slug}") => {
                self.send(&world.sound, "/problems/nothing-of-the-kind")
                    .await
            }
            "404" if self.pattern.contains("{id}") => {
                self.send(&world.sound, "/audit/events/nothing").await
            }
            "404" => self.send(&world.missing, &rehearsed).await,
            "406" => {
                let image = [("Accept", "image/png")];
                self.send_with(&world.sound, &path, None, &image).await
            }
            "408" => return self.keep_waiting(&world.sound, &path).await,
            "409" => {
                let (one, none) = (r#"{"add":[1,2]}"#, r#"{"accounts":[]}"#);
                let add = Asked {
                    method: "PATCH",
                    ..self
                };
                add.send_with(&world.sound, &path, Some(one), &[]).await;
                self.send_with(&world.sound, &path, Some(none), &[]).await
            }
            "413" => {
                let long = " ".repeat(70_000);
                self.send_with(&world.sound, &path, Some(&long), &[]).await
            }
            "415" => {
                let plain = [("Content-Type", "text/plain")];
                self.send_with(&world.sound, &path, Some("{}"), &plain)
                    .await
            }
            "422" => {
                let nobody = path.replace("12345", &MISSING_ACCOUNTS.to_string());
                self.send(&world.sound, &nobody).await
            }
            "429" => {
                self.send(&world.limited, &path).await;
                self.send(&world.limited, &path).await
            }
            "431" => {
                let long = "x".repeat(40_000);
                self.send_with(&world.sound, &path, self.body(), &[("X-Long", &long)])
                    .await
            }
            "502" => self.send(&world.refused, &rehearsed).await,
            "503" if self.pattern == "/readyz" => {
                Answer::of(world.keyless.nobody().request("GET", &path)).await
            }
            "503" => {
                // Its key source has not answered: so it is for everybody, and the rest of them for those who ask upstream.
                if self.pattern.starts_with("/images") {
                    let away = self.send(&world.unreachable, &rehearsed).await;
                    away.assert_problem(503, "upstream-unavailable");
                }
                self.send(&world.keyless, &path).await
            }
            "504" => self.send(&world.late, &rehearsed).await,
            "505" => return self.by_http_1_0(&world.sound, &path).await,
            other => panic!("nobody knows how to ask for {other}"),
        };
        answer.status
    }

    /// Announces a body and never sends it.
    async fn keep_waiting(self, gateway: &Gateway, path: &str) -> u16 {
        let rest = "Content-Type: application/json\r\nContent-Length: 10\r\n";
        self.raw(gateway, path, "1.1", rest).await
    }

    async fn by_http_1_0(self, gateway: &Gateway, path: &str) -> u16 {
        self.raw(gateway, path, "1.0", "Accept: application/x-ndjson\r\n")
            .await
    }

    async fn raw(self, gateway: &Gateway, path: &str, version: &str, rest: &str) -> u16 {
        let address = gateway.base_url.strip_prefix("http://").unwrap();
        let token = token("team-a", EVERYTHING);
        let method = self.method;
        let head = format!(
            "{method} {path} HTTP/{version}\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\n{rest}\r\n"
        );
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_status_of_each_operation_occurs() {
    let document = committed_document();
    let world = Box::pin(World::new()).await;
    let shared = world
        .sound
        .sharer()
        .put(&format!("/images/{IMAGE}/shares/12345"))
        .await;
    let event = shared.header("audit-id").unwrap().to_owned();
    let (mut asked, mut waiting, mut others) = (0, Vec::new(), Vec::new());
    for (pattern, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method = method.to_uppercase();
            let operation_asked = Asked {
                method: &method,
                pattern,
            };
            let statuses = operation["responses"].as_object().unwrap();
            for status in statuses.keys().map(String::as_str) {
                if status == "408" {
                    waiting.push((method.clone(), pattern.clone()));
                } else if !NOT_ASKED_FOR.contains(&status) {
                    let came = operation_asked.provoke(&world, status, &event).await;
                    if came.to_string() != status {
                        others.push(format!("{method} {pattern}: {came} and not {status}"));
                    }
                    asked += 1;
                    // What a status needs may stand in another's way.
                    if method == "DELETE" {
                        let path = operation_asked.path(&event);
                        world.sound.sharer().put(&path).await;
                    }
                }
            }
        }
    }
    assert_eq!(others, Vec::<String>::new());
    // All at once, since each takes as long as the gateway waits for a body.
    let waits = waiting.iter().map(|(method, pattern)| {
        let asked = Asked { method, pattern };
        asked.provoke(&world, "408", &event)
    });
    let waits = futures_util::future::join_all(waits).await;
    assert!(
        !waits.is_empty() && waits.iter().all(|status| *status == 408),
        "{waits:?}"
    );
    assert!(asked > 120, "{asked}");
}

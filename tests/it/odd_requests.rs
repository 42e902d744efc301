//! What real clients send and readers read: numbers, bodies and headers as tools write them, lines as programs split
//! them; and every route with what is odd.

use serde_json::{Value, json};

use crate::support::{Answer, Gateway, Reply, Scripted, eventually, python, token};

async fn started() -> (Scripted, Gateway) {
    let upstream = Scripted::start(|_| Reply::Done).await;
    let gateway = Gateway::with_upstream(&upstream).await;
    (upstream, gateway)
}

async fn send(gateway: &Gateway, method: &str, path: &str, body: &str) -> Answer {
    let request = gateway
        .sharer()
        .request(method, path)
        .header("Content-Type", "application/json");
    Answer::of(request.body(body.to_owned())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn account_ids_count_by_their_value_however_they_are_written() {
    let (_upstream, gateway) = started().await;
    for (number, account) in [
        ("12345.0", 12345),
        ("3.56e8", 356_000_000),
        ("9007199254740991.0", 9_007_199_254_740_991_u64),
        ("12300e-2", 123),
    ] {
        let body = format!("{{\"add\":[{number}]}}");
        let answer = send(&gateway, "PATCH", "/images/img/shares", &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["results"][0]["account_id"], account);
    }
    let body = "{\"accounts\":[12345.0, 123],\"max_removals\":1e3}";
    assert_eq!(
        send(&gateway, "PUT", "/images/img/shares", body)
            .await
            .status,
        200
    );
    for number in [
        "12345.5",
        "9007199254740990.6",
        "1e400",
        "-1.0",
        "0.0",
        "\"12345\"",
        "1e-1",
    ] {
        let body = format!("{{\"add\":[{number}]}}");
        let answer = send(&gateway, "PATCH", "/images/img/shares", &body).await;
        answer.assert_problem(400, "invalid-request");
    }
    let twice = send(
        &gateway,
        "PATCH",
        "/images/img/shares",
        "{\"add\":[7, 7.0]}",
    )
    .await;
    twice.assert_problem(400, "invalid-request");
}

#[tokio::test(flavor = "multi_thread")]
async fn put_may_say_in_a_body_what_it_asks_for_as_tools_do_that_write_whole_objects() {
    let (upstream, gateway) = started().await;
    let path = "/images/img/shares/7?region=cn-sh2";
    // What Terraform's restapi provider sends: the object as it will be read back.
    let whole = json!({"image_id": "img", "account_id": 7, "region": "cn-sh2", "shared": true, "reason": "OPS-17"});
    for body in [
        whole.to_string(),
        json!({"account_id": 7.0}).to_string(),
        json!({"reason": "why"}).to_string(),
        "{}".to_owned(),
    ] {
        let answer = send(&gateway, "PUT", path, &body).await;
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
    }
    assert_eq!(gateway.events().await[0]["reason"], "OPS-17");
    let calls = upstream.calls().len();
    for (member, value) in [
        ("image_id", json!("other")),
        ("image_id", json!(7)),
        ("account_id", json!(8)),
        ("account_id", json!("7")),
        ("region", json!("cn-wlcb")),
        ("shared", json!(false)),
        ("shared", json!("true")),
        ("reason", json!("")),
        ("reason", json!(null)),
        ("colour", json!("blue")),
    ] {
        let mut body = whole.clone();
        body[member] = value;
        let answer = send(&gateway, "PUT", path, &body.to_string()).await;
        let problem = answer.assert_problem(400, "invalid-request");
        let fault = &problem["errors"][0];
        assert_eq!(
            (&fault["in"], &fault["name"]),
            (&"body".into(), &member.into()),
            "{body}"
        );
    }
    let both = send(
        &gateway,
        "PUT",
        &format!("{path}&reason=a"),
        "{\"reason\":\"a\"}",
    )
    .await;
    both.assert_problem(400, "invalid-request");
    assert_eq!(upstream.calls().len(), calls, "nothing was forwarded");
    let dry = send(
        &gateway,
        "PUT",
        &format!("{path}&dry_run=true"),
        &whole.to_string(),
    )
    .await;
    assert_eq!((dry.status, &dry.json()["dry_run"]), (200, &json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_can_be_seen_and_shows_nothing_otherwise_than_it_is() {
    let (_upstream, gateway) = started().await;
    for (reason, status) in [
        ("\u{5171}\u{4eab}", 200),
        ("OPS-17 \u{1f680}", 200),
        ("\u{200b}", 400),
        ("\u{feff}\u{2060}", 400),
        ("a\u{202e}b", 400),
        ("a\u{2066}b", 400),
        ("a\u{2028}b", 400),
        ("a\u{9b}b", 400),
    ] {
        let body = json!({"add": [7], "reason": reason}).to_string();
        let bulk = send(&gateway, "PATCH", "/images/img/shares", &body).await;
        assert_eq!(bulk.status, status, "{reason:?}: {bulk:?}");
        let one = send(
            &gateway,
            "PUT",
            "/images/img/shares/7",
            &json!({"reason": reason}).to_string(),
        )
        .await;
        assert_eq!(one.status, status, "{reason:?}: {one:?}");
        let query: String = url::form_urlencoded::byte_serialize(reason.as_bytes()).collect();
        let path = format!("/images/img/shares/7?reason={query}");
        assert_eq!(
            gateway.sharer().delete(&path).await.status,
            if status == 200 { 204 } else { 400 }
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_and_times_of_a_query_mean_the_same_on_every_route() {
    let (_upstream, gateway) = started().await;
    let both = gateway.caller("shares:read audit:read");
    for path in ["/images", "/audit/events"] {
        for limit in [
            "0",
            "007",
            "+7",
            "-1",
            "1e1",
            "7.0",
            "101x",
            "99999999999999999999",
        ] {
            let limit = limit.replace('+', "%2B");
            let answer = both.get(&format!("{path}?limit={limit}")).await;
            let problem = answer.assert_problem(400, "invalid-request");
            assert_eq!(problem["errors"][0]["name"], "limit", "{path} {limit}");
        }
        assert_ne!(
            both.get(&format!("{path}?limit=7")).await.status,
            400,
            "{path}"
        );
    }
    for path in ["/audit/events", "/audit/summary"] {
        for (from, to) in [
            ("2026-02-01T00:00:00Z", "2026-01-01T00:00:00Z"),
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ] {
            let answer = both.get(&format!("{path}?from={from}&to={to}")).await;
            let problem = answer.assert_problem(400, "invalid-request");
            assert_eq!(problem["errors"][0]["name"], "from", "{path}");
        }
        let plus = format!("{path}?from=2026-01-01T00:00:00+08:00");
        let problem = both.get(&plus).await.assert_problem(400, "invalid-request");
        let detail = problem["errors"][0]["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("%2B"), "{detail}");
    }
}

/// Characters that end a line for some reader, or that a terminal obeys.
const NASTY: &str = "a\u{85}b\u{2028}c\u{2029}d\u{9b}31me\u{7f}";

#[tokio::test(flavor = "multi_thread")]
async fn one_record_is_one_line_for_every_reader() {
    let (_upstream, gateway) = started().await;
    for account in [7, 8] {
        let path = format!("/images/img/shares/{account}");
        let request = gateway.sharer().request("PUT", &path);
        let request = request.header(
            "User-Agent",
            reqwest::header::HeaderValue::from_bytes(NASTY.replace('\u{7f}', "").as_bytes())
                .unwrap(),
        );
        assert_eq!(Answer::of(request).await.status, 200);
    }
    for (path, accept, records) in [
        ("/audit/events", "application/x-ndjson", 2),
        ("/audit/entries", "application/x-ndjson", 4),
        ("/audit/entries", "text/event-stream", 4),
    ] {
        let request = gateway
            .auditor()
            .request("GET", path)
            .header("Accept", accept);
        let text = Answer::of(request).await.body;
        assert!(
            text.contains("\\u2028") && text.contains("\\u0085"),
            "{text}"
        );
        let count = "import sys, json\n\
            lines = [l.removeprefix('data: ') for l in sys.stdin.buffer.read().decode().splitlines()]\n\
            records = [json.loads(l) for l in lines if l.startswith('{')]\n\
            assert all('\\u2028' in r['user_agent'] for r in records if r.get('kind') != 'outcome')\n\
            print(len(records), all(l == '' or l[0] == '{' or l.startswith(('id: ', 'event: ')) for l in lines))";
        let counted = counted(count, &text);
        assert_eq!(counted.trim(), format!("{records} True"), "{path} {accept}");
    }
}

/// What a program in Python prints that reads `text`.
fn counted(program: &str, text: &str) -> String {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut child = Command::new(python())
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_opens_in_a_spreadsheet_as_text_and_in_the_right_letters() {
    let (_upstream, gateway) = started().await;
    for (account, reason) in [
        (7, "\u{ff1d}1+1"),
        (8, "\u{3000}=1+1"),
        (9, " \u{ff20}x"),
        (10, "1+1"),
    ] {
        let body = json!({"reason": reason}).to_string();
        let path = format!("/images/img/shares/{account}");
        assert_eq!(send(&gateway, "PUT", &path, &body).await.status, 200);
    }
    let get = async |path: &str, accept: &str| {
        let request = gateway.auditor().request("GET", path);
        Answer::of(request.header("Accept", accept)).await
    };
    let marked = get("/audit/events?bom=true&order=asc", "text/csv").await;
    let text = marked
        .body
        .strip_prefix('\u{feff}')
        .expect("a byte order mark");
    assert!(text.starts_with("id,"));
    let mut rows = csv::Reader::from_reader(text.as_bytes());
    let column = rows
        .headers()
        .unwrap()
        .iter()
        .position(|name| name == "reason")
        .unwrap();
    let reasons: Vec<String> = rows
        .records()
        .map(|row| row.unwrap()[column].to_owned())
        .collect();
    assert_eq!(
        reasons,
        ["'\u{ff1d}1+1", "'\u{3000}=1+1", "' \u{ff20}x", "1+1"]
    );
    let plain = get("/audit/events?order=asc", "text/csv").await;
    assert_eq!(plain.body, text);
    for (accept, bom) in [
        ("application/json", "true"),
        ("application/x-ndjson", "true"),
        ("text/csv", "1"),
    ] {
        let answer = get(&format!("/audit/events?bom={bom}"), accept).await;
        let problem = answer.assert_problem(400, "invalid-request");
        assert_eq!(problem["errors"][0]["name"], "bom");
    }
    let exported = crate::support::binary()
        .args([
            "audit",
            "export",
            "--format",
            "csv",
            "--bom",
            "--database-url",
        ])
        .arg(format!("sqlite://{}", gateway.database().display()))
        .output()
        .unwrap();
    assert!(exported.stdout.starts_with("\u{feff}id,".as_bytes()));
    let refused = crate::support::binary()
        .args(["audit", "export", "--bom"])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn swagger_ui_comes_as_its_browser_takes_it_and_once() {
    let gateway = Gateway::in_front_of("http://127.0.0.1:9", &[]).await;
    let bundle = "/swagger-ui/swagger-ui-bundle.js";
    let get = async |path: &str, headers: &[(&str, &str)]| {
        let mut request = gateway.nobody().request("GET", path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let header = |name: &str| {
            response
                .headers()
                .get(name)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        let (status, encoding) = (response.status().as_u16(), header("content-encoding"));
        let (tag, vary, cache) = (header("etag"), header("vary"), header("cache-control"));
        assert!(vary.unwrap().contains("Accept-Encoding"));
        assert!(!cache.unwrap().contains("no-store"));
        (
            status,
            encoding,
            tag.unwrap(),
            response.bytes().await.unwrap(),
        )
    };
    let (_, plain_encoding, plain_tag, plain) = get(bundle, &[]).await;
    assert_eq!(
        plain_encoding, None,
        "a client that says nothing may not know gzip"
    );
    assert!(String::from_utf8_lossy(&plain[..200]).is_ascii());
    let (_, encoding, tag, packed) = get(bundle, &[("Accept-Encoding", "br, gzip")]).await;
    assert_eq!(encoding.as_deref(), Some("gzip"));
    assert!(packed.len() * 2 < plain.len() && tag != plain_tag);
    for refusing in ["identity", "gzip;q=0", "br", "gzip;q=0, *"] {
        let (_, encoding, _, body) = get(bundle, &[("Accept-Encoding", refusing)]).await;
        assert_eq!((encoding, body.len()), (None, plain.len()), "{refusing}");
    }
    for (accept, known) in [("gzip", &tag), ("identity", &plain_tag)] {
        let weak = format!("\"other\", W/{known}");
        for tags in [known.as_str(), &weak, "*"] {
            let (status, _, _, body) = get(
                bundle,
                &[("Accept-Encoding", accept), ("If-None-Match", tags)],
            )
            .await;
            assert_eq!((status, body.len()), (304, 0), "{tags}");
        }
    }
    let (status, ..) = get("/swagger-ui/", &[("If-None-Match", "\"another\"")]).await;
    assert_eq!(status, 200);
}

/// A walk over every route that the document tells of, and every method, with what is odd.
#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_whatever_is_odd_and_nothing_is_forwarded_or_written() {
    let (upstream, gateway) = started().await;
    let document = gateway.nobody().get("/openapi.json").await.json();
    let address = gateway.base_url.strip_prefix("http://").unwrap().to_owned();
    let bearer = token("team-a", "shares:read shares:write audit:read");
    let queries = [
        "x=1",
        "region=nowhere",
        "limit=007",
        "reason=%E2%80%8B",
        "reason=%E2%80%AEx",
        "a=%FF",
        &"x=1&".repeat(5000),
    ];
    let bodies: [(&str, &[u8]); 7] = [
        (
            "application/json",
            b"{\"account_id\": 12345.5, \"add\": [1e400], \"accounts\": \"7\"}",
        ),
        (
            "application/json",
            b"{\"reason\": \"\xe2\x80\xae\", \"colour\": 1}",
        ),
        ("application/json", b"{\"reason\": \"\xff\"}"),
        ("application/json", b"\xef\xbb\xbf{}"),
        ("application/json", b"[]"),
        ("text/plain", b"hello"),
        ("", b"{}"),
    ];
    let headers = [
        "Upgrade: websocket\r\nConnection: upgrade",
        "Accept: text/html",
        "Last-Event-ID: \u{e9}",
        "Prefer: wait=soon",
        "Authorization: Bearer x",
    ];
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let known = ["get", "put", "delete", "patch"];
        let methods = known.into_iter().filter(|method| !item[method].is_null());
        for method in methods.chain(["post", "options"]) {
            let real = path
                .replace("{image_id}", "img")
                .replace("{account_id}", "7")
                .replace("{id}", "x");
            let mut cases = Vec::new();
            for query in queries {
                cases.push((format!("{real}?{query}"), String::new(), Vec::new()));
            }
            for (kind, body) in bodies {
                let mut head = format!("Content-Length: {}\r\n", body.len());
                if !kind.is_empty() {
                    head = format!("{head}Content-Type: {kind}\r\n");
                }
                cases.push((format!("{real}?x=1"), head, body.to_vec()));
            }
            for header in headers {
                cases.push((format!("{real}?x=1"), format!("{header}\r\n"), Vec::new()));
            }
            for (target, head, body) in cases {
                // A POST without a length is no request of HTTP/1.0.
                let older = asked % 7 == 0 && method != "post";
                let version = if older { "1.0" } else { "1.1" };
                let request = format!(
                    "{} {target} HTTP/{version}\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {bearer}\r\n{head}\r\n",
                    method.to_uppercase()
                );
                let answer = raw(&address, request.into_bytes(), &body).await;
                asked += 1;
                let about = format!("{method} {} {head}", &target[..target.len().min(80)]);
                let (first, rest) = answer.split_once("\r\n").expect(&about);
                let status: u16 = first.split(' ').nth(1).unwrap().parse().unwrap();
                assert!(
                    (200..500).contains(&status) || status == 505,
                    "{about}: {answer}"
                );
                let changes = ["put", "delete", "patch"].contains(&method);
                assert!(!changes || status >= 400, "{about}: {answer}");
                let (head, body) = rest.split_once("\r\n\r\n").unwrap();
                assert!(head.to_lowercase().contains("x-request-id"), "{about}");
                assert!(
                    body.len() < 64 * 1024 || status == 200,
                    "{about}: {} bytes",
                    body.len()
                );
                if status >= 400 {
                    let problem: Value =
                        serde_json::from_str(body).unwrap_or_else(|_| panic!("{about}: {answer}"));
                    assert_eq!(problem["status"], status, "{about}");
                }
            }
        }
    }
    assert!(asked > 200, "{asked}");
    assert_eq!(upstream.calls(), [], "nothing was forwarded");
    assert_eq!(
        gateway.events().await,
        Vec::<Value>::new(),
        "nothing was written"
    );
    eventually("and it serves on", async || {
        (gateway.sharer().put("/images/img/shares/7").await.status == 200).then_some(())
    })
    .await;
}

async fn raw(address: &str, mut request: Vec<u8>, body: &[u8]) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    request.extend_from_slice(body);
    // It may answer and close before everything is written.
    let _ = stream.write_all(&request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

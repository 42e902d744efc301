//! Behind a real HAProxy and a real nginx: prefixes, addresses, and restarts that nobody notices.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;

use crate::browser::drive;
use crate::support::{
    Answer, Gateway, PROGRAM_PRIVATE_KEY, PROGRAM_PUBLIC_KEY, Program, Proxy, Reply, Scripted,
    binary, client, environment, eventually, free_port, keys_file, rounds, token,
};

/// HAProxy as Debian ships its defaults, before the gateway at `address`; with `more` in its front.
fn plain_haproxy(address: &str, more: &str) -> String {
    format!(
        "defaults\n mode http\n timeout connect 5000\n timeout client 50000\n timeout server 50000\n\
         frontend f\n bind 127.0.0.1:PORT\n{more}\n default_backend b\n\
         backend b\n server s {address}\n"
    )
}

/// The proxies, each with the prefix under which it serves the gateway.
async fn proxies(address: &str) -> Vec<(&'static str, &'static str, Proxy)> {
    let nginx = |location: &str, pass: &str| {
        format!("server {{ listen 127.0.0.1:PORT; location {location} {{ proxy_pass {pass}; }} }}")
    };
    let whole = nginx("/", &format!("http://{address}"));
    let stripped = nginx("/images-api/", &format!("http://{address}/"));
    let strips = " http-request replace-path /images-api/(.*) /\\1";
    vec![
        ("nginx", "", Proxy::nginx(&whole).await),
        ("nginx", "/images-api", Proxy::nginx(&stripped).await),
        (
            "HAProxy",
            "",
            Proxy::haproxy(&plain_haproxy(address, "")).await,
        ),
        (
            "HAProxy",
            "/images-api",
            Proxy::haproxy(&plain_haproxy(address, strips)).await,
        ),
    ]
}

fn address_of(url: &str) -> &str {
    url.strip_prefix("http://").unwrap()
}

fn get(url: &str) -> reqwest::RequestBuilder {
    client()
        .get(url)
        .bearer_auth(token("team-a", "shares:read shares:write audit:read"))
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_pages_and_lists_work_behind_proxies_as_they_come_with_a_prefix_or_without() {
    let gateway = Gateway::spawn().await;
    for (name, prefix, proxy) in proxies(address_of(&gateway.base_url)).await {
        let base = format!("{}{prefix}", proxy.url);
        let about = format!("{name} {prefix}");
        for account in 1..=3 {
            let put = client().put(format!("{base}/images/img/shares/{account}"));
            let put = Answer::of(put.bearer_auth(token("team-a", "shares:write"))).await;
            assert_eq!(put.status, 200, "{about}: {put:?}");
        }
        // Pages follow one another by the link as any client resolves it.
        let mut url: url::Url = format!("{base}/audit/events?limit=2").parse().unwrap();
        let mut pages = 0;
        loop {
            let page = Answer::of(get(url.as_str())).await;
            assert_eq!(page.status, 200, "{about} {url}: {page:?}");
            pages += 1;
            let Some(link) = page.header("link") else {
                break;
            };
            let target = link.split(['<', '>']).nth(1).unwrap();
            url = url.join(target).unwrap();
        }
        assert!(pages >= 2, "{about}");
        // The root leads to Swagger UI, which finds its document, which says where the API is.
        let page = client().get(format!("{base}/")).send().await.unwrap();
        assert_eq!(
            (page.status().as_u16(), page.url().path()),
            (200, &*format!("{prefix}/swagger-ui/")),
            "{about}"
        );
        let document = Answer::of(get(&format!("{base}/openapi.json")))
            .await
            .json();
        let at: url::Url = format!("{base}/openapi.json").parse().unwrap();
        let server = at
            .join(document["servers"][0]["url"].as_str().unwrap())
            .unwrap();
        assert_eq!(server.as_str().trim_end_matches('/'), base, "{about}");
        // A stream over nginx' HTTP/1.0 could not be told from a part of it.
        let export = get(&format!("{base}/audit/events")).header("Accept", "application/x-ndjson");
        let export = Answer::of(export).await;
        assert_eq!(
            export.status,
            if name == "nginx" { 505 } else { 200 },
            "{about}"
        );
        let refused = Answer::of(client().get(format!("{base}/images"))).await;
        refused.assert_problem(401, "unauthenticated");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn swagger_ui_works_in_a_browser_below_a_prefix() {
    let gateway = Gateway::spawn().await;
    let address = address_of(&gateway.base_url);
    let proxy = Proxy::nginx(&format!(
        "server {{ listen 127.0.0.1:PORT; location /images-api/ {{ proxy_pass http://{address}/; }} }}"
    ))
    .await;
    let screenshot = gateway.directory.path().join("page.png");
    let token = gateway.sharer().token.unwrap();
    let arguments = [
        "--base-url",
        &format!("{}/images-api", proxy.url),
        "--token",
        &token,
        "--screenshot",
        screenshot.to_str().unwrap(),
    ];
    drive("swagger_ui", &arguments).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_public_url_links_are_whole() {
    let upstream = Scripted::start(|_| Reply::Done).await;
    let public = [(
        "server.public_url",
        "https://gateway.example.com/images-api/",
    )];
    let gateway = Gateway::in_front_of(&upstream.url, &public).await;
    for account in 1..=2 {
        gateway
            .sharer()
            .put(&format!("/images/img/shares/{account}"))
            .await;
    }
    let base = "https://gateway.example.com/images-api";
    let page = gateway.auditor().get("/audit/events?limit=1").await;
    let link = page.header("link").unwrap();
    assert!(
        link.starts_with(&format!("<{base}/audit/events?limit=1&cursor=")),
        "{link}"
    );
    let images = gateway.caller("shares:read").get("/images?limit=1").await;
    assert!(
        images
            .header("link")
            .unwrap()
            .starts_with(&format!("<{base}/images?"))
    );
    let root = gateway.nobody().get("/").await;
    assert_eq!(
        root.header("location"),
        Some(&*format!("{base}/swagger-ui/"))
    );
    let document = gateway.nobody().get("/openapi.json").await.json();
    assert_eq!(document["servers"], serde_json::json!([{"url": base}]));
}

/// What is shipped for nginx, with where things are in place of where they commonly are.
#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_nginx_configuration_streams_and_says_where_callers_come_from() {
    let upstream = Scripted::start(|_| Reply::Done).await;
    let gateway =
        Gateway::in_front_of(&upstream.url, &[("server.trusted_proxies", "127.0.0.1/32")]).await;
    let shipped = include_str!("../../deploy/nginx/gateway.conf");
    let address = address_of(&gateway.base_url);
    let proxy = Proxy::nginx(
        &shipped
            .replace("listen 8443", "listen 127.0.0.1:PORT")
            .replace("127.0.0.1:8080", address),
    )
    .await;
    let base = format!("{}/images-api", proxy.url);
    let put = client().put(format!("{base}/images/img/shares/1"));
    let put = put
        .bearer_auth(token("team-a", "shares:write"))
        .header("X-Forwarded-For", "203.0.113.7, 127.0.0.1");
    assert_eq!(Answer::of(put).await.status, 200);
    assert_eq!(gateway.only_event().await["client_ip"], "203.0.113.7");
    let export = get(&format!("{base}/audit/events")).header("Accept", "application/x-ndjson");
    let export = Answer::of(export).await;
    assert_eq!((export.status, export.body.lines().count()), (200, 1));
}

/// What is shipped for Envoy and Traefik: where callers come from, pages by their links, and a stream as it is written.
#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_configurations_of_envoy_and_traefik_do_what_proxies_have_to() {
    let upstream = Scripted::start(|_| Reply::Done).await;
    for name in ["envoy", "traefik"] {
        let trusted = [("server.trusted_proxies", "127.0.0.1/32")];
        let gateway = Gateway::in_front_of(&upstream.url, &trusted).await;
        let address = address_of(&gateway.base_url);
        let proxy = if name == "envoy" {
            Proxy::envoy(include_str!("../../deploy/envoy/envoy.yaml"), address).await
        } else {
            let route = include_str!("../../deploy/traefik/gateway.yaml");
            Proxy::traefik(
                include_str!("../../deploy/traefik/traefik.yaml"),
                route,
                address,
            )
            .await
        };
        let base = format!("{}/images-api", proxy.url);
        let change = |account: u32| {
            let put = client().put(format!("{base}/images/img/shares/{account}"));
            put.bearer_auth(token("team-a", "shares:write"))
        };
        // Until it knows its route: it listens before.
        eventually("the route is there", async || {
            let answer = change(1).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
        let named = change(2).header("X-Request-Id", "kept-as-it-is");
        assert_eq!(
            Answer::of(named).await.header("x-request-id"),
            Some("kept-as-it-is"),
            "{name}"
        );
        // It is the proxy that says where callers come from, and nobody else: for loopback Envoy says an address of its host.
        let forged = change(2).header("X-Forwarded-For", "203.0.113.7");
        assert_eq!(Answer::of(forged).await.status, 200);
        for event in gateway.events().await {
            let address = event["client_ip"].as_str().unwrap();
            assert_ne!(address, "203.0.113.7", "{name}");
            assert!(
                name == "envoy" || address == "127.0.0.1",
                "{name}: {address}"
            );
        }
        let first = Answer::of(get(&format!("{base}/audit/events?limit=1"))).await;
        let link = first.header("link").unwrap();
        let next = link.strip_prefix('<').unwrap().split('>').next().unwrap();
        let at: url::Url = format!("{base}/audit/events?limit=1").parse().unwrap();
        let second = Answer::of(get(at.join(next).unwrap().as_str())).await;
        assert_eq!(
            second.json()["events"].as_array().unwrap().len(),
            1,
            "{name}"
        );
        // A row comes while the stream goes on.
        let follow = get(&format!("{base}/audit/entries?follow=true&tail=0"));
        let mut stream = follow.send().await.unwrap();
        assert_eq!(change(3).send().await.unwrap().status(), 200, "{name}");
        let row = stream.chunk().await.unwrap().unwrap();
        assert!(
            String::from_utf8_lossy(&row).contains("\"account_id\":3"),
            "{name}"
        );
    }
}

/// Callers that keep their connections and ask without a pause, behind what is shipped for HAProxy, while the gateway is
/// stopped and started again and again; a hundred times where `ISG_TEST_FULL` is set.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn restarts_under_load_fail_no_request() {
    const CALLERS: usize = 8;
    let restarts = rounds(20, 100);
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    let mut sandbox = binary();
    sandbox.args([
        "sandbox",
        "--public-key",
        PROGRAM_PUBLIC_KEY,
        "--private-key",
        PROGRAM_PRIVATE_KEY,
    ]);
    let sandbox = Program::started(sandbox, directory.path(), &[], &[]);
    let upstream = sandbox.line(|line| line.starts_with("http://"));
    let address = format!("127.0.0.1:{}", free_port());
    let mut settings = environment(&upstream);
    settings.retain(|(name, _)| *name != "ISG__SERVER__BIND");
    settings.extend([
        ("ISG__SERVER__BIND", address.as_str()),
        ("ISG__SERVER__DRAIN_DELAY", "100ms"),
    ]);
    let start = || Program::spawn(directory.path(), &["serve"], &settings);
    let mut gateway = start();
    gateway.base_url().await;
    let shipped = include_str!("../../deploy/haproxy/haproxy.cfg");
    let proxy = Proxy::haproxy(
        &shipped
            .replace(":8443", "127.0.0.1:PORT")
            .replace("127.0.0.1:8080", &address),
    )
    .await;

    let (stop, answered) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            let url = proxy.url.clone();
            let bearer = token(&format!("team-{caller}"), "shares:write shares:read");
            spawn(async move {
                let client = client();
                let mut failed = Vec::new();
                for number in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let path = format!("{url}/images/img-{caller}/shares/{}", number % 50 + 1);
                    let request = if number % 2 == 0 {
                        client.put(path)
                    } else {
                        client.delete(path)
                    };
                    match request.bearer_auth(&bearer).send().await {
                        Ok(answer) if answer.status().is_success() => {
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(answer) => {
                            failed.push(format!("{} {:?}", answer.status(), answer.text().await));
                        }
                        Err(error) => failed.push(format!("{error:?}")),
                    }
                }
                failed
            })
        })
        .collect();
    for _ in 0..restarts {
        // Some requests go through each of them.
        let before = answered.load(Ordering::Relaxed);
        eventually("requests are answered", async || {
            (answered.load(Ordering::Relaxed) >= before + 2 * CALLERS).then_some(())
        })
        .await;
        gateway.signal(Signal::TERM);
        assert_eq!(gateway.wait().await, Some(0), "{}", gateway.log());
        gateway = start();
    }
    stop.store(true, Ordering::Relaxed);
    let mut failed = Vec::new();
    for caller in callers {
        failed.extend(caller.await.unwrap());
    }
    let answered = answered.load(Ordering::Relaxed);
    assert!(answered >= 2 * CALLERS * restarts as usize, "{answered}");
    assert!(
        failed.is_empty(),
        "{} of {answered} failed: {:?}",
        failed.len(),
        &failed[..failed.len().min(5)]
    );
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait().await, Some(0));
    let report =
        image_share_gateway::audit::verify(Path::new(&directory.path().join("data/audit.db")), &[])
            .await;
    assert!(matches!(
        report.unwrap(),
        image_share_gateway::audit::Report::Intact(Some(_))
    ));
}

#[expect(
    clippy::disallowed_methods,
    reason = "callers that go on by themselves"
)]
fn spawn<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(work)
}

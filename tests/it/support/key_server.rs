//! Whoever serves keys, and misbehaves on demand.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// What a request for keys gets.
#[derive(Debug, Clone)]
pub(crate) enum KeyAnswer {
    /// HTTP 200 with this body, and this `Cache-Control`.
    Body(String, &'static str),
    /// HTTP 200 with this body behind these header lines, each with its end.
    With(String, Vec<u8>),
    /// The same for whoever's `Accept` names this media type; HTTP 406 for others.
    For(&'static str, Box<KeyAnswer>),
    /// The same once there is a permit.
    Held(Arc<Semaphore>, Box<KeyAnswer>),
    /// This status.
    Status(u16),
    /// A redirect to this URL.
    Redirect(String),
    /// The connection is closed without a word.
    Close,
    /// Nothing, ever.
    Hang,
    /// A byte now and then, for ever.
    Drip,
}

struct Shared {
    answer: Mutex<KeyAnswer>,
    /// What the discovery document says, where there is one.
    discovery: Mutex<Option<String>>,
    asked: AtomicUsize,
    heads: Mutex<Vec<String>>,
}

/// Serves a JWK Set at every path, and a discovery document at its own.
pub(crate) struct KeyServer {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

impl KeyServer {
    pub(crate) async fn start(answer: KeyAnswer) -> Self {
        Self::start_over(answer, None).await
    }

    /// Over TLS with this chain and key, in PEM, under the name `localhost`.
    pub(crate) async fn start_with_tls(answer: KeyAnswer, certificate: &str, key: &str) -> Self {
        use rustls::pki_types::pem::PemObject as _;
        let chain = rustls::pki_types::CertificateDer::from_pem_slice(certificate.as_bytes());
        let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes());
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![chain.unwrap()], key.unwrap())
            .unwrap();
        Self::start_over(answer, Some(Arc::new(config).into())).await
    }

    #[expect(clippy::disallowed_methods, reason = "the server ends with its test")]
    async fn start_over(answer: KeyAnswer, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = match &tls {
            None => format!("http://{}", listener.local_addr().unwrap()),
            Some(_) => format!(
                "https://localhost:{}",
                listener.local_addr().unwrap().port()
            ),
        };
        let shared = Arc::new(Shared {
            answer: Mutex::new(answer),
            discovery: Mutex::new(None),
            asked: AtomicUsize::new(0),
            heads: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, serving) = (tls.clone(), Arc::clone(&serving));
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, serving).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, serving).await;
                            }
                        }
                    }
                });
            }
        });
        Self { url, shared }
    }

    pub(crate) fn answers(&self, answer: KeyAnswer) {
        *self.shared.answer.lock().unwrap() = answer;
    }

    pub(crate) fn discovers(&self, document: String) {
        *self.shared.discovery.lock().unwrap() = Some(document);
    }

    /// What was asked, request line and headers of each request, in lower case.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().unwrap().clone()
    }

    /// How often keys were asked for.
    pub(crate) fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    shared.heads.lock().unwrap().push(head.clone());
    let discovering = head.contains("/.well-known/openid-configuration ");
    let answer = if discovering {
        let document = shared.discovery.lock().unwrap().clone();
        document.map_or(KeyAnswer::Status(404), |text| KeyAnswer::Body(text, ""))
    } else {
        shared.asked.fetch_add(1, Ordering::SeqCst);
        shared.answer.lock().unwrap().clone()
    };
    let answer = match answer {
        KeyAnswer::For(media_type, answer) => {
            if head.contains(media_type) {
                *answer
            } else {
                KeyAnswer::Status(406)
            }
        }
        KeyAnswer::Held(gate, answer) => {
            let Ok(permit) = gate.acquire().await else {
                return;
            };
            permit.forget();
            *answer
        }
        answer => answer,
    };
    let text = match answer {
        KeyAnswer::For(..) | KeyAnswer::Held(..) => unreachable!("one inside another"),
        KeyAnswer::With(headers, body) => {
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {length}\r\n\r\n");
            let _ = stream.write_all(&[head.into_bytes(), body].concat()).await;
            let _ = stream.shutdown().await;
            return;
        }
        KeyAnswer::Body(body, cache) => format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: {cache}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
        KeyAnswer::Status(status) => {
            format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n")
        }
        KeyAnswer::Redirect(to) => {
            format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
        }
        KeyAnswer::Close => return,
        KeyAnswer::Hang => {
            let _ = stream.read_u8().await;
            return;
        }
        KeyAnswer::Drip => {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).await;
            while stream.write_all(b" ").await.is_ok() {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
            return;
        }
    };
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}

//! Whoever serves keys, and misbehaves on demand.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What a request for keys gets.
#[derive(Debug, Clone)]
pub(crate) enum KeyAnswer {
    /// HTTP 200 with this body, and this `Cache-Control`.
    Body(String, &'static str),
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
}

/// Serves a JWK Set at every path, and a discovery document at its own.
pub(crate) struct KeyServer {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

impl KeyServer {
    #[expect(clippy::disallowed_methods, reason = "the server ends with its test")]
    pub(crate) async fn start(answer: KeyAnswer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            answer: Mutex::new(answer),
            discovery: Mutex::new(None),
            asked: AtomicUsize::new(0),
        });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&serving)));
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

    /// How often keys were asked for.
    pub(crate) fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let discovering = head.starts_with(b"GET /.well-known/openid-configuration ");
    let answer = if discovering {
        let document = shared.discovery.lock().unwrap().clone();
        document.map_or(KeyAnswer::Status(404), |text| KeyAnswer::Body(text, ""))
    } else {
        shared.asked.fetch_add(1, Ordering::SeqCst);
        shared.answer.lock().unwrap().clone()
    };
    let text = match answer {
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

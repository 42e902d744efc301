use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use url::form_urlencoded;

/// One call as the upstream got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) fields: BTreeMap<String, String>,
}

impl Call {
    pub(crate) fn action(&self) -> &str {
        &self.fields["Action"]
    }

    /// `+7` for an addition, `-7` for a removal, of the first of each list.
    pub(crate) fn change(&self) -> String {
        let first = |name: &str| self.fields.get(&format!("{name}.0"));
        match (first("AddAccounts"), first("RemoveAccounts")) {
            (Some(account), None) => format!("+{account}"),
            (None, Some(account)) => format!("-{account}"),
            other => format!("{other:?}"),
        }
    }
}

/// What a call gets.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// `RetCode` 0 and nothing invalid; an empty list for a look.
    Done,
    /// HTTP 200 with this body.
    Body(String),
    /// This status, with a body that is no answer.
    Status(u16),
    /// Exactly these bytes, then the connection is closed.
    RawThenClose(String),
    /// The connection is closed without a word.
    Close,
    /// `Done`, once [`Scripted::release`] was called for it.
    Held,
    /// Nothing, ever.
    Hang,
}

/// An upstream that does what a test tells it to.
pub(crate) struct Scripted {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    reply: Box<dyn Fn(&Call) -> Reply + Send + Sync>,
    calls: Mutex<Vec<Call>>,
    released: Semaphore,
}

impl Scripted {
    pub(crate) async fn start(reply: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            reply: Box::new(reply),
            calls: Mutex::default(),
            released: Semaphore::new(0),
        });
        let serving = Arc::clone(&shared);
        spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawn(serve(stream, Arc::clone(&serving)));
            }
        });
        Self { url, shared }
    }

    /// All calls so far, in the order in which they came.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap().clone()
    }

    /// Lets `count` held calls be answered.
    pub(crate) fn release(&self, count: usize) {
        self.shared.released.add_permits(count);
    }

    /// Waits until `count` calls have come.
    pub(crate) async fn wait_for_calls(&self, count: usize) {
        super::eventually("calls reach the upstream", async || {
            (self.calls().len() >= count).then_some(())
        })
        .await;
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's server ends with its runtime"
)]
fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(work));
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    while let Some(call) = read_call(&mut stream).await {
        shared.calls.lock().unwrap().push(call.clone());
        let text = match (shared.reply)(&call) {
            Reply::Done => answer(200, &done(&call)),
            Reply::Body(body) => answer(200, &body),
            Reply::Status(status) => answer(status, "<html>not an answer</html>"),
            Reply::RawThenClose(raw) => {
                let _ = stream.write_all(raw.as_bytes()).await;
                return;
            }
            Reply::Close => return,
            Reply::Held => {
                shared.released.acquire().await.unwrap().forget();
                answer(200, &done(&call))
            }
            Reply::Hang => std::future::pending().await,
        };
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn done(call: &Call) -> String {
    let list = if call.action().starts_with("Describe") {
        "AccountSet"
    } else {
        "InvalidAccounts"
    };
    format!(
        r#"{{"Action":"{}Response","RetCode":0,"{list}":[]}}"#,
        call.action()
    )
}

fn answer(status: u16, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} X\r\nX-UCLOUD-REQUEST-UUID: uuid-{status}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn read_call(stream: &mut TcpStream) -> Option<Call> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).to_ascii_lowercase();
    let length: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))?
        .trim()
        .parse()
        .ok()?;
    while bytes.len() < head_end + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let fields = form_urlencoded::parse(&bytes[head_end..head_end + length])
        .into_owned()
        .collect();
    Some(Call { fields })
}

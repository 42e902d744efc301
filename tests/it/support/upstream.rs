use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use url::form_urlencoded;

/// One call as the upstream got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) fields: BTreeMap<String, String>,
    /// Calls that came over the same connection before.
    pub(crate) before: usize,
}

impl Call {
    pub(crate) fn action(&self) -> &str {
        &self.fields["Action"]
    }

    /// Whether it changes something.
    pub(crate) fn changes(&self) -> bool {
        self.action().starts_with("Modify")
    }

    pub(crate) fn accounts(&self, list: &str) -> Vec<u64> {
        let accounts = (0..).map_while(|index| self.fields.get(&format!("{list}.{index}")));
        accounts.map(|account| account.parse().unwrap()).collect()
    }

    /// All that it adds and removes: `+7 +8 -9`.
    pub(crate) fn all_changes(&self) -> String {
        let signed = |sign: &str, list| {
            let accounts = self.accounts(list).into_iter();
            accounts
                .map(|account| format!("{sign}{account}"))
                .collect::<Vec<_>>()
        };
        [signed("+", "AddAccounts"), signed("-", "RemoveAccounts")]
            .concat()
            .join(" ")
    }

    fn image(&self) -> String {
        format!(
            "{} {}",
            self.fields["Region"], self.fields["CompShareImageId"]
        )
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
    /// Done as the service does it, with a list in memory: all or nothing, accounts from
    /// [`MISSING_ACCOUNTS`] up do not exist.
    Done,
    /// HTTP 200 with this body.
    Body(String),
    /// This status, with a body that is no answer.
    Status(u16),
    /// Exactly these bytes, then the connection is closed.
    RawThenClose(String),
    /// The connection is closed without a word.
    Close,
    /// The connection is reset without a word; done or not.
    Reset { done: bool },
    /// The other reply, so much later.
    Later(Duration, Box<Reply>),
    /// Nothing, ever; done as soon as [`Scripted::land`] is called.
    LandsLate,
    /// This status with `Retry-After` in seconds.
    StatusAfter(u16, u64),
    /// Done, and this is said.
    DoneBut(Box<Reply>),
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

/// A refusal as the service words it.
pub(crate) fn refusal(code: i64, message: &str) -> Reply {
    Reply::Body(format!(r#"{{"RetCode":{code},"Message":"{message}"}}"#))
}

struct Shared {
    reply: Box<dyn Fn(&Call) -> Reply + Send + Sync>,
    calls: Mutex<Vec<Call>>,
    released: Semaphore,
    landed: Semaphore,
    lists: Mutex<BTreeMap<String, BTreeSet<u64>>>,
}

/// From here up accounts do not exist.
pub(crate) const MISSING_ACCOUNTS: u64 = 9_000_000_000_000_000;

impl Scripted {
    pub(crate) async fn start(reply: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            reply: Box::new(reply),
            calls: Mutex::default(),
            released: Semaphore::new(0),
            landed: Semaphore::new(0),
            lists: Mutex::default(),
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

    /// The calls so far that change something, each as [`Call::all_changes`].
    pub(crate) fn changes(&self) -> Vec<String> {
        let calls = self.calls();
        calls
            .iter()
            .filter(|call| call.changes())
            .map(Call::all_changes)
            .collect()
    }

    /// Who has access to an image in the default region.
    pub(crate) fn list(&self, image: &str) -> Vec<u64> {
        let lists = self.shared.lists.lock().unwrap();
        lists
            .get(&format!("cn-wlcb {image}"))
            .into_iter()
            .flatten()
            .copied()
            .collect()
    }

    /// Somebody else shares an image.
    pub(crate) fn share(&self, image: &str, accounts: &[u64]) {
        let mut lists = self.shared.lists.lock().unwrap();
        lists
            .entry(format!("cn-wlcb {image}"))
            .or_default()
            .extend(accounts);
    }

    /// Lets `count` calls take effect that land late.
    pub(crate) fn land(&self, count: usize) {
        self.shared.landed.add_permits(count);
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
    let mut before = 0;
    while let Some(fields) = read_call(&mut stream).await {
        let call = Call { fields, before };
        before += 1;
        shared.calls.lock().unwrap().push(call.clone());
        let reply = (shared.reply)(&call);
        if !reply_to(&mut stream, &shared, &call, reply).await {
            return;
        }
    }
}

/// Returns whether the connection can serve another call.
async fn reply_to(stream: &mut TcpStream, shared: &Shared, call: &Call, mut reply: Reply) -> bool {
    let text = loop {
        match reply {
            Reply::Done => break answer(200, &shared.done(call)),
            Reply::Body(body) => break answer(200, &body),
            Reply::Status(status) => break answer(status, "<html>not an answer</html>"),
            Reply::StatusAfter(status, seconds) => {
                let head = format!("HTTP/1.1 {status} X\r\nRetry-After: {seconds}");
                break format!("{head}\r\nContent-Length: 0\r\n\r\n");
            }
            Reply::RawThenClose(raw) => {
                let _ = stream.write_all(raw.as_bytes()).await;
                return false;
            }
            Reply::Close => return false,
            Reply::Reset { done } => {
                if done {
                    shared.done(call);
                }
                let _ = stream.set_zero_linger();
                return false;
            }
            Reply::Held => {
                shared.released.acquire().await.unwrap().forget();
                break answer(200, &shared.done(call));
            }
            Reply::Hang => std::future::pending().await,
            Reply::LandsLate => {
                shared.landed.acquire().await.unwrap().forget();
                shared.done(call);
                std::future::pending::<()>().await;
            }
            Reply::Later(time, then) => {
                tokio::time::sleep(time).await;
                reply = *then;
            }
            Reply::DoneBut(then) => {
                shared.done(call);
                reply = *then;
            }
        }
    };
    stream.write_all(text.as_bytes()).await.is_ok()
}

impl Shared {
    fn done(&self, call: &Call) -> String {
        let mut lists = self.lists.lock().unwrap();
        let action = call.action();
        if action.ends_with("CustomImages") {
            return images(call);
        }
        let list = lists.entry(call.image()).or_default();
        if !call.changes() {
            let entries: Vec<String> = list
                .iter()
                .map(|account| format!(r#"{{"AccountId":"{account}"}}"#))
                .collect();
            let entries = entries.join(",");
            return format!(
                r#"{{"Action":"{action}Response","RetCode":0,"AccountSet":[{entries}]}}"#
            );
        }
        let (add, remove) = (
            call.accounts("AddAccounts"),
            call.accounts("RemoveAccounts"),
        );
        let missing: Vec<String> = add
            .iter()
            .chain(&remove)
            .filter(|account| **account >= MISSING_ACCOUNTS)
            .map(u64::to_string)
            .collect();
        if missing.is_empty() {
            list.extend(add);
            list.retain(|account| !remove.contains(account));
        }
        let missing = missing.join(",");
        format!(r#"{{"Action":"{action}Response","RetCode":0,"InvalidAccounts":[{missing}]}}"#)
    }
}

/// 250 images, or the one that is asked for.
fn images(call: &Call) -> String {
    let number = |name: &str| {
        call.fields
            .get(name)
            .map_or(0, |text| text.parse::<usize>().unwrap())
    };
    let asked = call.fields.get("CompShareImageId");
    let all: Vec<String> = match asked {
        Some(image) => vec![image.clone()],
        None => (0..250).map(|number| format!("img-{number}")).collect(),
    };
    let page = all
        .iter()
        .skip(number("Offset"))
        .take(number("Limit").max(1));
    let page: Vec<String> = page
        .map(|image| format!(r#"{{"CompShareImageId":"{image}"}}"#))
        .collect();
    format!(
        r#"{{"Action":"DescribeCompShareCustomImagesResponse","RetCode":0,"ImageSet":[{}],"TotalCount":{}}}"#,
        page.join(","),
        all.len()
    )
}

fn answer(status: u16, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} X\r\nX-UCLOUD-REQUEST-UUID: uuid-{status}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn read_call(stream: &mut TcpStream) -> Option<BTreeMap<String, String>> {
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
    let fields = form_urlencoded::parse(&bytes[head_end..head_end + length]);
    Some(fields.into_owned().collect())
}

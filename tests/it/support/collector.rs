use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

impl Drop for Collector {
    fn drop(&mut self) {
        super::keep("traces", &self.everything());
    }
}

/// What a collector does with spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Collecting {
    /// Takes them.
    Takes,
    /// Reads them and never answers.
    Hangs,
    /// Refuses them.
    Refuses,
}

/// A collector of OTLP over HTTP in protobuf.
pub(crate) struct Collector {
    pub(crate) url: String,
    taken: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

impl Collector {
    pub(crate) async fn start(collecting: Collecting) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let taken: Arc<Mutex<Vec<ExportTraceServiceRequest>>> = Arc::default();
        let taking = Arc::clone(&taken);
        spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let taken = Arc::clone(&taking);
                spawn(async move { serve(stream, collecting, &taken).await });
            }
        });
        Self { url, taken }
    }

    /// All spans that came.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let taken = self.taken.lock().unwrap();
        let resources = taken.iter().flat_map(|request| &request.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// What the spans say that they are of.
    pub(crate) fn services(&self) -> Vec<String> {
        let taken = self.taken.lock().unwrap();
        let resources = taken.iter().flat_map(|request| &request.resource_spans);
        let attributes = resources.flat_map(|spans| spans.resource.clone().unwrap().attributes);
        let names = attributes.filter(|attribute| attribute.key == "service.name");
        names.map(|attribute| text(&attribute)).collect()
    }

    /// Everything that came, as text to search.
    pub(crate) fn everything(&self) -> String {
        format!("{:?}", self.taken.lock().unwrap())
    }
}

fn text(attribute: &KeyValue) -> String {
    match attribute.value.clone().unwrap().value.unwrap() {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}

/// An attribute of a span, as text.
pub(crate) fn attribute(span: &Span, name: &str) -> Option<String> {
    let mut attributes = span.attributes.iter();
    attributes.find(|attribute| attribute.key == name).map(text)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's server ends with its runtime"
)]
fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(work));
}

async fn serve(
    stream: TcpStream,
    collecting: Collecting,
    taken: &Mutex<Vec<ExportTraceServiceRequest>>,
) {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut length, mut first, mut line) = (0, String::new(), String::new());
        loop {
            line.clear();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            if first.is_empty() {
                first.clone_from(&line);
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if let Some(value) = lower.strip_prefix("content-type:") {
                assert_eq!(value.trim(), "application/x-protobuf");
            }
            if line == "\r\n" {
                break;
            }
        }
        assert!(first.starts_with("POST /v1/traces "), "{first}");
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let status = match collecting {
            Collecting::Hangs => return std::future::pending().await,
            Collecting::Refuses => "400 Bad Request",
            Collecting::Takes => {
                let request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
                taken.lock().unwrap().push(request);
                "200 OK"
            }
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"
        );
        if stream.write_all(head.as_bytes()).await.is_err() {
            return;
        }
    }
}

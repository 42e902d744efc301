//! Spans on their way to a collector: OTLP over HTTP, in protobuf, by a thread of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, Span, SpanData,
    SpanExporter as ExportSpans, SpanProcessor,
};
use percent_encoding::percent_decode_str;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::config::TraceSettings;
use crate::telemetry::Metrics;

use super::SERVICE_NAME;

/// Spans that wait for the collector; at about a kilobyte each.
const SPANS_WAITING_MAX: usize = 4096;
/// How often they are sent.
const SEND_INTERVAL: Duration = Duration::from_secs(1);
/// The longest time of one export.
const EXPORT_TIME_MAX: Duration = Duration::from_secs(5);
/// What the last spans get at a stop.
const LAST_EXPORT_TIME: Duration = Duration::from_secs(2);

/// Traces cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// No HTTP client can be made.
    #[error("cannot make a client for telemetry.otlp_endpoint")]
    Client(#[source] reqwest::Error),
    /// No exporter can be made.
    #[error("cannot export to telemetry.otlp_endpoint")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
    /// No thread can be begun.
    #[error("cannot begin the thread that exports traces")]
    Thread,
}

/// The export, to be stopped.
#[derive(Debug)]
pub struct Exporting(SdkTracerProvider);

impl Exporting {
    pub(super) fn start(settings: &TraceSettings, metrics: Metrics) -> Result<Self, TraceError> {
        let exporter = exporter(settings)?;
        let waiting = Arc::new(AtomicUsize::new(0));
        let exporter = CountingExporter {
            exporter,
            waiting: Arc::clone(&waiting),
            metrics: metrics.clone(),
            failing: AtomicBool::new(false),
        };
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(SPANS_WAITING_MAX)
            .with_scheduled_delay(SEND_INTERVAL)
            .build();
        let batches = BatchSpanProcessor::builder(exporter)
            .with_batch_config(batches)
            .build();
        let begins_here = Sampler::TraceIdRatioBased(settings.sample_ratio);
        let resource = Resource::builder_empty().with_attributes([
            KeyValue::new("service.name", SERVICE_NAME),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ]);
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BoundedProcessor {
                batches,
                waiting,
                metrics,
            })
            .with_sampler(Sampler::ParentBased(Box::new(begins_here)))
            .with_resource(resource.build())
            .build();
        Ok(Self(provider))
    }

    pub(super) fn provider(&self) -> &SdkTracerProvider {
        &self.0
    }

    /// Sends what waits, for a moment at most: a collector that hangs keeps no stop waiting.
    pub async fn stop(self) {
        let (done, ended) = oneshot::channel();
        // A thread of the runtime would be waited for when that ends.
        let sending = std::thread::Builder::new().spawn(move || {
            let _ = self.0.shutdown_with_timeout(LAST_EXPORT_TIME);
            let _ = done.send(());
        });
        if sending.is_ok() {
            let _ = timeout(LAST_EXPORT_TIME, ended).await;
        }
    }
}

/// The blocking client has a runtime of its own, which must be neither made nor dropped on one of ours.
fn exporter(settings: &TraceSettings) -> Result<SpanExporter, TraceError> {
    let settings = settings.clone();
    let make = move || {
        let client = reqwest::blocking::Client::builder()
            .timeout(EXPORT_TIME_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        let client = match &settings.proxy {
            Some(proxy) => client.proxy(proxy.for_client().map_err(TraceError::Client)?),
            None => client,
        };
        let client = match settings.endpoint.scheme() {
            // No CA store is needed then.
            "http" => client.tls_certs_only([]),
            _ => client,
        };
        // Who asks goes into a header: of the URL libraries tell.
        let mut endpoint = settings.endpoint.clone();
        let mut headers = HashMap::new();
        if !endpoint.username().is_empty() || endpoint.password().is_some() {
            let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
            let user = decoded(endpoint.username());
            let password = decoded(endpoint.password().unwrap_or_default());
            let credentials = BASE64.encode(format!("{user}:{password}"));
            headers.insert("authorization".to_owned(), format!("Basic {credentials}"));
            // A URL of http has both.
            let _ = endpoint.set_username("");
            let _ = endpoint.set_password(None);
        }
        let base = endpoint.as_str().trim_end_matches('/');
        SpanExporter::builder()
            .with_http()
            .with_http_client(client.build().map_err(TraceError::Client)?)
            .with_headers(headers)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{base}/v1/traces"))
            .with_timeout(EXPORT_TIME_MAX)
            .build()
            .map_err(TraceError::Exporter)
    };
    let thread = std::thread::Builder::new().spawn(make);
    let thread = thread.map_err(|_| TraceError::Thread)?;
    thread.join().map_err(|_| TraceError::Thread)?
}

/// Takes as many spans as may wait; the rest is lost and counted.
#[derive(Debug)]
struct BoundedProcessor {
    batches: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
    metrics: Metrics,
}

impl SpanProcessor for BoundedProcessor {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        let room = self.waiting.fetch_add(1, Ordering::Relaxed) < SPANS_WAITING_MAX;
        if room {
            self.batches.on_end(span);
        } else {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.metrics.trace_spans_lost(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// Exports, and counts what is lost.
#[derive(Debug)]
struct CountingExporter {
    exporter: SpanExporter,
    waiting: Arc<AtomicUsize>,
    metrics: Metrics,
    failing: AtomicBool,
}

impl ExportSpans for CountingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let exported = self.exporter.export(batch).await;
        // Those that are being sent take room too.
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
        let failing = exported.is_err();
        if failing {
            self.metrics.trace_spans_lost(spans);
        }
        if self.failing.swap(failing, Ordering::Relaxed) != failing {
            // The error may hold the URL, and what that keeps secret.
            if failing {
                tracing::warn!(
                    "the collector of telemetry.otlp_endpoint takes no spans; they are lost"
                );
            } else {
                tracing::info!("the collector of telemetry.otlp_endpoint takes spans again");
            }
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

//! Traces: what a request was made of and how long each part took, for OpenTelemetry.
//!
//! Spans are made by OpenTelemetry's own API and handed to a thread that exports them; whoever ends one waits for
//! nothing, and where the collector is away or slow spans are lost and counted. Where traces are off, or a trace is not
//! kept, nothing is made at all.
//!
//! Within which span something happens goes along with the work: [`within`] says it, [`Tasks`](crate::tasks::Tasks)
//! hands it on to the work that it begins.

mod export;
mod within;

use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext as OtelContext, SpanId, SpanKind, Status,
    TraceContextExt as _, TraceFlags, TraceId, TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::{SdkTracer, Span as SdkSpan};

use crate::config::TraceSettings;
use crate::domain::SpanContext;

use super::Metrics;
pub use export::{Exporting, TraceError};
pub use within::{Within, current, within, within_now};

/// What the gateway's spans say that they are of (OpenTelemetry's `service.name`).
const SERVICE_NAME: &str = "image-share-gateway";

/// Makes spans, where traces are on. Clones make spans of the same traces.
#[derive(Debug, Clone, Default)]
pub struct Traces(Option<SdkTracer>);

/// A part of a trace. It ends when it is dropped. Boxed, since work that is not traced carries the place for it too.
#[derive(Debug, Default)]
pub struct Span(Option<Box<SdkSpan>>);

impl Traces {
    /// Begins to export, in a thread of its own; blocks while that begins.
    ///
    /// # Errors
    /// Where no client can be made.
    pub fn start(
        settings: &TraceSettings,
        metrics: Metrics,
    ) -> Result<(Self, Exporting), TraceError> {
        let exporting = Exporting::start(settings, metrics)?;
        let tracer = exporting.provider().tracer(SERVICE_NAME);
        Ok((Self(Some(tracer)), exporting))
    }

    /// Whether traces are on.
    #[must_use]
    pub fn are_on(&self) -> bool {
        self.0.is_some()
    }

    /// A request that came in, within the caller's span where it sent one. Gives where what it leads to happens, kept or
    /// not; nothing where traces are off.
    #[must_use]
    pub fn request(
        &self,
        method: &'static str,
        caller: Option<SpanContext>,
    ) -> Option<(Span, SpanContext)> {
        let tracer = self.0.as_ref()?;
        let parent = caller.map_or_else(Context::new, |caller| {
            Context::new().with_remote_span_context(to_otel(caller, true))
        });
        let builder = SpanBuilder::from_name(method).with_kind(SpanKind::Server);
        let span = tracer.build_with_context(builder, &parent);
        let context = of_otel(span.span_context());
        Some((Span(span.is_recording().then(|| Box::new(span))), context))
    }

    /// A part of what is being done now; nothing where that is not traced.
    #[must_use]
    pub fn part(&self, name: &'static str) -> Span {
        self.make(name, SpanKind::Internal)
    }

    /// The same, in which somebody else is asked.
    #[must_use]
    pub fn call(&self, name: &'static str) -> Span {
        self.make(name, SpanKind::Client)
    }

    fn make(&self, name: &'static str, kind: SpanKind) -> Span {
        let Some((tracer, within)) = self.0.as_ref().zip(current()) else {
            return Span(None);
        };
        let parent = Context::new().with_remote_span_context(to_otel(within.parent, false));
        let linked = within.linked.iter();
        let links = linked.map(|context| Link::with_context(to_otel(*context, false)));
        let builder = SpanBuilder::from_name(name)
            .with_kind(kind)
            .with_links(links.collect());
        Span(Some(Box::new(tracer.build_with_context(builder, &parent))))
    }
}

impl Span {
    /// Whether anything that is set is kept.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Says more of it, by one of OpenTelemetry's names or a documented one.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new(name, value));
        }
    }

    /// Calls it otherwise.
    pub fn rename(&mut self, name: String) {
        if let Some(span) = &mut self.0 {
            span.update_name(name);
        }
    }

    /// It failed, with an error of this kind.
    pub fn fail(&mut self, kind: impl Into<Value>) {
        self.set("error.type", kind);
        if let Some(span) = &mut self.0 {
            span.set_status(Status::error(""));
        }
    }

    /// Ends it, as its drop does.
    pub fn end(self) {
        drop(self);
    }
}

fn to_otel(context: SpanContext, remote: bool) -> OtelContext {
    let flags = if context.sampled {
        TraceFlags::SAMPLED
    } else {
        TraceFlags::default()
    };
    OtelContext::new(
        TraceId::from(context.trace_id),
        SpanId::from(context.span_id),
        flags,
        remote,
        TraceState::default(),
    )
}

fn of_otel(context: &OtelContext) -> SpanContext {
    SpanContext {
        trace_id: u128::from_be_bytes(context.trace_id().to_bytes()),
        span_id: u64::from_be_bytes(context.span_id().to_bytes()),
        sampled: context.is_sampled(),
    }
}

//! Where in a trace something happens, as W3C Trace Context says it.

use std::fmt::Write as _;
use std::sync::Arc;

/// The id of a caller's trace, as W3C Trace Context gives it: 32 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceId(Arc<str>);

impl TraceId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A span that others can be within, or be linked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanContext {
    /// The trace.
    pub trace_id: u128,
    /// The span in it.
    pub span_id: u64,
    /// Whether the trace is kept.
    pub sampled: bool,
}

impl SpanContext {
    /// Reads a `traceparent` header; `None` where the header is not as the specification asks, which then counts as
    /// absent (section 3.2.2.5).
    #[must_use]
    pub fn from_traceparent(header: &str) -> Option<Self> {
        let mut parts = header.split('-');
        let (version, trace, parent, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let known = version != "ff" && (version != "00" || parts.next().is_none());
        hex(version, 2).filter(|_| known)?;
        let context = Self {
            trace_id: hex(trace, 32)?,
            span_id: u64::try_from(hex(parent, 16)?).ok()?,
            sampled: hex(flags, 2)? & 1 == 1,
        };
        (context.trace_id != 0 && context.span_id != 0).then_some(context)
    }

    /// The trace's id.
    #[must_use]
    pub fn trace_id(&self) -> TraceId {
        let mut text = String::with_capacity(32);
        // Writing to a String cannot fail.
        let _ = write!(text, "{:032x}", self.trace_id);
        TraceId(text.into())
    }
}

/// Lower-case hex digits, so many.
fn hex(text: &str, length: usize) -> Option<u128> {
    let digits = text
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (text.len() == length && digits).then(|| u128::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_as_the_specification_says() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let read = SpanContext::from_traceparent(good).expect("good");
        assert_eq!(read.trace_id().as_str(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((read.span_id, read.sampled), (0x00f0_67aa_0ba9_02b7, true));
        let unsampled = SpanContext::from_traceparent(&good.replace("-01", "-00"));
        assert_eq!(unsampled.map(|read| read.sampled), Some(false));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            assert_eq!(SpanContext::from_traceparent(bad), None, "{bad:?}");
        }
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
        assert!(
            SpanContext::from_traceparent(later).is_some(),
            "later versions may append fields"
        );
    }
}

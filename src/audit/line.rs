//! One record is one line, for every reader.
//!
//! JSON lets all but U+0000 to U+001F stand raw in a string. But Python's `splitlines`, httpx and others end a line at
//! U+0085, U+2028 and U+2029, and terminals obey U+0080 to U+009F. So whatever goes out line by line escapes them.

use std::io;

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

use crate::domain::write_on_one_line;

/// Appends `record` as JSON that is one line, without its end.
pub fn append_line(lines: &mut Vec<u8>, record: &impl Serialize) {
    let mut serializer = Serializer::with_formatter(lines, OneLine);
    // What is given here has text as its keys and no number that JSON lacks, and memory takes what is written.
    let _ = record.serialize(&mut serializer);
}

/// Compact, and without what ends a line for anybody.
struct OneLine;

impl Formatter for OneLine {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        write_on_one_line(writer, fragment)
    }

    fn write_raw_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        write_on_one_line(writer, fragment)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    fn line(record: &impl Serialize) -> String {
        let mut lines = Vec::new();
        append_line(&mut lines, record);
        String::from_utf8(lines).expect("text")
    }

    #[test]
    fn what_ends_a_line_for_anybody_is_escaped() {
        let text = "a\u{85}b\u{2028}\u{2029}\u{9b}31m\u{7f}é\n\"";
        assert_eq!(line(&text), r#""a\u0085b\u2028\u2029\u009b31m\u007fé\n\"""#);
        let raw = RawValue::from_string("[\"\u{2028}\"]".into()).expect("it is JSON");
        assert_eq!(line(&raw), r#"["\u2028"]"#);
    }

    proptest! {
        #[test]
        fn every_record_is_one_line_and_reads_back(texts in prop::collection::vec("\\PC*|[\u{0}-\u{a0}\u{2028}\u{2029}]{0,9}", 0..5)) {
            let line = line(&texts);
            let ends = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
            prop_assert!(!line.contains(ends), "{}", line.escape_debug());
            let read: Vec<String> = serde_json::from_str(&line).expect("it is JSON");
            prop_assert_eq!(read, texts);
        }
    }
}

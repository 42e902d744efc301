//! Text that is one line for every reader.

use std::io;

/// Whether it ends a line for some reader, or obeys in a terminal, although JSON lets it stand raw in a string: U+007F to
/// U+009F, U+2028 and U+2029. Python's `splitlines`, httpx and others end lines at some of them.
fn ends_lines(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}')
}

/// Writes what stands in a string of JSON so that it is one line for every reader, by the escapes of JSON.
///
/// # Errors
/// What `writer` says.
pub fn write_on_one_line<W: io::Write + ?Sized>(
    writer: &mut W,
    mut fragment: &str,
) -> io::Result<()> {
    while let Some(at) = fragment.find(ends_lines) {
        let (plain, rest) = fragment.split_at(at);
        writer.write_all(plain.as_bytes())?;
        let mut rest = rest.chars();
        if let Some(c) = rest.next() {
            write!(writer, "\\u{:04x}", u32::from(c))?;
        }
        fragment = rest.as_str();
    }
    writer.write_all(fragment.as_bytes())
}

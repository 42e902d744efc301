//! Requests that ask to speak another protocol from here on are answered as if they had not.
//!
//! A server may ignore `Upgrade` (RFC 9110, section 7.8), and clients send it without being told to: Java's
//! `HttpClient` offers `h2c` with its every plain request. Actix's codec cannot ignore it: `Connection: upgrade` makes
//! it end the connection with the answer, and `Upgrade: websocket` makes it take all that follows for a body without an
//! end. Neither can be taken back by a handler. So [`WithoutUpgrade`] reads along, before the codec does, and in heads it
//! writes another word over it, `upgradd`. Bodies pass as they are: it knows by the head how long each is (RFC 9112,
//! section 6). Should it be wrong about that the codec is not: a letter is all that it ever changes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What the last letter of the word becomes: it may come in two pieces, and then its first was passed on already.
const REWRITTEN: u8 = b'd';
const UPGRADE: &[u8] = b"upgrade";
/// Letters of the longest name that matters, and one more.
const NAME_BYTES: usize = "transfer-encoding".len() + 1;

/// A stream whose reader meets no upgrade.
#[derive(Debug)]
pub(super) struct WithoutUpgrade<S> {
    stream: S,
    rewriter: Rewriter,
}

impl<S> WithoutUpgrade<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            rewriter: Rewriter::default(),
        }
    }

    pub(super) fn stream(&self) -> &S {
        &self.stream
    }
}

/// Where the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// In a line of a head, before its first colon: so many bytes of it are known.
    Name,
    /// In what follows the name.
    Value(Field),
    /// In a body, so many bytes before its end.
    Body(u64),
    /// In the size of a chunk.
    ChunkSize(u64),
    /// Behind it, in an extension or the end of the line.
    AfterSize(u64),
    /// In a chunk, so many bytes before its end.
    Chunk(u64),
    /// In the line's end behind a chunk.
    AfterChunk,
    /// In a line behind the last chunk.
    Trailer { is_empty: bool },
}

/// A field of a head, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Other,
    /// How many letters of `upgrade` the present option has, `None` where it is another.
    Connection {
        matched: Option<usize>,
    },
    ContentLength,
    TransferEncoding,
}

/// Reads along and rewrites.
#[derive(Debug)]
struct Rewriter {
    position: Position,
    /// The name of the present field in lower case, as far as names that matter go.
    name: [u8; NAME_BYTES],
    named: usize,
    /// What the head says of the body.
    length: u64,
    is_chunked: bool,
}

impl Default for Rewriter {
    fn default() -> Self {
        Self {
            position: Position::Name,
            name: [0; NAME_BYTES],
            named: 0,
            length: 0,
            is_chunked: false,
        }
    }
}

impl Rewriter {
    fn rewrite(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            // What is no head passes in one go.
            if let Position::Body(left) | Position::Chunk(left) = self.position
                && left > 0
            {
                let passed = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                self.pass(passed as u64);
                bytes = &mut bytes[passed..];
            } else {
                let (first, rest) = bytes.split_at_mut(1);
                self.read(&mut first[0]);
                bytes = rest;
            }
        }
    }

    /// Passes bytes of a body or a chunk, at most all that are left of it.
    fn pass(&mut self, passed: u64) {
        self.position = match self.position {
            Position::Body(left) if left > passed => Position::Body(left - passed),
            Position::Body(_) => Position::Name,
            Position::Chunk(left) if left > passed => Position::Chunk(left - passed),
            Position::Chunk(_) => Position::AfterChunk,
            other => other,
        };
    }

    fn read(&mut self, byte: &mut u8) {
        self.position = match self.position {
            Position::Name => self.read_name(byte),
            Position::Value(_) if *byte == b'\n' => self.begin_line(),
            Position::Value(field) => Position::Value(self.read_value(field, byte)),
            Position::Body(_) => Position::Name,
            Position::ChunkSize(size) => match char::from(*byte).to_digit(16) {
                Some(digit) => {
                    Position::ChunkSize(size.saturating_mul(16).saturating_add(digit.into()))
                }
                None => after_size(size, *byte),
            },
            Position::AfterSize(size) => after_size(size, *byte),
            Position::Chunk(_) | Position::AfterChunk if *byte == b'\n' => Position::ChunkSize(0),
            Position::Chunk(_) | Position::AfterChunk => Position::AfterChunk,
            Position::Trailer { is_empty: true } if *byte == b'\n' => self.begin_head(),
            Position::Trailer { is_empty } => Position::Trailer {
                is_empty: *byte == b'\n' || (is_empty && *byte == b'\r'),
            },
        };
    }

    fn read_name(&mut self, byte: &mut u8) -> Position {
        match *byte {
            b'\r' if self.named == 0 => Position::Name,
            // An empty line ends the head; before one it says nothing.
            b'\n' if self.named == 0 => self.end_head(),
            b'\n' => self.begin_line(),
            b':' => Position::Value(match &self.name[..self.named] {
                b"connection" => Field::Connection { matched: Some(0) },
                b"content-length" => {
                    self.length = 0;
                    Field::ContentLength
                }
                b"transfer-encoding" => Field::TransferEncoding,
                _ => Field::Other,
            }),
            _ if self.named == NAME_BYTES => Position::Name,
            _ => {
                self.name[self.named] = byte.to_ascii_lowercase();
                self.named += 1;
                if self.name[..self.named] == *UPGRADE {
                    *byte = REWRITTEN;
                }
                Position::Name
            }
        }
    }

    fn read_value(&mut self, field: Field, byte: &mut u8) -> Field {
        match field {
            Field::Other => {}
            Field::ContentLength => {
                if let Some(digit) = char::from(*byte).to_digit(10) {
                    self.length = self.length.saturating_mul(10).saturating_add(digit.into());
                }
            }
            // Nothing but `chunked` and `identity` passes the codec.
            Field::TransferEncoding => self.is_chunked |= byte.eq_ignore_ascii_case(&b'k'),
            Field::Connection { matched } => {
                let matched = match (byte.to_ascii_lowercase(), matched) {
                    (b',', _) | (b' ' | b'\t', Some(0)) => Some(0),
                    (lower, Some(read)) if UPGRADE.get(read) == Some(&lower) => {
                        if read + 1 == UPGRADE.len() {
                            *byte = REWRITTEN;
                        }
                        Some(read + 1)
                    }
                    _ => None,
                };
                return Field::Connection { matched };
            }
        }
        field
    }

    fn begin_line(&mut self) -> Position {
        self.named = 0;
        Position::Name
    }

    fn begin_head(&mut self) -> Position {
        (self.length, self.is_chunked) = (0, false);
        self.begin_line()
    }

    fn end_head(&mut self) -> Position {
        let (length, is_chunked) = (self.length, self.is_chunked);
        let next = self.begin_head();
        match (is_chunked, length) {
            (true, _) => Position::ChunkSize(0),
            (false, 0) => next,
            (false, length) => Position::Body(length),
        }
    }
}

/// What follows a chunk's size: the chunk behind the end of the line, or the last of them.
fn after_size(size: u64, byte: u8) -> Position {
    match (byte, size) {
        (b'\n', 0) => Position::Trailer { is_empty: true },
        (b'\n', size) => Position::Chunk(size),
        _ => Position::AfterSize(size),
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WithoutUpgrade<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if matches!(read, Poll::Ready(Ok(()))) {
            self.rewriter.rewrite(&mut buffer.filled_mut()[before..]);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WithoutUpgrade<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the codec reads where `text` comes in pieces of this size.
    fn rewritten(text: &str, piece: usize) -> String {
        let mut bytes = text.as_bytes().to_vec();
        let mut rewriter = Rewriter::default();
        for piece in bytes.chunks_mut(piece) {
            rewriter.rewrite(piece);
        }
        String::from_utf8(bytes).expect("letters become letters")
    }

    #[test]
    fn upgrades_are_unreadable_and_nothing_else_is_touched() {
        for (text, expected) in [
            (
                "GET / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
                "GET / HTTP/1.1\r\nConnection: Upgradd, HTTP2-Settings\r\nUpgradd: h2c\r\n\r\n",
            ),
            (
                "GET / HTTP/1.1\nconnection:keep-alive,\tUPGRADE\nUPGRADE: websocket\n\n",
                "GET / HTTP/1.1\nconnection:keep-alive,\tUPGRADd\nUPGRADd: websocket\n\n",
            ),
            (
                "GET /upgrade HTTP/1.1\r\nX-Upgrade: upgrade\r\nConnections: upgrade\r\nConnection: not-upgrade\r\n\r\n",
                "GET /upgrade HTTP/1.1\r\nX-Upgrade: upgrade\r\nConnections: upgrade\r\nConnection: not-upgrade\r\n\r\n",
            ),
            // Bodies pass, of whatever length, and the next head does not.
            (
                "PUT / HTTP/1.1\r\nContent-Length: 19\r\n\r\n\nupgrade: websocket\nGET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n",
                "PUT / HTTP/1.1\r\nContent-Length: 19\r\n\r\n\nupgrade: websocket\nGET / HTTP/1.1\r\nUpgradd: h2c\r\n\r\n",
            ),
            (
                "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nUpgrade: h2c\r\n\r\n3\r\nabc\r\n0A;x=1\r\nupgrade: a\r\n7\r\nupgrade\r\n0\r\n\
                 X: y\r\n\r\nGET / HTTP/1.1\r\nupgrade: h2c\r\n\r\n",
                "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nUpgradd: h2c\r\n\r\n3\r\nabc\r\n0A;x=1\r\nupgrade: a\r\n7\r\nupgrade\r\n0\r\n\
                 X: y\r\n\r\nGET / HTTP/1.1\r\nupgradd: h2c\r\n\r\n",
            ),
        ] {
            for piece in 1..=text.len() {
                assert_eq!(rewritten(text, piece), expected, "in pieces of {piece}");
            }
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            words in prop::collection::vec("\r\n|\n|(?i)upgrade|(?i)connection|: ?|, ?|[a-z]{1,3}", 0..30),
            piece in 1_usize..9,
        ) {
            let text = words.concat();
            let whole = rewritten(&text, text.len().max(1));
            prop_assert_eq!(rewritten(&text, piece), whole.clone());
            for line in whole.lines() {
                let (name, value) = line.split_once(':').unwrap_or((line, ""));
                let is_first = whole.starts_with(line);
                prop_assert!(is_first || !name.eq_ignore_ascii_case("upgrade"));
                if !is_first && name.eq_ignore_ascii_case("connection") {
                    let options = value.split(',').map(str::trim);
                    prop_assert!(!options.clone().any(|option| option.eq_ignore_ascii_case("upgrade")), "{}", line);
                }
            }
        }
    }
}

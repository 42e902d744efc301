//! Requests that ask to speak another protocol from here on are answered as if they had not.
//!
//! A server may ignore `Upgrade` (RFC 9110, section 7.8), and clients send it without being told to: Java's
//! `HttpClient` offers `h2c` with its every plain request. Actix's codec cannot ignore it: `Connection: upgrade` makes
//! it end the connection with the answer, and `Upgrade: websocket` makes it take all that follows for a body without an
//! end. Neither can be taken back by a handler. So [`WithoutUpgrade`] reads along, before the codec does, and where a
//! line begins with one of these names it writes another word over it, `upgradd`. Only whole lines of heads can
//! be met: a body is JSON here, in which no line begins so.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What the last letter of the word becomes: it may come in two pieces, and then its first was passed on already.
const REWRITTEN: u8 = b'd';
const UPGRADE: &[u8] = b"upgrade";
const CONNECTION: &[u8] = b"connection";

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

/// Where in a line the next byte stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Position {
    /// In the middle of what does not matter.
    #[default]
    Elsewhere,
    /// In the name of a field, so many bytes of it read; which names it may still become.
    Name {
        read: usize,
        upgrade: bool,
        connection: bool,
    },
    /// In the value of `Connection`: how many bytes of `upgrade` the present option has, `None` where it is another.
    Options { matched: Option<usize> },
}

const LINE: Position = Position::Name {
    read: 0,
    upgrade: true,
    connection: true,
};

/// Reads along and rewrites.
#[derive(Debug, Default)]
struct Rewriter {
    place: Position,
}

impl Rewriter {
    fn rewrite(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.place = self.next(byte);
        }
    }

    fn next(&self, byte: &mut u8) -> Position {
        if *byte == b'\n' {
            return LINE;
        }
        let lower = byte.to_ascii_lowercase();
        match self.place {
            Position::Elsewhere => Position::Elsewhere,
            Position::Name {
                read,
                upgrade,
                connection,
            } => {
                if lower == b':' && connection && read == CONNECTION.len() {
                    return Position::Options { matched: Some(0) };
                }
                let upgrade = upgrade && UPGRADE.get(read) == Some(&lower);
                let connection = connection && CONNECTION.get(read) == Some(&lower);
                if upgrade && read + 1 == UPGRADE.len() {
                    *byte = REWRITTEN;
                }
                if upgrade || connection {
                    Position::Name {
                        read: read + 1,
                        upgrade,
                        connection,
                    }
                } else {
                    Position::Elsewhere
                }
            }
            Position::Options { matched } => Position::Options {
                matched: match (lower, matched) {
                    (b',', _) | (b' ' | b'\t', Some(0)) => Some(0),
                    (_, Some(read)) if UPGRADE.get(read) == Some(&lower) => {
                        if read + 1 == UPGRADE.len() {
                            *byte = REWRITTEN;
                        }
                        Some(read + 1)
                    }
                    _ => None,
                },
            },
        }
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
            (
                "{\"reason\": \"upgrade\",\n \"upgrade\": 1}",
                "{\"reason\": \"upgrade\",\n \"upgrade\": 1}",
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

//! What a source of keys answers, read: the text before it was compressed, and how long it is good.

use std::error::Error;
use std::io::{self, Read as _};
use std::time::Duration;

use flate2::read::GzDecoder;
use reqwest::Response;
use reqwest::header::{AGE, CACHE_CONTROL, HeaderMap};

use super::error::{BYTES_MAX, SourceError};
use crate::auth::key_set::KeySetError;

/// The text of an answer, without a byte order mark.
pub(super) async fn text_of(response: &mut Response) -> Result<String, SourceError> {
    let bytes = read_body(response).await?;
    let bytes = decompressed(bytes)?;
    let mut text = String::from_utf8(bytes).map_err(|_| KeySetError::NotASet)?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

async fn read_body(response: &mut Response) -> Result<Vec<u8>, SourceError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| fault(&error))? {
        if bytes.len() + chunk.len() > BYTES_MAX {
            return Err(SourceError::TooLong);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The bytes before they were compressed by gzip, which they tell by themselves (RFC 1952, section 2.3.1): headers say it of
/// what is not, and not of what is. The HTTP client could do it, for every client of the program at once and with a library
/// more.
fn decompressed(bytes: Vec<u8>) -> Result<Vec<u8>, SourceError> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes);
    }
    let mut plain = Vec::new();
    let mut decoder = GzDecoder::new(bytes.as_slice()).take(BYTES_MAX as u64 + 1);
    let read = decoder.read_to_end(&mut plain);
    match read.map_err(|_| SourceError::Encoding)? {
        length if length > BYTES_MAX => Err(SourceError::TooLong),
        _ => Ok(plain),
    }
}

pub(super) fn fault(error: &reqwest::Error) -> SourceError {
    if error.is_timeout() {
        SourceError::TimedOut
    } else if is_about_certificate(error) {
        SourceError::NotTrusted
    } else if error.is_connect() {
        SourceError::Unreachable
    } else {
        SourceError::Lost
    }
}

/// Whether it is the refusal of a certificate, or holds one somewhere beneath.
fn is_about_certificate(error: &(dyn Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return matches!(error, rustls::Error::InvalidCertificate(_));
    }
    // An error of I/O gives the source of what it holds for its own.
    let held = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    held.is_some_and(|held| is_about_certificate(held))
        || error.source().is_some_and(is_about_certificate)
}

/// How long the answer may be kept (RFC 9111, section 5.2.2), less what it was kept already on its way (section 5.1); not
/// at all counts as no time.
///
/// Read here, since names of directives know no case and the `headers` crate's reading does.
pub(super) fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let directives = headers
        .get_all(CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|directive| directive.trim().to_ascii_lowercase());
    let mut max_age = None;
    for directive in directives {
        if directive == "no-store" || directive == "no-cache" {
            return Some(Duration::ZERO);
        }
        if let Some(seconds) = directive.strip_prefix("max-age=") {
            max_age = seconds
                .trim_matches('"')
                .parse()
                .ok()
                .map(Duration::from_secs);
        }
    }
    let age = headers.get(AGE).and_then(|age| age.to_str().ok());
    let age = age.and_then(|age| age.trim().parse().ok());
    let age = age.map_or(Duration::ZERO, Duration::from_secs);
    max_age.map(|max_age| max_age.saturating_sub(age))
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn an_answer_says_how_long_it_is_good() {
        fn max_age_of<const N: usize>(headers: [(HeaderName, HeaderValue); N]) -> Option<u64> {
            max_age(&HeaderMap::from_iter(headers)).map(|age| age.as_secs())
        }
        let age =
            |value: &'static str| max_age_of([(CACHE_CONTROL, value.parse().expect("a value"))]);
        assert_eq!(age("public, max-age=600"), Some(600));
        assert_eq!(age("Max-Age=\"5\", must-revalidate"), Some(5));
        assert_eq!(age("max-age=600, no-store"), Some(0));
        assert_eq!(age("public"), None);
        assert_eq!(age("max-age=soon"), None);
        let aged = |max_age: &'static str, age: &'static str| {
            let headers = [
                (CACHE_CONTROL, max_age.parse().expect("a value")),
                (AGE, age.parse().expect("a value")),
            ];
            max_age_of(headers)
        };
        assert_eq!(aged("max-age=600", "590"), Some(10));
        assert_eq!(aged("max-age=600", "700"), Some(0), "stale on its way");
        assert_eq!(aged("max-age=600", "old"), Some(600));
        assert_eq!(aged("public", "5"), None);
    }
}

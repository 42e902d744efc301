//! Bytes that are the same for everybody: files of pages, the document.
//!
//! Each comes as its client takes it, gzipped or plain, with an `ETag`, so that what a client has it asks for again without
//! getting it again.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::http::header::{
    self, AcceptEncoding, ContentEncoding, ETag, Encoding, EntityTag, Header as _, IfNoneMatch,
};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

/// Below it gzip saves nothing worth its header.
const GZIP_BYTES_MIN: usize = 1024;

/// Bytes in both forms, each made once somebody wants it.
#[derive(Debug)]
pub(in crate::http) struct Asset {
    media_type: String,
    digest: String,
    /// Whether it is worth packing.
    packs: bool,
    plain: OnceLock<Bytes>,
    gzipped: OnceLock<Bytes>,
}

impl Asset {
    pub(in crate::http) fn plain(media_type: &str, bytes: Bytes) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: digest(&bytes),
            packs: bytes.len() >= GZIP_BYTES_MIN,
            plain: bytes.into(),
            gzipped: OnceLock::new(),
        }
    }

    pub(in crate::http) fn gzipped(media_type: &str, bytes: Bytes) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: digest(&bytes),
            packs: true,
            plain: OnceLock::new(),
            gzipped: bytes.into(),
        }
    }

    /// The answer, under this content security policy where it is for a browser to run.
    pub(in crate::http) fn answer(
        &self,
        request: &HttpRequest,
        content_security_policy: Option<&'static str>,
    ) -> HttpResponse {
        let gzip = self.packs && takes_gzip(request);
        // Two forms of a file are two entities (RFC 9110, section 8.8.3.3).
        let form = if gzip { "gzip" } else { "plain" };
        let tag = EntityTag::new_strong(format!("{}-{form}", self.digest));
        let known = match IfNoneMatch::parse(request) {
            Ok(IfNoneMatch::Any) => request.headers().contains_key(header::IF_NONE_MATCH),
            Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|known| known.weak_eq(&tag)),
            Err(_) => false,
        };
        let mut response = if known {
            HttpResponse::NotModified()
        } else {
            HttpResponse::Ok()
        };
        response
            .insert_header(ETag(tag))
            .insert_header((header::VARY, "Accept-Encoding"))
            // A client keeps it, and asks each time whether it still is so.
            .insert_header((header::CACHE_CONTROL, "no-cache"));
        if let Some(policy) = content_security_policy {
            response.insert_header((header::CONTENT_SECURITY_POLICY, policy));
        }
        if known {
            return response.finish();
        }
        response.content_type(self.media_type.as_str());
        if gzip {
            response.insert_header(ContentEncoding::Gzip);
            return response.body(Pieces(self.as_gzip()));
        }
        response.body(Pieces(self.as_plain()))
    }

    fn as_plain(&self) -> Bytes {
        let unpack = || {
            let mut plain = Vec::new();
            let packed = self.gzipped.get().cloned().unwrap_or_default();
            // What the build packed unpacks.
            let _ = GzDecoder::new(&*packed).read_to_end(&mut plain);
            plain.into()
        };
        self.plain.get_or_init(unpack).clone()
    }

    fn as_gzip(&self) -> Bytes {
        let pack = || {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            // Memory takes what is written.
            let _ = encoder.write_all(&self.as_plain());
            encoder.finish().unwrap_or_default().into()
        };
        self.gzipped.get_or_init(pack).clone()
    }
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes)[..16])
}

/// Bytes that go out piece by piece: a body in one piece is copied whole for each connection, taken or not.
struct Pieces(Bytes);

const PIECE_BYTES: usize = 16 * 1024;

impl MessageBody for Pieces {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.0.len() as u64)
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let length = self.0.len().min(PIECE_BYTES);
        let piece = self.0.split_to(length);
        Poll::Ready((!piece.is_empty()).then_some(Ok(piece)))
    }
}

/// Whether the client says that it takes gzip; one that says nothing may not know it.
fn takes_gzip(request: &HttpRequest) -> bool {
    if !request.headers().contains_key(header::ACCEPT_ENCODING) {
        return false;
    }
    let supported = [Encoding::gzip(), Encoding::identity()];
    AcceptEncoding::parse(request)
        .ok()
        .and_then(|accepted| accepted.negotiate(supported.iter()))
        .is_some_and(|chosen| chosen == Encoding::gzip())
}

//! Pages for people: Swagger UI, out of the binary, asking no other host.
//!
//! Each file comes as its browser takes it, gzipped or plain, with an `ETag`, so that what a browser has it asks for
//! again without getting it again.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Read as _;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::http::header::{
    self, AcceptEncoding, ContentEncoding, ETag, Encoding, EntityTag, Header as _, IfNoneMatch,
};
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use flate2::read::GzDecoder;
use sha2::{Digest as _, Sha256};
use utoipa_swagger_ui::Config;

use crate::http::wire::{Links, Problem, path};
use crate::problem::ProblemKind;

/// No script or style but the page's own, no other host. The hash is that of Swagger UI's one inline style
/// and changes with its version; the browser's console names the new one.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' \
    'sha256-RL3ie0nH+Lzz2YNqQN83mnU0J1ot4QL7b99vMdIX99w='; img-src 'self' data:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static SWAGGER_UI: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    // From the page, wherever a proxy has it.
    let config = Config::from(format!("..{}", path::OPENAPI));
    Arc::new(
        config
            .validator_url("none")
            .display_request_duration(true)
            .try_it_out_enabled(true)
            .deep_linking(true),
    )
});

/// Leads to Swagger UI.
pub(in crate::http) async fn to_swagger_ui(links: Data<Links>) -> HttpResponse {
    HttpResponse::TemporaryRedirect()
        .insert_header((header::LOCATION, links.below_root(path::SWAGGER_UI_PAGE)))
        .finish()
}

/// Swagger UI, out of the gateway itself.
pub(in crate::http) async fn swagger_ui(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let absent = || Problem::new(ProblemKind::NotFound, "Swagger UI has no such file");
    let name = request.match_info().get("file").unwrap_or_default();
    let asset = asset(name).ok_or_else(absent)?;
    Ok(asset.answer(&request))
}

/// A file, as it lies in the binary.
struct Asset {
    content_type: String,
    stored: Bytes,
    is_gzipped: bool,
    /// What it is where it is not gzipped; unpacked once somebody wants it so.
    plain: OnceLock<Bytes>,
    digest: String,
}

/// The files that were asked for, by name; there are few.
static ASSETS: LazyLock<Mutex<HashMap<String, Arc<Asset>>>> = LazyLock::new(Mutex::default);

fn asset(name: &str) -> Option<Arc<Asset>> {
    let mut assets = ASSETS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(asset) = assets.get(name) {
        return Some(Arc::clone(asset));
    }
    let file = utoipa_swagger_ui::serve(name, SWAGGER_UI.clone())
        .ok()
        .flatten()?;
    let digest = hex::encode(&Sha256::digest(&file.bytes)[..16]);
    let asset = Arc::new(Asset {
        content_type: file.content_type,
        stored: file.bytes.into_owned().into(),
        is_gzipped: file.gzpipped,
        plain: OnceLock::new(),
        digest,
    });
    assets.insert(name.to_owned(), Arc::clone(&asset));
    Some(asset)
}

impl Asset {
    fn answer(&self, request: &HttpRequest) -> HttpResponse {
        let gzip = self.is_gzipped && takes_gzip(request);
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
            // A browser keeps it, and asks each time whether it still is so.
            .insert_header((header::CACHE_CONTROL, "no-cache"))
            .insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY));
        if known {
            return response.finish();
        }
        response.content_type(self.content_type.as_str());
        if gzip {
            response.insert_header(ContentEncoding::Gzip);
            return response.body(Pieces(self.stored.clone()));
        }
        response.body(Pieces(self.plain()))
    }

    fn plain(&self) -> Bytes {
        let unpack = || {
            let mut plain = Vec::new();
            // What the build packed unpacks.
            let _ = GzDecoder::new(&*self.stored).read_to_end(&mut plain);
            plain.into()
        };
        if self.is_gzipped {
            self.plain.get_or_init(unpack).clone()
        } else {
            self.stored.clone()
        }
    }
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

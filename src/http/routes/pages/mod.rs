//! Pages for people, out of the binary, asking no other host: Swagger UI, the console, the catalogue of problems.

pub(in crate::http) mod console;
pub(in crate::http) mod problems;
pub(in crate::http) mod swagger_ui;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use actix_web::http::header;
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};

use crate::http::wire::{Asset, Links, Problem, path};
use crate::pages::File;
use crate::problem::ProblemKind;

/// Leads to Swagger UI.
pub(in crate::http) async fn to_swagger_ui(links: Data<Links>) -> HttpResponse {
    lead(&links, path::SWAGGER_UI_PAGE)
}

/// Leads to the console.
pub(in crate::http) async fn to_console(links: Data<Links>) -> HttpResponse {
    lead(&links, path::CONSOLE_PAGE)
}

fn lead(links: &Links, page: &str) -> HttpResponse {
    HttpResponse::TemporaryRedirect()
        .insert_header((header::LOCATION, links.below_root(page)))
        .finish()
}

/// A page and its files, of which those that were asked for are kept; there are few.
struct Page {
    load: fn(&str) -> Option<Asset>,
    /// What is said of a file that is not there.
    absent: &'static str,
    content_security_policy: &'static str,
    files: Mutex<HashMap<String, Arc<Asset>>>,
}

impl Page {
    fn new(
        load: fn(&str) -> Option<Asset>,
        absent: &'static str,
        content_security_policy: &'static str,
    ) -> Self {
        Self {
            load,
            absent,
            content_security_policy,
            files: Mutex::default(),
        }
    }

    /// The file that the path names; where it names none, the page itself.
    fn answer(&self, request: &HttpRequest) -> Result<HttpResponse, Problem> {
        let name = match request.match_info().get("file").unwrap_or_default() {
            "" => "index.html",
            name => name,
        };
        let absent = || Problem::new(ProblemKind::NotFound, self.absent);
        let file = self.file(name).ok_or_else(absent)?;
        Ok(file.answer(request, Some(self.content_security_policy)))
    }

    fn file(&self, name: &str) -> Option<Arc<Asset>> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = files.get(name) {
            return Some(Arc::clone(known));
        }
        let file = Arc::new((self.load)(name)?);
        files.insert(name.to_owned(), Arc::clone(&file));
        Some(file)
    }
}

fn of_file(file: File) -> Asset {
    Asset::plain(file.media_type(), Bytes::from_static(file.bytes))
}

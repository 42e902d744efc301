//! Pages for people, out of the binary, asking no other host: Swagger UI, the console, the catalogue of problems.

pub(in crate::http) mod console;
pub(in crate::http) mod problems;
pub(in crate::http) mod swagger_ui;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::{Bytes, Data};

use crate::http::wire::{Asset, Links, path};
use crate::pages::File;

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

/// Files that were asked for, by name; there are few.
#[derive(Debug, Default)]
struct Assets(Mutex<HashMap<String, Arc<Asset>>>);

impl Assets {
    fn get(&self, name: &str, load: impl FnOnce() -> Option<Asset>) -> Option<Arc<Asset>> {
        let mut assets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asset) = assets.get(name) {
            return Some(Arc::clone(asset));
        }
        let asset = Arc::new(load()?);
        assets.insert(name.to_owned(), Arc::clone(&asset));
        Some(asset)
    }
}

fn of_file(file: File) -> Asset {
    Asset::plain(file.media_type(), Bytes::from_static(file.bytes))
}

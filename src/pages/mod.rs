//! The files of the pages for people: the console, and what Swagger UI has beside its own files.
//!
//! Plain modules, styles and HTML, as they lie in this folder: there is no build step. They ask the public API, and no
//! other host; who may see what is decided there.

/// A file of a page.
#[derive(Debug, Clone, Copy)]
pub struct File {
    /// Its path under the page.
    pub name: &'static str,
    /// Its bytes.
    pub bytes: &'static [u8],
}

/// Makes a list of files of a folder, each with its bytes.
macro_rules! files {
    ($folder:literal: $($name:literal,)+) => {
        &[$(File { name: $name, bytes: include_bytes!(concat!($folder, "/", $name)) },)+]
    };
}

/// The console, by `/console/`.
const CONSOLE: &[File] = files! { "console":
    "index.html",
    "main.js",
    "api.js",
    "dom.js",
    "parts.js",
    "states.js",
    "timeline.js",
    "words.js",
    "views/access.js",
    "views/changes.js",
    "views/event.js",
    "views/images.js",
    "views/live.js",
    "vendor/uPlot.esm.js",
    "vendor/uPlot.min.css",
    "vendor/uPlot.LICENSE",
    "console.css",
    "favicon.svg",
    "problems.css",
};

/// What stands in place of Swagger UI's own files, or beside them, by `/swagger-ui/`.
const SWAGGER_UI: &[File] = files! { "swagger-ui":
    "index.html",
    "gateway.css",
    "gateway.js",
};

/// A file of the console.
#[must_use]
pub fn console(name: &str) -> Option<File> {
    find(CONSOLE, name)
}

/// A file of ours for Swagger UI.
#[must_use]
pub fn swagger_ui(name: &str) -> Option<File> {
    find(SWAGGER_UI, name)
}

fn find(files: &[File], name: &str) -> Option<File> {
    files.iter().find(|file| file.name == name).copied()
}

impl File {
    /// Its media type, by its ending.
    #[must_use]
    pub fn media_type(&self) -> &'static str {
        match self.name.rsplit_once('.').map(|(_, ending)| ending) {
            Some("html") => "text/html; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some("json") => "application/json",
            _ => "text/plain; charset=utf-8",
        }
    }
}

//! The catalogue of problems: what each `type` leads to.

use std::fmt::Write as _;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use utoipa::ToSchema;

use super::console::CONTENT_SECURITY_POLICY;
use crate::http::wire::{self, Parser, Problem, path};
use crate::problem::ProblemKind;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Html,
    Json,
}

const FORMATS: [(&str, Format); 2] = [
    ("text/html", Format::Html),
    ("application/json", Format::Json),
];
pub(in crate::http) const MEDIA_TYPES: [&str; 2] = [FORMATS[0].0, FORMATS[1].0];

/// A kind of problem, as the catalogue tells it.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct CataloguedProblem {
    /// As problems name it.
    #[serde(rename = "type")]
    #[schema(format = "uri-reference")]
    kind: String,
    /// The same for every problem of this type.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// When it occurs and what it says.
    meaning: &'static str,
    /// What helps.
    remedy: &'static str,
}

/// All kinds of problems.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct ProblemCatalogue {
    /// By status.
    problems: Vec<CataloguedProblem>,
}

impl From<ProblemKind> for CataloguedProblem {
    fn from(kind: ProblemKind) -> Self {
        Self {
            kind: format!("/problems/{}", kind.slug()),
            title: kind.title(),
            status: kind.status(),
            meaning: kind.meaning(),
            remedy: kind.remedy(),
        }
    }
}

/// See every kind of problem.
///
/// What each means and what helps, by status. A browser gets a page.
#[utoipa::path(
    get, path = path::PROBLEMS_BARE, operation_id = "list_problems", tag = "operations",
    responses((status = 200, description = "All kinds of problems", body = ProblemCatalogue,
        content_type = "application/json",
        example = json!({"problems": [CataloguedProblem::from(ProblemKind::NotFound)]}))),
)]
pub(in crate::http) async fn list_problems(request: HttpRequest) -> Result<HttpResponse, Problem> {
    Parser::new(&request, &[]).finish(Some(()))?;
    let all = ProblemKind::ALL.map(CataloguedProblem::from);
    Ok(match wire::choose(&request, &FORMATS)? {
        Format::Json => json(&ProblemCatalogue {
            problems: all.into(),
        }),
        // Whatever stands before it, a proxy may have taken off.
        Format::Html if request.path() == path::PROBLEMS_BARE => html("Problems", &all, "./"),
        Format::Html => html("Problems", &all, "../"),
    })
}

/// See what a kind of problem means.
///
/// Where the `type` of a problem leads: what it means and what helps. A browser gets a page.
#[utoipa::path(
    get, path = path::PROBLEM, operation_id = "get_problem", tag = "operations",
    params(("slug" = String, Path, description = "The last segment of the problem's `type`.",
        pattern = "^[a-z0-9-]+$", example = "not-found")),
    responses((status = 200, description = "The kind of problem", body = CataloguedProblem,
        content_type = "application/json", example = json!(CataloguedProblem::from(ProblemKind::NotFound)))),
)]
pub(in crate::http) async fn get_problem(request: HttpRequest) -> Result<HttpResponse, Problem> {
    Parser::new(&request, &[]).finish(Some(()))?;
    let format = wire::choose(&request, &FORMATS)?;
    let slug = request.match_info().get("slug").unwrap_or_default();
    let absent = || Problem::new(ProblemKind::NotFound, "there is no such kind of problem");
    let kind = ProblemKind::of_slug(slug).ok_or_else(absent)?;
    let told = CataloguedProblem::from(kind);
    Ok(match format {
        Format::Json => json(&told),
        Format::Html => html(kind.title(), &[told], "../"),
    })
}

fn json(told: &impl Serialize) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::VARY, "Accept"))
        .json(told)
}

/// The page; `root` leads from it to where the gateway begins.
fn html(title: &str, told: &[CataloguedProblem], root: &str) -> HttpResponse {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title} · image-share-gateway</title>\n\
         <link rel=\"icon\" href=\"{root}console/favicon.svg\" type=\"image/svg+xml\">\n\
         <link rel=\"stylesheet\" href=\"{root}console/problems.css\">\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n"
    );
    let alone = told.len() == 1;
    for problem in told {
        let slug = problem.kind.rsplit('/').next().unwrap_or_default();
        let heading = if alone {
            String::new()
        } else {
            format!(
                "<h2><a href=\"{root}problems/{slug}\">{}</a></h2>\n",
                problem.title
            )
        };
        // Writing to a String cannot fail.
        let _ = write!(
            page,
            "<section id=\"{slug}\">\n{heading}<p class=\"type\"><b>{}</b> <code>{}</code></p>\n<p>{}</p>\n<p><b>What helps.</b> {}</p>\n</section>\n",
            problem.status,
            problem.kind,
            marked_up(problem.meaning),
            marked_up(problem.remedy),
        );
    }
    if alone {
        let _ = writeln!(
            page,
            "<p><a href=\"{root}problems/\">All kinds of problems</a></p>"
        );
    }
    page.push_str("</main>\n</body>\n</html>\n");
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::VARY, "Accept"))
        .insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .body(page)
}

/// What stands between backticks is code.
fn marked_up(words: &str) -> String {
    let escaped = words.replace('&', "&amp;").replace('<', "&lt;");
    let parts = escaped.split('`').enumerate().map(|(index, part)| {
        if index % 2 == 1 {
            format!("<code>{part}</code>")
        } else {
            part.to_owned()
        }
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_told_in_whole_sentences_with_its_code_closed() {
        for kind in ProblemKind::ALL {
            for words in [kind.meaning(), kind.remedy()] {
                assert!(words.ends_with('.'), "{words}");
                assert_eq!(words.matches('`').count() % 2, 0, "{words}");
                assert!(!words.contains("  "), "{words}");
            }
        }
        assert_eq!(marked_up("a `<b>` & c"), "a <code>&lt;b></code> &amp; c");
    }
}

//! The table of routes as actix serves it.

use actix_web::http::Method;
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, guard};

use crate::problem::ProblemKind;

use super::wire::{Problem, Resource};

/// Serves these resources; another method is 405, another path 404.
pub(super) fn serve(
    resources: impl Iterator<Item = &'static Resource>,
    config: &mut ServiceConfig,
) -> &mut ServiceConfig {
    for resource in resources {
        config.service(service(resource));
    }
    config.default_service(web::to(no_such_path))
}

/// Knows its row by its data: whoever observes the request reads the path there.
fn service(resource: &'static Resource) -> actix_web::Resource {
    let allow = resource.allow();
    let refuse = move || {
        let problem = Problem::method_not_allowed(&allow);
        async move { Err::<&str, _>(problem) }
    };
    let mut service = web::resource(resource.path)
        .app_data(resource)
        .default_service(web::to(refuse));
    for route in resource.routes {
        let handler = (route.handler)();
        service = service.route(if route.method == Method::GET {
            handler.guard(guard::Any(guard::Get()).or(guard::Head()))
        } else {
            handler.method(route.method.clone())
        });
    }
    service
}

async fn no_such_path(_request: HttpRequest) -> Result<&'static str, Problem> {
    let detail = "there is nothing at this path";
    Err(Problem::new(ProblemKind::NotFound, detail))
}

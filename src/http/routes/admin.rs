//! Metrics and probes, for who runs the gateway.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::web::Data;
use actix_web::{HttpResponse, http::StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::telemetry::Metrics;

use crate::http::wire::path;

/// The media type of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One thing that must hold for the gateway to be ready. It must not wait.
#[derive(Clone)]
pub struct Check {
    name: &'static str,
    look: Arc<dyn Fn() -> Result<Option<String>, String> + Send + Sync>,
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Check {
    /// A check that answers why it does not hold, or what else there is to say although it does.
    pub fn new(
        name: &'static str,
        look: impl Fn() -> Result<Option<String>, String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name,
            look: Arc::new(look),
        }
    }
}

/// Whether the gateway wants requests.
#[derive(Debug)]
pub struct Readiness {
    checks: Vec<Check>,
    draining: AtomicBool,
}

impl Readiness {
    /// Ready where all `checks` hold.
    #[must_use]
    pub fn new(checks: Vec<Check>) -> Self {
        Self {
            checks,
            draining: AtomicBool::new(false),
        }
    }

    /// Not ready from now on: the gateway stops.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the gateway wants requests now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.report().ready
    }

    fn report(&self) -> Readyz {
        let stopping = self
            .draining
            .load(Ordering::Acquire)
            .then(|| "the gateway is stopping".to_owned());
        let mut checks = vec![CheckResult {
            name: "running",
            ok: stopping.is_none(),
            detail: stopping,
        }];
        checks.extend(self.checks.iter().map(|check| {
            let looked = (check.look)();
            CheckResult {
                name: check.name,
                ok: looked.is_ok(),
                detail: looked.unwrap_or_else(Some),
            }
        }));
        Readyz {
            ready: checks.iter().all(|check| check.ok),
            checks,
        }
    }
}

/// Whether checks say more than that they hold: on the admin listener, which is for who runs the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Detail {
    Shown,
    Hidden,
}

/// That the process answers.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Livez {
    /// Always true.
    live: bool,
}

/// Whether the gateway wants requests, and why not.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Readyz {
    /// Whether all checks hold.
    ready: bool,
    /// What was looked at.
    checks: Vec<CheckResult>,
}

/// One thing that must hold.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct CheckResult {
    /// What it is about.
    name: &'static str,
    /// Whether it holds.
    ok: bool,
    /// Why it does not, or what else there is to say; on the admin listener alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<String>,
}

/// Whether the process lives.
///
/// For whoever restarts it where it does not: it says nothing of what the gateway needs.
#[utoipa::path(
    get, path = path::LIVEZ, operation_id = "livez", tag = "operations",
    responses((status = 200, description = "The process answers", body = Livez, content_type = "application/json",
        example = json!({"live": true}))),
)]
pub(in crate::http) async fn livez() -> HttpResponse {
    HttpResponse::Ok().json(Livez { live: true })
}

/// Whether the gateway wants requests.
///
/// For load balancers: 503 while it starts or stops, while the trail cannot be written and while no issuer has keys. Each
/// check is named; why one does not hold is told on the admin listener alone.
#[utoipa::path(
    get, path = path::READYZ, operation_id = "readyz", tag = "operations",
    responses(
        (status = 200, description = "It does", body = Readyz, content_type = "application/json",
            example = json!({"ready": true, "checks": [{"name": "audit", "ok": true},
                {"name": "upstream", "ok": true}]})),
        (status = 503, description = "It does not", body = Readyz, content_type = "application/json",
            example = json!({"ready": false, "checks": [{"name": "audit", "ok": false}]})),
    ),
)]
pub(in crate::http) async fn readyz(
    readiness: Data<Readiness>,
    detail: Data<Detail>,
) -> HttpResponse {
    let mut report = readiness.report();
    if **detail == Detail::Hidden {
        for check in &mut report.checks {
            check.detail = None;
        }
    }
    let status = if report.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    HttpResponse::build(status).json(report)
}

/// Numbers in Prometheus' text format; on the admin listener alone.
pub(in crate::http) async fn metrics(metrics: Data<Metrics>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(METRICS_TYPE)
        .body(metrics.render())
}

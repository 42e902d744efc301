//! `healthcheck`: asks `/readyz`, for a container without a shell.

use std::process::ExitCode;
use std::time::Duration;

use url::Url;

use super::{Failure, HealthcheckArgs, chain};
use crate::app::reachable;
use crate::config::{Config, Sources};

const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn run(args: HealthcheckArgs) -> Result<ExitCode, Failure> {
    let base = match args.url {
        Some(url) => url,
        None => configured(&Sources::of_this_process(args.config.as_deref()))?,
    };
    let mut base = base;
    if !base.path().ends_with('/') {
        base.set_path(&format!("{}/", base.path()));
    }
    let url = base
        .join("readyz")
        .map_err(|_| Failure::usage("--url must be a base URL of http or https"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Failure::usage("--url must be a base URL of http or https"));
    }
    let client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    let client = match url.scheme() {
        // The certificate is made for the name that clients use, hardly for the one that is asked here; all
        // that is learnt is whether the gateway says that it is ready.
        "https" => client.tls_danger_accept_invalid_certs(true),
        _ => client.tls_certs_only([]),
    };
    let client = client
        .build()
        .map_err(|error| Failure::could_not_run(&error))?;
    let answer = client.get(url).send().await;
    let answer = answer.map_err(|error| Failure {
        lines: vec![chain(&error.without_url())],
        code: 1,
    })?;
    if answer.status().is_success() {
        return Ok(ExitCode::SUCCESS);
    }
    let status = answer.status();
    let body = answer.text().await.unwrap_or_default();
    Err(Failure {
        lines: vec![format!("not ready ({status}): {body}")],
        code: 1,
    })
}

fn configured(sources: &Sources) -> Result<Url, Failure> {
    let server = Config::load_server(sources)?;
    let wants_certificates = server
        .tls
        .as_ref()
        .is_some_and(|tls| tls.client_ca_file.is_some());
    if let Some(admin) = server.admin_bind.filter(|_| wants_certificates) {
        // Nobody here has one.
        let url = format!("http://{}/", reachable(admin));
        return url
            .parse()
            .map_err(|_| Failure::usage("server.admin_bind cannot be asked"));
    }
    let scheme = if server.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let url = format!("{scheme}://{}/", reachable(server.bind));
    url.parse()
        .map_err(|_| Failure::usage("server.bind cannot be asked"))
}

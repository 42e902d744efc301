//! `sandbox`: the upstream in memory, alone.

use std::net::TcpListener;
use std::process::ExitCode;
use std::time::Duration;

use super::serve::stop_signal;
use super::{Failure, SandboxArgs, print};
use crate::app::reachable;
use crate::sandbox::{Sandbox, Settings};

pub(super) async fn run(args: SandboxArgs) -> Result<ExitCode, Failure> {
    let mut stop = stop_signal()?;
    let cannot = |error| Failure {
        lines: vec![format!("cannot listen on {}: {error}", args.bind)],
        code: 1,
    };
    let listener = TcpListener::bind(args.bind).map_err(cannot)?;
    let settings = Settings {
        public_key: args.public_key,
        private_key: args.private_key,
        latency: Duration::from_millis(args.latency_ms),
        fault_rate: args.fault_rate,
    };
    let sandbox = Sandbox::start(listener, settings).map_err(cannot)?;
    print(&format!("http://{}\n", reachable(sandbox.address())))?;
    stop.recv().await;
    sandbox.stop().await;
    Ok(ExitCode::SUCCESS)
}

//! The service manager that started the program (systemd's protocol, `sd_notify(3)`): it is told when the gateway is ready,
//! reloads, stops, and that it lives. Where none is, nothing is told.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::app::Readiness;

/// How often a gateway that is not ready yet is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Resolves once the gateway is ready, and says so.
pub(super) async fn tell_ready(readiness: Arc<Readiness>) {
    while !readiness.is_ready() {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    tell(&[NotifyState::Ready]);
}

/// A reload begins.
pub(super) fn tell_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// A reload has ended, well or not: the gateway serves.
pub(super) fn tell_reloaded() {
    tell(&[NotifyState::Ready]);
}

/// The gateway stops.
pub(super) fn tell_stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says as often as it was asked to that the gateway lives: that its runtime runs, and what all changes pass is not stuck.
#[expect(
    clippy::disallowed_methods,
    reason = "it goes on as long as the process, through reloads and the stop"
)]
pub(super) fn keep_telling_alive(readiness: Arc<Readiness>) {
    let Some(within) = sd_notify::watchdog_enabled() else {
        return;
    };
    tokio::spawn(async move {
        let mut due = tokio::time::interval(within / 2);
        loop {
            due.tick().await;
            // Looks through the lanes' lock. Not being ready is no reason to be ended.
            let _ = readiness.is_ready();
            tell(&[NotifyState::Watchdog]);
        }
    });
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = send(states) {
        tracing::warn!(error.message = %error, "the service manager cannot be told");
    }
}

fn send(states: &[NotifyState<'_>]) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if let Some(name) = abstract_socket() {
        use std::os::linux::net::SocketAddrExt as _;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
        let states: Vec<String> = states.iter().map(ToString::to_string).collect();
        let message = states.join("\n");
        let socket = std::os::unix::net::UnixDatagram::unbound()?;
        return socket.send_to_addr(message.as_bytes(), &address).map(drop);
    }
    sd_notify::notify(states)
}

/// The name of the socket where that lies in no directory: the library knows those that do.
#[cfg(target_os = "linux")]
fn abstract_socket() -> Option<Vec<u8>> {
    use std::os::unix::ffi::OsStringExt as _;
    let socket = std::env::var_os("NOTIFY_SOCKET")?.into_vec();
    socket.strip_prefix(b"@").map(<[u8]>::to_vec)
}

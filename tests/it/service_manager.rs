//! What systemd is told over its socket.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{KeyAnswer, KeyServer, Program, SECRET, environment, keys_file, set_of};

/// The socket of a service manager.
struct Manager(UnixDatagram);

impl Manager {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        Self(socket)
    }

    /// What it is told next, signs of life apart.
    fn told(&self) -> String {
        loop {
            let message = self.any();
            if message != "WATCHDOG=1" {
                return message;
            }
        }
    }

    fn any(&self) -> String {
        let mut bytes = [0; 4096];
        let length = self.0.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec())
            .unwrap()
            .trim_end()
            .to_owned()
    }

    fn has_been_told_nothing_but_signs_of_life(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let mut bytes = [0; 4096];
        let mut only_life = true;
        while let Ok(length) = self.0.recv(&mut bytes) {
            only_life &= bytes[..length].starts_with(b"WATCHDOG=1");
        }
        self.0.set_nonblocking(false).unwrap();
        only_life
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_is_told_of_ready_reloads_life_and_the_stop() {
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    let socket = directory.path().join("notify");
    let manager = Manager::at(&socket);
    let mut settings = environment("http://127.0.0.1:9");
    settings.extend([
        ("NOTIFY_SOCKET", socket.to_str().unwrap()),
        ("WATCHDOG_USEC", "100000"),
        ("ISG__SERVER__DRAIN_DELAY", "300ms"),
    ]);
    let mut program = Program::spawn(directory.path(), &["serve"], &settings);
    assert_eq!(manager.told(), "READY=1");
    while manager.any() != "WATCHDOG=1" {}

    program.signal(Signal::HUP);
    let reloading = manager.told();
    let (first, second) = reloading.split_once('\n').unwrap();
    assert_eq!(first, "RELOADING=1");
    assert!(second.starts_with("MONOTONIC_USEC="), "{second}");
    assert_eq!(manager.told(), "READY=1");

    std::fs::write(directory.path().join("keys.json"), "{").unwrap();
    program.signal(Signal::HUP);
    assert!(manager.told().starts_with("RELOADING=1"));
    assert_eq!(manager.told(), "READY=1", "it serves with what it had");

    program.signal(Signal::TERM);
    assert_eq!(manager.told(), "STOPPING=1");
    assert_eq!(manager.any(), "WATCHDOG=1", "it lives while it drains");
    assert_eq!(program.wait().await, Some(0));
}

/// A socket that lies in no directory, as containers have it.
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_of_the_abstract_kind_is_told_too() {
    use std::os::linux::net::SocketAddrExt as _;
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    let name = format!("gateway-{}", uuid::Uuid::new_v4());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let manager = Manager(socket);
    let (socket, mut settings) = (format!("@{name}"), environment("http://127.0.0.1:9"));
    settings.push(("NOTIFY_SOCKET", &socket));
    let mut program = Program::spawn(directory.path(), &["serve"], &settings);
    assert_eq!(manager.told(), "READY=1");
    program.signal(Signal::TERM);
    assert_eq!(manager.told(), "STOPPING=1");
    assert_eq!(program.wait().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_is_told_once_it_is_and_not_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("notify");
    let manager = Manager::at(&socket);
    let keys = KeyServer::start(KeyAnswer::Status(503)).await;
    let url = format!("{}/keys", keys.url);
    let mut settings = environment("http://127.0.0.1:9");
    settings.retain(|(name, _)| *name != "ISG__AUTH__JWKS_FILE");
    settings.extend([
        ("NOTIFY_SOCKET", socket.to_str().unwrap()),
        ("ISG__AUTH__JWKS_URL", url.as_str()),
    ]);
    let program = Program::spawn(directory.path(), &["serve"], &settings);
    program.wait_for_log("a key set cannot be read").await;
    program.base_url().await;
    assert!(manager.has_been_told_nothing_but_signs_of_life());
    keys.answers(KeyAnswer::Body(set_of("test", SECRET), "max-age=60"));
    assert_eq!(manager.told(), "READY=1");
}

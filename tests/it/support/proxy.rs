//! Real proxies, on free ports.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{beside_python, eventually};

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A proxy that ends with its test.
pub(crate) struct Proxy {
    child: Child,
    pub(crate) url: String,
    _directory: tempfile::TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Killed, nginx would leave its workers behind.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

impl Proxy {
    async fn started(mut command: Command, port: u16, directory: tempfile::TempDir) -> Self {
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let proxy = Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
            _directory: directory,
        };
        eventually("the proxy listens", async || {
            std::net::TcpStream::connect(("127.0.0.1", port))
                .ok()
                .map(drop)
        })
        .await;
        proxy
    }

    /// nginx with this inside of its `http` section, in which `PORT` is where it listens.
    pub(crate) async fn nginx(http: &str) -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        let place = directory.path().display();
        // What Debian's configuration says, but for where files lie, and who runs it.
        let all = format!(
            "daemon off; worker_processes 1; pid {place}/pid; error_log {place}/error.log;\n\
             events {{ worker_connections 768; }}\n\
             http {{ access_log off; client_body_temp_path {place}/body; proxy_temp_path {place}/proxy;\n\
             fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;\n{} }}",
            http.replace("PORT", &port.to_string())
        );
        let file = directory.path().join("nginx.conf");
        std::fs::write(&file, all).unwrap();
        let mut nginx = Command::new("/usr/sbin/nginx");
        nginx.arg("-c").arg(&file).stderr(Stdio::null());
        Self::started(nginx, port, directory).await
    }

    /// HAProxy by this configuration, in which `PORT` is where it listens.
    pub(crate) async fn haproxy(configuration: &str) -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        let file = directory.path().join("haproxy.cfg");
        std::fs::write(&file, configuration.replace("PORT", &port.to_string())).unwrap();
        let mut haproxy = Command::new("/usr/sbin/haproxy");
        haproxy
            .arg("-db")
            .arg("-f")
            .arg(&file)
            .stderr(Stdio::null());
        Self::started(haproxy, port, directory).await
    }

    /// What is shipped for Envoy, before the gateway at `address`.
    pub(crate) async fn envoy(shipped: &str, address: &str) -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        let gateway = address.rsplit(':').next().unwrap();
        let text = shipped
            .replace(
                "0.0.0.0, port_value: 8443",
                &format!("127.0.0.1, port_value: {port}"),
            )
            .replace("port_value: 8080", &format!("port_value: {gateway}"));
        let file = directory.path().join("envoy.yaml");
        std::fs::write(&file, text).unwrap();
        let mut envoy = beside_python("envoy");
        envoy
            .arg("-c")
            .arg(&file)
            // Several of them at once share nothing.
            .args([
                "--disable-hot-restart",
                "--concurrency",
                "1",
                "--log-level",
                "error",
            ])
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self::started(envoy, port, directory).await
    }

    /// The same for Traefik, whose route is a file of its own.
    pub(crate) async fn traefik(shipped: &str, route: &str, address: &str) -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        let file = directory.path().join("traefik.yaml");
        std::fs::write(
            &file,
            shipped.replace(":8443", &format!("127.0.0.1:{port}")),
        )
        .unwrap();
        let route = route.replace("127.0.0.1:8080", address);
        std::fs::write(directory.path().join("gateway.yaml"), route).unwrap();
        let mut traefik = beside_python("traefik");
        traefik
            .arg(format!("--configFile={}", file.display()))
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self::started(traefik, port, directory).await
    }
}

//! What `deploy/` ships, each held by the tool that its users have.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{binary, keep, python};

fn home() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

fn deploy(file: &str) -> PathBuf {
    home().join("deploy").join(file)
}

/// A program of the Python environment of the tests.
fn of_python(name: &str) -> Command {
    let python = PathBuf::from(python());
    Command::new(python.with_file_name(name))
}

/// A program that `tests/run` builds, beside the Python environment.
fn of_cargo(name: &str) -> PathBuf {
    let python = PathBuf::from(python());
    let target = python.ancestors().nth(3).unwrap();
    target.join("tools/bin").join(name)
}

#[track_caller]
fn good(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let told = format!(
        "{}{}",
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr)
    );
    assert!(status.success(), "{command:?}: {told}");
    String::from_utf8(stdout).unwrap()
}

#[test]
fn the_unit_is_hardened() {
    let unit = deploy("systemd/image-share-gateway.service");
    let told = good(
        Command::new("systemd-analyze")
            .args(["security", "--offline=yes", "--threshold=20"])
            .arg(&unit),
    );
    assert!(told.contains("Overall exposure level"), "{told}");
    let text = std::fs::read_to_string(&unit).unwrap();
    let seconds = |key: &str| -> u64 {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{key}=")))
            .unwrap();
        line.trim_end_matches('s').parse().unwrap()
    };
    assert!(
        seconds("TimeoutStopSec") >= 30 + 10,
        "more than shutdown_timeout"
    );
}

#[test]
fn the_dockerfile_is_linted_and_its_layer_of_dependencies_knows_every_target() {
    let dockerfile = home().join("Dockerfile");
    good(of_python("hadolint").arg(&dockerfile));
    let text = std::fs::read_to_string(&dockerfile).unwrap();
    let benches = std::fs::read_dir(home().join("benches")).unwrap();
    for bench in benches
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().join("main.rs").exists())
    {
        let name = format!("benches/{}", bench.file_name().to_str().unwrap());
        assert!(
            text.matches(&name).count() >= 2,
            "{name} is not among the empty targets"
        );
    }
    assert!(
        !text.lines().any(|line| line.starts_with("ENV ")),
        "nothing may beat a file that is mounted"
    );
    assert!(text.contains("FROM scratch"), "no shell");
}

#[test]
fn the_compose_files_are_some() {
    for file in ["compose.yaml", "compose.replicas.yaml"] {
        good(
            Command::new("docker-compose")
                .arg("-f")
                .arg(deploy(file))
                .args(["config", "-q"]),
        );
    }
}

/// All documents that kustomize makes of a folder.
fn kustomized(folder: &str, directory: &Path) -> (PathBuf, Vec<Value>) {
    let made = good(Command::new("kubectl").arg("kustomize").arg(deploy(folder)));
    let file = directory.join("made.yaml");
    std::fs::write(&file, &made).unwrap();
    keep("package", &made);
    let documents = made
        .split("\n---\n")
        .map(|text| serde_saphyr::from_str(text).unwrap());
    (file, documents.collect())
}

fn of_kind<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    documents
        .iter()
        .find(|document| document["kind"] == kind)
        .unwrap_or_else(|| panic!("no {kind}"))
}

#[test]
fn the_manifests_are_valid_and_fit_one_another_and_the_gateway() {
    let directory = tempfile::tempdir().unwrap();
    let (file, documents) = kustomized("kubernetes/base", directory.path());
    good(
        of_python("kubernetes-validate")
            .args(["--strict", "-k", "1.31"])
            .arg(&file),
    );
    let deployment = of_kind(&documents, "Deployment");
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(deployment["spec"]["replicas"], 1);
    assert_eq!(deployment["spec"]["strategy"]["type"], "Recreate");
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    for kind in [
        "Service",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "ServiceMonitor",
        "PersistentVolumeClaim",
    ] {
        of_kind(&documents, kind);
    }
    // The configuration is good as far as files go that are not there, and fits probes, ports, volumes and grace.
    let configuration = of_kind(&documents, "ConfigMap")["data"]["config.toml"]
        .as_str()
        .unwrap();
    let policies = of_kind(&documents, "ConfigMap")["data"]["policies.cedar"]
        .as_str()
        .unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("policies.cedar"), policies).unwrap();
    std::fs::write(path("key"), "a-key").unwrap();
    let there = configuration
        .replace(
            "/etc/image-share-gateway/policies.cedar",
            path("policies.cedar").to_str().unwrap(),
        )
        .replace(
            "/run/secrets/image-share-gateway/public_key",
            path("key").to_str().unwrap(),
        )
        .replace(
            "/run/secrets/image-share-gateway/private_key",
            path("key").to_str().unwrap(),
        );
    std::fs::write(path("config.toml"), there).unwrap();
    let effective = good(
        binary()
            .args(["check-config", "--config"])
            .arg(path("config.toml")),
    );
    let effective: toml::Table = effective.parse().unwrap();
    let duration = |key: &str| {
        let text = effective["server"][key].as_str().unwrap();
        image_share_gateway::config::parse_duration(text)
            .unwrap()
            .as_secs()
    };
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(
        grace >= duration("drain_delay") + duration("shutdown_timeout") + 10,
        "{grace}"
    );
    let ports: Vec<_> = container["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| port["containerPort"].to_string())
        .collect();
    for (key, port) in [("bind", &ports[0]), ("admin_bind", &ports[1])] {
        assert!(
            effective["server"][key]
                .as_str()
                .unwrap()
                .ends_with(&format!(":{port}")),
            "{key} {port}"
        );
    }
    let mounts = container["volumeMounts"].as_array().unwrap();
    for needed in [
        "/data",
        "/etc/image-share-gateway",
        "/run/secrets/image-share-gateway",
    ] {
        assert!(
            mounts.iter().any(|mount| mount["mountPath"] == needed),
            "{needed}"
        );
    }
    let (file, replicas) = kustomized("kubernetes/replicas", directory.path());
    good(
        of_python("kubernetes-validate")
            .args(["--strict", "-k", "1.31"])
            .arg(&file),
    );
    let deployment = of_kind(&replicas, "Deployment");
    assert_eq!(deployment["spec"]["replicas"], 3);
    assert_eq!(deployment["spec"]["strategy"]["type"], "RollingUpdate");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let mounts = container["volumeMounts"].as_array().unwrap();
    assert!(mounts.iter().all(|mount| mount["mountPath"] != "/data"));
    let config = of_kind(&replicas, "ConfigMap")["data"]["config.toml"]
        .as_str()
        .unwrap();
    let url = "/run/secrets/image-share-gateway-database/url";
    assert!(config.contains(&format!("database_url_file = \"{url}\"")));
    assert!(mounts.iter().any(
        |mount| url.starts_with(mount["mountPath"].as_str().unwrap())
            && mount["name"] == "database"
    ));
    let volumes = replicas
        .iter()
        .filter(|document| document["kind"] == "PersistentVolumeClaim");
    assert_eq!(volumes.count(), 0);
    let (_, on_openshift) = kustomized("kubernetes/openshift", directory.path());
    let pod = &of_kind(&on_openshift, "Deployment")["spec"]["template"]["spec"];
    assert!(
        pod["securityContext"]["runAsUser"].is_null()
            && pod["securityContext"]["fsGroup"].is_null()
    );
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
}

/// Installs, runs, removes and purges the package in a root of its own.
#[test]
fn the_debian_package_installs_and_leaves_the_trail_when_it_goes() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::create_dir_all(path("target/release")).unwrap();
    std::fs::copy(
        binary().get_program(),
        path("target/release/image-share-gateway"),
    )
    .unwrap();
    let package = path("gateway.deb");
    let mut cargo_deb = Command::new(of_cargo("cargo-deb"));
    cargo_deb
        .args(["--no-build", "--fast", "--no-strip", "--output"])
        .arg(&package);
    good(
        cargo_deb
            .env("CARGO_TARGET_DIR", path("target"))
            .current_dir(home()),
    );

    let root = path("root");
    for folder in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "etc"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    for file in ["status", "available"] {
        std::fs::write(root.join("var/lib/dpkg").join(file), "").unwrap();
    }
    let dpkg = |arguments: &[&str]| {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg(format!("--root={}", root.display()))
            .args([
                "--force-script-chrootless",
                "--force-depends",
                "--force-not-root",
            ])
            .args(arguments);
        good(&mut dpkg)
    };
    dpkg(&["-i", package.to_str().unwrap()]);
    let installed = Command::new("find")
        .arg(&root)
        .args(["-type", "f", "-size", "-1M"])
        .output();
    for file in String::from_utf8(installed.unwrap().stdout)
        .unwrap()
        .lines()
    {
        keep(
            "package",
            &String::from_utf8_lossy(&std::fs::read(file).unwrap()),
        );
    }
    let version = good(Command::new(root.join("usr/bin/image-share-gateway")).arg("--version"));
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    let users = std::fs::read_to_string(root.join("etc/passwd")).unwrap();
    assert!(
        users.contains("image-share-gateway:x:") && users.contains("nologin"),
        "{users}"
    );
    let mode = |name: &str| {
        std::fs::metadata(root.join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(
        (
            mode("etc/image-share-gateway"),
            mode("etc/image-share-gateway/config.toml")
        ),
        (0o750, 0o640)
    );
    assert!(
        root.join("usr/lib/systemd/system/image-share-gateway.service")
            .exists()
    );
    assert!(
        root.join("usr/share/doc/image-share-gateway/docs/operations.md")
            .exists()
    );
    // As it is it starts nothing: what is required is told.
    let check = binary()
        .args(["check-config", "--config"])
        .arg(root.join("etc/image-share-gateway/config.toml"))
        .output()
        .unwrap();
    let told = String::from_utf8(check.stderr).unwrap();
    assert_eq!(check.status.code(), Some(2), "{told}");
    for line in told.lines().filter(|line| !line.contains("warning: ")) {
        assert!(line.contains("is required"), "{line}");
    }
    let trail = root.join("var/lib/image-share-gateway/audit.db");
    std::fs::create_dir_all(trail.parent().unwrap()).unwrap();
    std::fs::write(&trail, "the trail").unwrap();
    dpkg(&["-r", "image-share-gateway"]);
    assert!(!root.join("usr/bin/image-share-gateway").exists());
    assert!(
        root.join("etc/image-share-gateway/config.toml").exists(),
        "what was configured stays"
    );
    dpkg(&["-P", "image-share-gateway"]);
    assert!(!root.join("etc/image-share-gateway/config.toml").exists());
    assert!(trail.exists(), "the trail stays");
}

#[test]
fn the_bill_of_materials_names_what_is_in_the_program() {
    let directory = tempfile::tempdir().unwrap();
    // It writes beside the manifest: into a copy of what it reads.
    for file in ["Cargo.toml", "Cargo.lock"] {
        std::fs::copy(home().join(file), directory.path().join(file)).unwrap();
    }
    std::fs::create_dir(directory.path().join("src")).unwrap();
    std::fs::write(directory.path().join("src/main.rs"), "fn main() {}").unwrap();
    std::fs::write(directory.path().join("src/lib.rs"), "").unwrap();
    for target in [
        "tests/it",
        "benches/identity",
        "benches/load",
        "benches/operations",
        "benches/trail",
    ] {
        std::fs::create_dir_all(directory.path().join(target)).unwrap();
        std::fs::write(
            directory.path().join(target).join("main.rs"),
            "fn main() {}",
        )
        .unwrap();
    }
    let mut cyclonedx = Command::new(of_cargo("cargo-cyclonedx"));
    cyclonedx.args([
        "cyclonedx",
        "--format",
        "json",
        "--no-build-deps",
        "--override-filename",
        "bom",
    ]);
    good(cyclonedx.current_dir(directory.path()));
    let bom = std::fs::read_to_string(directory.path().join("bom.json")).unwrap();
    let bom: Value = serde_json::from_str(&bom).unwrap();
    assert_eq!(bom["bomFormat"], "CycloneDX");
    let components = bom["components"].as_array().unwrap();
    let has = |name: &str| components.iter().any(|component| component["name"] == name);
    assert!(components.len() > 200, "{}", components.len());
    assert!(has("rustls") && has("sqlx") && has("actix-http"));
    assert!(!has("proptest"), "tests are not in the program");
}

/// The steps that make the image's root, as the Dockerfile has them, and the program in there as any user of group 0.
#[test]
fn the_image_holds_what_the_program_needs_and_no_shell() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    let text = std::fs::read_to_string(home().join("Dockerfile")).unwrap();
    let step = text
        .split("RUN root=/root-of-image program=target/dist/image-share-gateway")
        .nth(1)
        .unwrap();
    let step = step
        .split("\n\nFROM")
        .next()
        .unwrap()
        .replace("mkdir /empty", "true");
    let script = format!(
        "root={} program={} {step}",
        root.display(),
        binary().get_program().to_str().unwrap()
    );
    good(Command::new("bash").args(["-euo", "pipefail", "-c", &script]));
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::copy(
        deploy("docker/image-share-gateway.toml"),
        root.join("etc/image-share-gateway.toml"),
    )
    .unwrap();
    std::fs::create_dir(root.join("data")).unwrap();
    assert!(
        !root.join("bin").exists() && !root.join("usr/bin").exists(),
        "no shell"
    );
    if !rustix::process::getuid().is_root() {
        // Only root may change the root.
        return;
    }
    let inside = |arguments: &[&str]| {
        let mut chroot = Command::new("chroot");
        chroot
            .arg("--userspec=1000660000:0")
            .arg(&root)
            .arg("/usr/local/bin/image-share-gateway");
        chroot.args(arguments).output().unwrap()
    };
    let version = inside(&["--version"]);
    assert!(version.status.success(), "{version:?}");
    let checked = inside(&["check-config", "--config", "/etc/image-share-gateway.toml"]);
    let told = String::from_utf8(checked.stderr).unwrap();
    assert_eq!(checked.status.code(), Some(2), "{told}");
    for line in told.lines().filter(|line| !line.contains("warning: ")) {
        assert!(
            line.contains("is required"),
            "the image says nothing that is wrong: {line}"
        );
    }
}

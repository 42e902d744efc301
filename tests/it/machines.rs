//! What real machines do: links, umasks, read-only copies, editors of Windows, proxies in the environment, containers.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{
    Gateway, Program, Reply, SECRET, Scripted, binary, environment, keys_file, set_of, share,
};

fn run(directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    binary()
        .args(arguments)
        .envs(variables.iter().copied())
        .current_dir(directory)
        .output()
        .unwrap()
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trail_may_be_named_by_a_link_and_its_lock_is_that_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    let real = directory.path().join("real");
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink("real/trail.db", directory.path().join("link.db")).unwrap();
    std::os::unix::fs::symlink("real", directory.path().join("folder")).unwrap();
    let upstream = Scripted::start(|_| Reply::Done).await;
    let with = |url: &'static str| {
        let mut variables = environment(&upstream.url);
        variables.push(("ISG__AUDIT__DATABASE_URL", url));
        variables
            .into_iter()
            .map(|(name, value)| (name, value.to_owned()))
            .collect::<Vec<_>>()
    };
    let spawn = |variables: &[(&str, String)]| {
        let variables: Vec<(&str, &str)> = variables
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        Program::spawn(directory.path(), &["serve"], &variables)
    };
    let mut program = spawn(&with("sqlite://link.db"));
    let base_url = program.base_url().await;
    assert_eq!(share(&base_url).await.status, 200);
    for other in [
        "sqlite://real/trail.db",
        "sqlite://folder/trail.db",
        "sqlite://link.db",
    ] {
        let mut second = spawn(&with(other));
        assert_eq!(second.wait().await, Some(1), "{other}: {}", second.log());
        assert!(
            second.log().contains("is in use by another gateway"),
            "{other}"
        );
        let verified = run(
            directory.path(),
            &["audit", "verify", "--database-url", other],
            &[],
        );
        assert_eq!(
            verified.status.code(),
            Some(0),
            "{other}: {}",
            words(&verified)
        );
    }
    program.signal(Signal::TERM);
    assert_eq!(program.wait().await, Some(0));
    assert!(real.join("trail.db.head").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trail_is_its_owners_alone_whatever_the_umask() {
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    let upstream = Scripted::start(|_| Reply::Done).await;
    for umask in ["000", "022", "0777"] {
        let mut command = std::process::Command::new("bash");
        command
            .args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")])
            .arg(env!("CARGO_BIN_EXE_image-share-gateway"))
            .stdin(std::process::Stdio::null());
        let database = format!("sqlite://{umask}/of/audit.db");
        let folder = directory.path().join(umask);
        if umask == "0777" {
            // A folder made so could not be used; the files in one that is there can.
            std::fs::create_dir_all(folder.join("of")).unwrap();
        }
        let mut variables = environment(&upstream.url);
        variables.push(("ISG__AUDIT__DATABASE_URL", &database));
        let mut program = Program::started(command, directory.path(), &["serve"], &variables);
        let base_url = program.base_url().await;
        assert_eq!(share(&base_url).await.status, 200);
        for name in [
            "audit.db",
            "audit.db-wal",
            "audit.db-shm",
            "audit.db.lock",
            "audit.db.head",
        ] {
            let path = folder.join("of").join(name);
            assert_eq!(mode(&path) & 0o177, 0, "{umask} {name}: {:o}", mode(&path));
        }
        if umask != "0777" {
            assert_eq!((mode(&folder), mode(&folder.join("of"))), (0o700, 0o700));
        }
        program.signal(Signal::TERM);
        assert_eq!(program.wait().await, Some(0), "{umask}: {}", program.log());
        std::fs::remove_file(directory.path().join("log")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_with_its_log_in_a_folder_that_is_only_read_can_be_verified() {
    let gateway = Gateway::spawn().await;
    let copied = tempfile::tempdir().unwrap();
    for account in 1..=20 {
        gateway
            .sharer()
            .put(&format!("/images/img/shares/{account}"))
            .await;
    }
    // As a snapshot takes it: the file, and the log that is not folded in yet.
    for suffix in ["", "-wal"] {
        let from = format!("{}{suffix}", gateway.database().display());
        std::fs::copy(from, copied.path().join(format!("copy.db{suffix}"))).unwrap();
    }
    let read_only = copied.path().join("mounted");
    std::fs::create_dir(&read_only).unwrap();
    let bind = |arguments: &[&str]| {
        std::process::Command::new("mount")
            .args(arguments)
            .status()
            .is_ok_and(|status| status.success())
    };
    let (from, to) = (copied.path().to_str().unwrap(), read_only.to_str().unwrap());
    if !bind(&["--bind", from, to]) || !bind(&["-o", "remount,ro,bind", to]) {
        return;
    }
    let url = format!("sqlite://{to}/copy.db");
    let verified = run(
        copied.path(),
        &["audit", "verify", "--database-url", &url],
        &[],
    );
    let exported = run(
        copied.path(),
        &["audit", "export", "--database-url", &url],
        &[],
    );
    let _ = std::process::Command::new("umount")
        .args(["-l", to])
        .status();
    assert_eq!(verified.status.code(), Some(0), "{}", words(&verified));
    let head = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(
        head.starts_with("main:40:"),
        "with what the log holds: {head}"
    );
    let events = String::from_utf8_lossy(&exported.stdout).lines().count();
    assert_eq!(events, 20, "{}", words(&exported));
    assert!(
        !copied.path().join("copy.db-shm").exists(),
        "nothing was made"
    );
}

/// A text as an editor of Windows saves it.
fn utf_16(text: &str) -> Vec<u8> {
    let mark = std::iter::once(0xfeff_u16);
    mark.chain(text.encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_editors_that_put_a_mark_before_are_read_and_others_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let set = set_of("test", SECRET);
    let policies = "permit(principal, action, resource);";
    let upstream = Scripted::start(|_| Reply::Done).await;
    let marked = |text: &str| format!("\u{feff}{text}\r\n").into_bytes();
    let write =
        |name: &str, bytes: &[u8]| std::fs::write(directory.path().join(name), bytes).unwrap();
    write("keys.json", &marked(&set));
    write("policies.cedar", &marked(policies));
    write("public", &marked("the-public-key \t"));
    write("private", &marked("  the-private-key"));
    let config = format!(
        "[server]\nbind = \"127.0.0.1:0\"\nadmin_bind = \"\"\n[auth]\nissuer = \"https://issuer.example\"\n\
         audience = \"image-share-gateway\"\njwks_file = \"keys.json\"\n[authorization]\npolicy_file = \"policies.cedar\"\n\
         [upstream]\nbase_url = \"{}\"\npublic_key_file = \"public\"\nprivate_key_file = \"private\"\n",
        upstream.url
    );
    write("gateway.toml", &marked(&config));
    let arguments = ["serve", "--config", "gateway.toml"];
    let mut program = Program::spawn(directory.path(), &arguments, &[]);
    let base_url = program.base_url().await;
    assert_eq!(share(&base_url).await.status, 200);
    let calls = upstream.calls();
    assert_eq!(calls[0].fields["PublicKey"], "the-public-key");
    assert!(
        program.log().contains("can be read by others"),
        "a secret for all to read is told"
    );
    program.signal(Signal::TERM);
    assert_eq!(program.wait().await, Some(0));

    write("keys.json", &utf_16(&set));
    write("policies.cedar", &utf_16(policies));
    write("private", &utf_16("key"));
    write("public", b"\xff\xfe\xfd");
    let ended = run(directory.path(), &arguments, &[]);
    assert_eq!(ended.status.code(), Some(2));
    let told = words(&ended);
    for key in [
        "auth.jwks_file",
        "authorization.policy_file",
        "upstream.private_key_file",
    ] {
        let line = told.lines().find(|line| line.contains(key)).expect(key);
        assert!(line.contains("UTF-16"), "{line}");
    }
    write("gateway.toml", &utf_16(&config));
    let ended = run(directory.path(), &arguments, &[]);
    assert_eq!(ended.status.code(), Some(2));
    assert!(words(&ended).contains("UTF-16"), "{}", words(&ended));
}

#[test]
fn a_proxy_that_cannot_be_used_is_a_fault_that_names_its_variable() {
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    let real = environment("https://api.example.invalid");
    let with = |more: &[(&str, &str)]| {
        let mut variables = real.clone();
        variables.extend(more);
        run(directory.path(), &["serve"], &variables)
    };
    for (name, value) in [
        ("ALL_PROXY", "socks5://127.0.0.1:1080"),
        ("HTTPS_PROXY", "socks5h://127.0.0.1:1080"),
        ("https_proxy", "socks4://127.0.0.1:1080"),
        ("HTTPS_PROXY", "ftp://127.0.0.1"),
        ("ISG__UPSTREAM__PROXY", "socks5://127.0.0.1:1080"),
        ("ISG__UPSTREAM__PROXY", "127.0.0.1:3128"),
        ("ISG__UPSTREAM__PROXY", "direct"),
    ] {
        let ended = with(&[(name, value)]);
        assert_eq!(ended.status.code(), Some(2), "{name}={value}");
        let told = words(&ended);
        assert!(
            told.contains("upstream.proxy") && told.contains(name),
            "{name}: {told}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_through_the_proxy_that_is_named_and_through_none_where_none_is() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, mut asked) = tokio::sync::mpsc::unbounded_channel();
    #[expect(clippy::disallowed_methods, reason = "the proxy ends with its test")]
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 1024];
            let length = stream.read(&mut head).await.unwrap_or(0);
            let first = String::from_utf8_lossy(&head[..length])
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned();
            let _ = sender.send(first);
            let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await;
        }
    });
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    let proxy = format!("http://{address}");
    let mut asks = async |more: &[(&str, &str)]| {
        let mut variables = environment("https://api.example.invalid");
        variables.push(("ISG__UPSTREAM__MAX_RETRIES", "0"));
        variables.extend(more);
        let program = Program::spawn(directory.path(), &["serve"], &variables);
        assert_eq!(share(&program.base_url().await).await.status, 503);
        drop(program);
        std::fs::remove_file(directory.path().join("log")).unwrap();
        asked.try_recv().ok()
    };
    let connect = "CONNECT api.example.invalid:443 HTTP/1.1";
    let named = asks(&[("ISG__UPSTREAM__PROXY", &proxy)]).await;
    assert_eq!(named.as_deref(), Some(connect));
    let of_the_environment = asks(&[("HTTPS_PROXY", &proxy)]).await;
    assert_eq!(of_the_environment.as_deref(), Some(connect));
    let not_for_this_host = [
        ("HTTPS_PROXY", proxy.as_str()),
        ("NO_PROXY", "example.invalid"),
    ];
    assert_eq!(asks(&not_for_this_host).await, None);
    let none = [
        ("HTTPS_PROXY", proxy.as_str()),
        ("ISG__UPSTREAM__PROXY", "none"),
    ];
    assert_eq!(asks(&none).await, None);
    let socks_for_others = [
        ("ALL_PROXY", "socks5://127.0.0.1:9"),
        ("NO_PROXY", "localhost, .example.invalid"),
    ];
    assert_eq!(asks(&socks_for_others).await, None);
    // Whatever the environment says, `none` is none.
    let socks = [
        ("ALL_PROXY", "socks5://127.0.0.1:9"),
        ("ISG__UPSTREAM__PROXY", "none"),
    ];
    assert_eq!(asks(&socks).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_finds_the_policies_gone_keeps_them() {
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    let policies = "@id(\"nobody\")\nforbid(principal, action, resource);";
    std::fs::write(directory.path().join("policies.cedar"), policies).unwrap();
    let config = |policy_file: &str| {
        let text = format!("[server]\nbind = \"127.0.0.1:0\"\nadmin_bind = \"\"\n{policy_file}");
        std::fs::write(directory.path().join("gateway.toml"), text).unwrap();
    };
    config("[authorization]\npolicy_file = \"policies.cedar\"\n");
    let mut variables = environment("http://127.0.0.1:9");
    variables.retain(|(name, _)| !name.contains("BIND"));
    let program = Program::spawn(
        directory.path(),
        &["serve", "--config", "gateway.toml"],
        &variables,
    );
    let base_url = program.base_url().await;
    share(&base_url).await.assert_problem(403, "forbidden");
    config("");
    program.signal(Signal::HUP);
    program
        .wait_for_log("authorization.policy_file is not configured any more; what it was stays")
        .await;
    let told = "reloaded: keys for tokens, keys for the upstream";
    program.wait_for_log(told).await;
    share(&base_url).await.assert_problem(403, "forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_takes_a_files_key_back() {
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    let text = "[server]\nrequest_timeout = \"nonsense\"\n[authorization]\npolicy_file = \"none.cedar\"\n\
                [upstream]\nproject_id = \"org-1\"\n";
    std::fs::write(directory.path().join("gateway.toml"), text).unwrap();
    let upstream = Scripted::start(|_| Reply::Done).await;
    let mut variables = environment(&upstream.url);
    variables.extend([
        ("ISG__SERVER__REQUEST_TIMEOUT", ""),
        ("ISG__AUTHORIZATION__POLICY_FILE", ""),
        ("ISG__UPSTREAM__PROJECT_ID", ""),
    ]);
    let program = Program::spawn(
        directory.path(),
        &["serve", "--config", "gateway.toml"],
        &variables,
    );
    assert_eq!(share(&program.base_url().await).await.status, 200);
    assert!(!upstream.calls()[0].fields.contains_key("ProjectId"));
}

#[test]
fn words_name_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let verified = run(
        directory.path(),
        &["audit", "verify", "--database-url", "foo"],
        &[],
    );
    assert_eq!(verified.status.code(), Some(2));
    let told = words(&verified);
    assert!(
        told.contains("--database-url must be sqlite://PATH") && !told.contains("environment"),
        "{told}"
    );
    for command in [["audit", "verify"], ["audit", "export"]] {
        let arguments = [
            command[0],
            command[1],
            "--database-url",
            "sqlite://nowhere.db",
        ];
        let looked = run(directory.path(), &arguments, &[]);
        assert_ne!(looked.status.code(), Some(0));
        assert!(
            words(&looked).contains("there is no such file"),
            "{}",
            words(&looked)
        );
        assert!(
            !directory.path().join("nowhere.db").exists(),
            "none is made"
        );
    }
}

#[test]
fn a_certificate_that_cannot_be_used_is_told_apart_from_a_key_that_does_not_fit() {
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    let one = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    write("key.pem", &one.signing_key.serialize_pem());
    let variables = |cert: &'static str| {
        let mut variables = environment("http://127.0.0.1:9");
        variables.extend([
            ("ISG__SERVER__TLS_CERT_FILE", cert),
            ("ISG__SERVER__TLS_KEY_FILE", "key.pem"),
        ]);
        variables
    };
    write("other.pem", &other.cert.pem());
    let ended = run(directory.path(), &["serve"], &variables("other.pem"));
    assert!(
        words(&ended).contains("does not fit the certificate"),
        "{}",
        words(&ended)
    );
    // A certificate in form alone.
    write(
        "odd.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let ended = run(directory.path(), &["serve"], &variables("odd.pem"));
    assert_eq!(ended.status.code(), Some(2));
    let told = words(&ended);
    assert!(
        !told.contains("does not fit") && told.contains("server.tls_cert_file (environment"),
        "{told}"
    );
}

#[test]
fn policy_check_reads_paths_as_the_routes_do() {
    let directory = tempfile::tempdir().unwrap();
    let policies = "permit(principal, action == Action::\"share\", resource == Image::\"img-1\");";
    std::fs::write(directory.path().join("p.cedar"), policies).unwrap();
    std::fs::write(
        directory.path().join("c.json"),
        r#"{"sub":"a","scope":"shares:read shares:write"}"#,
    )
    .unwrap();
    std::fs::write(
        directory.path().join("g.toml"),
        "[upstream]\nregion = \"cn-sh2\"\n",
    )
    .unwrap();
    let check = |method: &str, path: &str, more: &[&str]| {
        let mut arguments = vec![
            "policy", "check", "--policy", "p.cedar", "--claims", "c.json", "--method", method,
            "--path", path,
        ];
        arguments.extend(more);
        run(directory.path(), &arguments, &[])
    };
    for (method, path, more, code) in [
        ("PUT", "/images/img-1/shares/7", &[][..], 0),
        ("put", "/images/img%2D1/shares/7", &[], 0),
        ("PUT", "/images/%69mg-1/shares/%37?reason=a%20b", &[], 0),
        ("DELETE", "/images/img-1/shares/7", &[], 1),
        ("HEAD", "/images/img-1/shares/7", &[], 1),
        ("GET", "/readyz", &[], 0),
        ("GET", "/swagger-ui/index.html", &[], 0),
        ("PUT", "/images/img-1/shares/7?region=cn-sh2", &[], 0),
        (
            "PUT",
            "/images/img-1/shares/7?region=cn-sh2",
            &["--config", "g.toml"],
            0,
        ),
        ("PUT", "/images/img-1/shares/7", &["--config", "g.toml"], 0),
        (
            "PUT",
            "/images/img-1/shares/7?region=cn-wlcb",
            &["--config", "g.toml"],
            2,
        ),
        ("PUT", "/images/img%2F1/shares/7", &[], 2),
        ("PUT", "/images/img-1/shares/07", &[], 2),
        ("PUT", "/images/img-1/shares/7?colour=blue", &[], 2),
        ("PUT", "/images/img-1/shares/7?limit=5", &[], 2),
        ("PUT", "/images/img-1/shares/7?dry_run=perhaps", &[], 2),
        ("GET", "/images/img-1/shares?reason=hello", &[], 2),
        ("GET", "/audit/events?colour=blue", &[], 2),
        ("GET", "/audit/events?limit=007", &[], 2),
        ("GET", "/images?limit=101", &[], 2),
        ("GET", "/audit/events?subject=a&limit=7", &[], 1),
        ("PUT", "/images/img-1/shares/7/", &[], 2),
        ("PATCH", "/images/img-1/shares", &[], 2),
        ("POST", "/images/img-1/shares/7", &[], 2),
        ("GET", "/nothing", &[], 2),
        ("GET", "images", &[], 2),
    ] {
        let checked = check(method, path, more);
        assert_eq!(
            checked.status.code(),
            Some(code),
            "{method} {path} {more:?}: {checked:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_the_service_does_not_know_shows_in_the_sandbox() {
    let sandbox = Gateway::spawn().await;
    assert_eq!(
        sandbox
            .sharer()
            .put("/images/img/shares/7?region=cn-sh2")
            .await
            .status,
        200
    );
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let variables = [
        ("ISG__SERVER__BIND", "127.0.0.1:0"),
        ("ISG__SERVER__ADMIN_BIND", ""),
        ("ISG__UPSTREAM__REGION", "cn-wlcp"),
    ];
    drop(listener);
    let program = Program::spawn(directory.path(), &["serve", "--sandbox"], &variables);
    let curl = program.line(|line| line.starts_with("curl -i"));
    let answered = std::process::Command::new("sh")
        .args(["-c", &curl])
        .output()
        .unwrap();
    let answered = String::from_utf8_lossy(&answered.stdout).into_owned();
    assert!(answered.starts_with("HTTP/1.1 502"), "{answered}");
    assert!(
        answered.contains("230") && answered.contains("Params [Region] not available"),
        "{answered}"
    );
}

#[test]
fn the_images_own_configuration_is_one_and_says_what_containers_need() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = root.join("deploy/docker/image-share-gateway.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    for line in [
        "bind = \"0.0.0.0:8080\"",
        "admin_bind = \"0.0.0.0:9090\"",
        "sqlite:///data/audit.db",
    ] {
        assert!(text.contains(line), "{line}");
    }
    let directory = tempfile::tempdir().unwrap();
    let ended = run(
        directory.path(),
        &["serve", "--config", file.to_str().unwrap()],
        &[],
    );
    assert_eq!(ended.status.code(), Some(2));
    let told = words(&ended);
    let missing = [
        "auth.issuer",
        "auth.audience",
        "auth.jwks_file",
        "upstream.public_key",
        "upstream.private_key",
    ];
    assert_eq!(
        told.lines().count(),
        missing.len(),
        "nothing but what nobody can guess: {told}"
    );
    let dockerfile = std::fs::read_to_string(root.join("Dockerfile")).unwrap();
    assert!(
        !dockerfile.contains("ENV "),
        "it would beat a file that is mounted"
    );
    assert!(
        dockerfile.contains("--chown=65532:0 --chmod=0770"),
        "any user of group 0"
    );
}

#[test]
fn token_signs_with_a_key_that_is_for_signing() {
    let directory = tempfile::tempdir().unwrap();
    let mut set: serde_json::Value = serde_json::from_str(&set_of("test", SECRET)).unwrap();
    for (operations, code) in [
        (json!(["sign"]), 0),
        (json!(["sign", "verify"]), 0),
        (json!([]), 0),
        (json!(null), 0),
        (json!(["verify"]), 2),
        (json!(["encrypt"]), 2),
    ] {
        set["keys"][0]["key_ops"] = operations.clone();
        std::fs::write(directory.path().join("keys.json"), set.to_string()).unwrap();
        let arguments = [
            "token",
            "--sub",
            "a",
            "--scope",
            "b",
            "--iss",
            "i",
            "--aud",
            "g",
            "--jwks",
            "keys.json",
        ];
        let ended = run(directory.path(), &arguments, &[]);
        assert_eq!(ended.status.code(), Some(code), "{operations}: {ended:?}");
    }
}

#[test]
fn the_document_in_yaml_reads_the_same_by_readers_of_yaml_1_1() {
    let yaml = binary()
        .args(["openapi", "--format", "yaml"])
        .output()
        .unwrap()
        .stdout;
    let json = binary().arg("openapi").output().unwrap().stdout;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.yaml"), yaml).unwrap();
    std::fs::write(directory.path().join("a.json"), json).unwrap();
    let program =
        "import yaml, json\nassert yaml.safe_load(open('a.yaml')) == json.load(open('a.json'))";
    let read = std::process::Command::new(crate::support::python())
        .args(["-c", program])
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert!(read.status.success(), "{}", words(&read));
}

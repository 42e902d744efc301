//! TLS on the REST listener.

use rcgen::{CertificateParams, KeyPair};

use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use rustix::process::Signal;

use crate::support::{
    Authority, Certificates, Gateway, Leaf, Program, binary, environment, eventually, keys_file,
};

#[tokio::test(flavor = "multi_thread")]
async fn rest_is_served_over_tls_where_a_certificate_is_configured() {
    let certificates = Certificates::of("127.0.0.1");
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("cert.pem"), &certificates.certificate).unwrap();
    std::fs::write(path("key.pem"), &certificates.key).unwrap();
    let (cert_file, key_file) = (path("cert.pem"), path("key.pem"));
    let settings = [
        ("server.tls_cert_file", cert_file.as_str()),
        ("server.tls_key_file", key_file.as_str()),
    ];
    let gateway = Gateway::in_front_of("http://127.0.0.1:9", &settings).await;
    assert!(
        gateway.base_url.starts_with("https://"),
        "{}",
        gateway.base_url
    );

    let trusted = reqwest::Certificate::from_pem(certificates.authority.as_bytes()).unwrap();
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([trusted])
        .build()
        .unwrap();
    let answer = client
        .get(format!("{}/livez", gateway.base_url))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    // What clients offer in the handshake, and an upgrade behind it.
    for offer in [
        &["--http1.0"][..],
        &["--http1.1"],
        &["--http2"],
        &["--no-alpn"],
        &["-H", "Connection: Upgrade", "-H", "Upgrade: websocket"],
    ] {
        let asked = std::process::Command::new("curl")
            .args(["-s", "-f", "-k", "--noproxy", "*"])
            .args(offer)
            .arg(format!("{}/livez", gateway.base_url))
            .output()
            .unwrap();
        assert!(asked.status.success(), "{offer:?}: {asked:?}");
    }
    let plain = gateway.base_url.replace("https://", "http://");
    assert!(
        reqwest::get(format!("{plain}/livez")).await.is_err(),
        "and in the clear nothing is answered"
    );
}

#[test]
fn a_key_that_does_not_fit_its_certificate_is_a_fault_of_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let certificate = CertificateParams::new(vec!["gateway".to_owned()])
        .unwrap()
        .self_signed(&one)
        .unwrap();
    std::fs::write(directory.path().join("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(directory.path().join("key.pem"), other.serialize_pem()).unwrap();
    let mut serve = binary();
    serve
        .args(["serve", "--sandbox"])
        .current_dir(directory.path())
        .envs([
            ("ISG__SERVER__TLS_CERT_FILE", "cert.pem"),
            ("ISG__SERVER__TLS_KEY_FILE", "key.pem"),
            ("ISG__AUTH__LEEWAY", "soon"),
        ]);
    let ended = serve.output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(2), "{told}");
    assert!(
        told.contains("server.tls_key_file") && told.contains("does not fit"),
        "{told}"
    );
    assert!(
        told.contains("auth.leeway"),
        "with all other faults: {told}"
    );
}

/// A directory with keys, and what `serve` needs to serve TLS from there.
fn directory(leaf: &Leaf) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    put(&directory, leaf);
    directory
}

fn put(directory: &tempfile::TempDir, leaf: &Leaf) {
    std::fs::write(directory.path().join("cert.pem"), &leaf.certificate).unwrap();
    std::fs::write(directory.path().join("key.pem"), &leaf.key).unwrap();
}

const TLS: [(&str, &str); 3] = [
    ("ISG__SERVER__TLS_CERT_FILE", "cert.pem"),
    ("ISG__SERVER__TLS_KEY_FILE", "key.pem"),
    ("ISG__SERVER__ADMIN_BIND", "127.0.0.1:0"),
];

fn serve(directory: &tempfile::TempDir, more: &[(&'static str, &'static str)]) -> Program {
    let mut settings = environment("http://127.0.0.1:9");
    settings.extend(TLS);
    settings.extend(more);
    Program::spawn(directory.path(), &["serve"], &settings)
}

/// A client that trusts this authority alone, perhaps with a certificate of its own.
fn client(authority: &Authority, identity: Option<&Leaf>) -> reqwest::Client {
    let trusted = reqwest::Certificate::from_pem(authority.pem.as_bytes()).unwrap();
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([trusted]);
    let client = match identity {
        None => client,
        Some(leaf) => {
            let pem = format!("{}{}", leaf.certificate, leaf.key);
            client.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap())
        }
    };
    client.build().unwrap()
}

async fn livez(program: &Program, client: &reqwest::Client) -> Result<u16, reqwest::Error> {
    let url = program.base_url().await.replace("http://", "https://");
    let answer = client.get(format!("{url}/livez")).send().await?;
    Ok(answer.status().as_u16())
}

async fn metrics(program: &Program) -> String {
    let url = format!("{}/metrics", program.admin_url().await);
    let answer = crate::support::client().get(url).send().await.unwrap();
    answer.text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_replaced_at_sighup_and_a_faulty_pair_keeps_the_old_one() {
    let (before, after) = (Authority::new(), Authority::new());
    let leaf = before.certify("127.0.0.1");
    let directory = directory(&leaf);
    let program = serve(&directory, &[]);
    let (old, new) = (client(&before, None), client(&after, None));
    assert_eq!(livez(&program, &old).await.unwrap(), 200);
    assert!(
        livez(&program, &new).await.is_err(),
        "the other authority is not known yet"
    );

    let other = after.certify("127.0.0.1");
    std::fs::write(directory.path().join("cert.pem"), &other.certificate).unwrap();
    program.signal(Signal::HUP);
    program
        .wait_for_log("not reloaded: server.tls_key_file")
        .await;
    let fresh = client(&before, None);
    assert_eq!(
        livez(&program, &fresh).await.unwrap(),
        200,
        "half a pair is none"
    );
    let counted = metrics(&program).await;
    assert!(
        counted.contains(r#"isg_reloads_total{what="tls",result="failed"} 1"#),
        "{counted}"
    );

    put(&directory, &other);
    program.signal(Signal::HUP);
    program.wait_for_log("reloaded: keys").await;
    assert_eq!(livez(&program, &new).await.unwrap(), 200);
    assert_eq!(
        livez(&program, &old).await.unwrap(),
        200,
        "its connection is not dropped"
    );
    assert!(livez(&program, &client(&before, None)).await.is_err());
    let counted = metrics(&program).await;
    assert!(
        counted.contains(r#"isg_reloads_total{what="tls",result="ok"} 1"#),
        "{counted}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_need_a_certificate_of_the_authority_where_one_is_configured() {
    let (ours, theirs, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let directory = directory(&ours.certify("127.0.0.1"));
    let authorities = directory.path().join("clients.pem");
    std::fs::write(&authorities, &theirs.pem).unwrap();
    let program = serve(
        &directory,
        &[("ISG__SERVER__CLIENT_CA_FILE", "clients.pem")],
    );
    let good = theirs.certify("team-a");
    assert_eq!(
        livez(&program, &client(&ours, Some(&good))).await.unwrap(),
        200
    );
    assert!(livez(&program, &client(&ours, None)).await.is_err());
    let strange = strangers.certify("team-a");
    assert!(
        livez(&program, &client(&ours, Some(&strange)))
            .await
            .is_err()
    );
    // Whoever watches it has no certificate, and asks the other listener.
    let healthcheck = |admin: &str| {
        let mut command = binary();
        let mut settings = environment("http://127.0.0.1:9");
        settings.extend(TLS);
        command
            .arg("healthcheck")
            .envs(settings)
            .env("ISG__SERVER__CLIENT_CA_FILE", "clients.pem")
            .env("ISG__SERVER__ADMIN_BIND", admin)
            .current_dir(directory.path());
        command.output().unwrap()
    };
    let admin = program.admin_url().await.replace("http://", "");
    let healthy = healthcheck(&admin);
    assert!(healthy.status.success(), "{healthy:?}");
    // They rotate too.
    std::fs::write(&authorities, &strangers.pem).unwrap();
    program.signal(Signal::HUP);
    program.wait_for_log("reloaded: keys").await;
    assert_eq!(
        livez(&program, &client(&ours, Some(&strange)))
            .await
            .unwrap(),
        200
    );
    assert!(livez(&program, &client(&ours, Some(&good))).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_kind_and_chains_serve_and_browsers_are_told_to_stay_with_tls() {
    let authority = Authority::new();
    let script = |arguments: &[&str], input: &str| {
        use std::io::Write as _;
        let mut openssl = std::process::Command::new("openssl");
        let mut openssl = openssl
            .args(arguments)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        openssl
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        let output = openssl.wait_with_output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let p256 = authority.certify("127.0.0.1");
    let rsa = {
        let key = script(&["genrsa", "-traditional", "2048"], "");
        let pair = KeyPair::from_pem(&script(&["pkcs8", "-topk8", "-nocrypt"], &key)).unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        (
            Leaf {
                certificate: params.self_signed(&pair).unwrap().pem(),
                key,
            },
            false,
        )
    };
    let sec1 = {
        // As `openssl ecparam -genkey` writes it, the parameters before the key.
        let key = script(&["ec"], &p256.key);
        let parameters = script(&["ecparam", "-name", "prime256v1"], "");
        let certificate = p256.certificate.clone();
        (
            Leaf {
                certificate,
                key: format!("{parameters}{key}"),
            },
            true,
        )
    };
    let chain = {
        let leaf = authority.certify("127.0.0.1");
        let certificate = format!("{}{}", leaf.certificate, authority.pem);
        (
            Leaf {
                certificate,
                ..leaf
            },
            true,
        )
    };
    let p384 = authority.certify_key("127.0.0.1", &PKCS_ECDSA_P384_SHA384, None);
    let ed25519 = authority.certify_key("127.0.0.1", &PKCS_ED25519, None);
    for (leaf, of_authority) in [
        rsa,
        sec1,
        chain,
        (p256, true),
        (p384, true),
        (ed25519, true),
    ] {
        let kind = leaf.key.lines().next().unwrap().to_owned();
        let directory = directory(&leaf);
        let program = serve(&directory, &[]);
        let trusted = if of_authority {
            authority.pem.clone()
        } else {
            leaf.certificate.clone()
        };
        std::fs::write(directory.path().join("ca.pem"), trusted).unwrap();
        let url = program.base_url().await.replace("http://", "https://");
        for version in ["--tlsv1.2", "--tlsv1.3"] {
            let mut curl = std::process::Command::new("curl");
            curl.args([
                "-s",
                "-i",
                "--noproxy",
                "*",
                "--cacert",
                "ca.pem",
                version,
                "--tls-max",
                &version[6..],
            ])
            .arg(format!("{url}/livez"))
            .current_dir(directory.path());
            let answered = String::from_utf8(curl.output().unwrap().stdout).unwrap();
            assert!(
                answered.starts_with("HTTP/1.1 200"),
                "{kind} {version}: {answered}"
            );
            assert!(
                answered.contains("strict-transport-security: max-age=31536000"),
                "{answered}"
            );
        }
        let old = std::process::Command::new("curl")
            .args([
                "-s",
                "-k",
                "--noproxy",
                "*",
                "--tls-max",
                "1.1",
                "--ciphers",
                "DEFAULT@SECLEVEL=0",
            ])
            .arg(format!("{url}/livez"))
            .output()
            .unwrap();
        assert!(!old.status.success(), "TLS 1.1 is none any more");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ends_soon_is_told_at_the_start_in_a_metric_and_by_check_config() {
    let authority = Authority::new();
    for (days, told) in [(10, Some("ends in")), (-1, Some("has ended")), (40, None)] {
        let leaf = authority.certify_key("127.0.0.1", &PKCS_ED25519, Some(days));
        let directory = directory(&leaf);
        let program = serve(&directory, &[]);
        let counted = metrics(&program).await;
        let line = counted
            .lines()
            .find_map(|line| line.strip_prefix("isg_tls_certificate_expiry_timestamp_seconds "))
            .unwrap_or_else(|| panic!("{counted}"));
        let ends: i64 = line.parse().unwrap();
        let expected = jiff::Timestamp::now().as_second() + days * 24 * 3600;
        assert!(
            (ends - expected).abs() <= 24 * 3600,
            "{ends} and {expected}"
        );
        let mut check = binary();
        let mut settings = environment("http://127.0.0.1:9");
        settings.extend(TLS);
        check
            .arg("check-config")
            .envs(settings)
            .current_dir(directory.path());
        let checked = String::from_utf8(check.output().unwrap().stderr).unwrap();
        match told {
            Some(told) => {
                assert!(program.log().contains(told), "{days}: {}", program.log());
                assert!(checked.contains(told), "{checked}");
            }
            None => assert!(!checked.contains("certificate"), "{checked}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_reload_does_not_take_is_told_by_name() {
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    let file = directory.path().join("gateway.toml");
    std::fs::write(
        &file,
        "[server]\nkeep_alive = \"75s\"\n[limits]\nburst = 100\n",
    )
    .unwrap();
    let settings = environment("http://127.0.0.1:9");
    let program = Program::spawn(
        directory.path(),
        &["serve", "--config", "gateway.toml"],
        &settings,
    );
    program.base_url().await;
    let changed = "[auth]\nleeway = \"30s\"\n[server]\nkeep_alive = \"60s\"\n[limits]\nburst = 100\n[audit]\ndatabase_url = \"sqlite://other.db\"\n";
    std::fs::write(&file, changed).unwrap();
    program.signal(Signal::HUP);
    program.wait_for_log("reloaded: keys").await;
    let log = program.log();
    for key in ["server.keep_alive", "audit.database_url"] {
        assert!(
            log.contains(&format!("{key} is another than at the start")),
            "{key} in {log}"
        );
    }
    assert!(!log.contains("limits.burst is another"), "{log}");
    // Where issuers are others nothing is taken, and all that is another is told.
    let changed = changed.replace(
        "leeway = \"30s\"",
        "leeway = \"5s\"\nscope_claims = \"roles\"",
    );
    std::fs::write(&file, changed.replace("burst = 100", "burst = 7")).unwrap();
    program.signal(Signal::HUP);
    for key in [
        "auth.leeway",
        "auth.scope_claims",
        "limits.burst",
        "server.keep_alive",
    ] {
        program
            .wait_for_log(&format!(
                "not reloaded: {key}: is another than at the start"
            ))
            .await;
    }
}

/// Whoever takes a limit away stops the gateway for it; a line is forgotten more easily.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_names_no_authorities_of_clients_any_more_keeps_them_and_says_so() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let directory = directory(&ours.certify("127.0.0.1"));
    std::fs::write(directory.path().join("clients.pem"), &theirs.pem).unwrap();
    let file = directory.path().join("gateway.toml");
    let tls = "[server]\ntls_cert_file = \"cert.pem\"\ntls_key_file = \"key.pem\"\n";
    std::fs::write(&file, format!("{tls}client_ca_file = \"clients.pem\"\n")).unwrap();
    let mut settings = environment("http://127.0.0.1:9");
    settings.push(TLS[2]);
    settings.retain(|(name, value)| *name != "ISG__SERVER__ADMIN_BIND" || !value.is_empty());
    let program = Program::spawn(
        directory.path(),
        &["serve", "--config", "gateway.toml"],
        &settings,
    );
    assert!(livez(&program, &client(&ours, None)).await.is_err());
    std::fs::write(&file, tls).unwrap();
    program.signal(Signal::HUP);
    program
        .wait_for_log("server.client_ca_file is not configured any more")
        .await;
    program.wait_for_log("reloaded: keys").await;
    assert!(livez(&program, &client(&ours, None)).await.is_err());
    let good = theirs.certify("team-a");
    assert_eq!(
        livez(&program, &client(&ours, Some(&good))).await.unwrap(),
        200
    );
    // Those of now are kept and not those of the start, also where their file is gone.
    let others = Authority::new();
    std::fs::write(directory.path().join("others.pem"), &others.pem).unwrap();
    std::fs::write(&file, format!("{tls}client_ca_file = \"others.pem\"\n")).unwrap();
    program.signal(Signal::HUP);
    let newer = others.certify("team-a");
    eventually("they are others", async || {
        livez(&program, &client(&ours, Some(&newer))).await.ok()
    })
    .await;
    std::fs::remove_file(directory.path().join("clients.pem")).unwrap();
    std::fs::write(&file, tls).unwrap();
    program.signal(Signal::HUP);
    let kept = "server.client_ca_file is not configured any more";
    eventually("it is said again", async || {
        (program.log().matches(kept).count() == 2).then_some(())
    })
    .await;
    eventually("it is reloaded", async || {
        (program.log().matches("reloaded: keys").count() == 3).then_some(())
    })
    .await;
    assert!(
        livez(&program, &client(&ours, Some(&good))).await.is_err(),
        "they were withdrawn"
    );
    assert_eq!(
        livez(&program, &client(&ours, Some(&newer))).await.unwrap(),
        200
    );
    // TLS that is not configured any more stays, and is not said to be read.
    std::fs::write(&file, "").unwrap();
    let before = metrics(&program).await;
    program.signal(Signal::HUP);
    program
        .wait_for_log("server.tls_cert_file is another")
        .await;
    program
        .wait_for_log("reloaded: keys for tokens, keys for the upstream\"")
        .await;
    let taken = r#"isg_reloads_total{what="tls",result="ok"} 3"#;
    assert!(before.contains(taken) && metrics(&program).await.contains(taken));
}

/// A file that does not answer holds up neither requests nor a stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_hangs_on_a_file_stops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    let file = directory.path().join("gateway.toml");
    std::fs::write(&file, "").unwrap();
    let settings = environment("http://127.0.0.1:9");
    let mut program = Program::spawn(
        directory.path(),
        &["serve", "--config", "gateway.toml"],
        &settings,
    );
    let url = program.base_url().await;
    std::fs::remove_file(&file).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(&file)
        .status()
        .unwrap();
    assert!(made.success());
    program.signal(Signal::HUP);
    for _ in 0..20 {
        let answer = crate::support::client()
            .get(format!("{url}/livez"))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
    }
    program.signal(Signal::TERM);
    assert_eq!(program.wait().await, Some(0));
}

#[test]
fn faults_of_certificates_and_keys_say_which_it_is_and_what_would_do() {
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    let openssl = |arguments: &[&str]| {
        let mut openssl = std::process::Command::new("openssl");
        let made = openssl
            .args(arguments)
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
    };
    openssl(&[
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "key.pem",
        "-out",
        "asked.pem",
        "-subj",
        "/CN=x",
    ]);
    openssl(&[
        "x509",
        "-req",
        "-in",
        "asked.pem",
        "-key",
        "key.pem",
        "-out",
        "cert.pem",
    ]);
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:1024",
        "-nodes",
        "-keyout",
        "short.pem",
        "-out",
        "short-cert.pem",
        "-subj",
        "/CN=x",
    ]);
    let told = |cert: &str, key: &str| {
        let mut check = binary();
        let mut settings = environment("http://127.0.0.1:9");
        settings.extend([
            ("ISG__SERVER__TLS_CERT_FILE", cert),
            ("ISG__SERVER__TLS_KEY_FILE", key),
        ]);
        check
            .arg("check-config")
            .envs(settings)
            .current_dir(directory.path());
        let ended = check.output().unwrap();
        assert_eq!(ended.status.code(), Some(2));
        String::from_utf8(ended.stderr).unwrap()
    };
    let old = told("cert.pem", "key.pem");
    assert!(
        old.contains("server.tls_cert_file") && old.contains("version 3"),
        "{old}"
    );
    assert!(!old.contains("OtherError"), "{old}");
    let short = told("short-cert.pem", "short.pem");
    assert!(
        short.contains("server.tls_key_file") && short.contains("RSA from 2048 bits"),
        "{short}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_hangs_on_a_file_can_be_stopped() {
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    let made = std::process::Command::new("mkfifo")
        .arg(directory.path().join("p.cedar"))
        .status();
    assert!(made.unwrap().success());
    let mut settings = environment("http://127.0.0.1:9");
    settings.push(("ISG__AUTHORIZATION__POLICY_FILE", "p.cedar"));
    let mut program = Program::spawn(directory.path(), &["serve"], &settings);
    let status = format!("/proc/{}/status", program.id());
    eventually("it listens to signals", async || {
        let status = std::fs::read_to_string(&status).unwrap();
        let caught = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))
            .unwrap();
        let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
        (caught & (1 << 14) != 0).then_some(())
    })
    .await;
    program.signal(Signal::TERM);
    assert_eq!(program.wait().await, Some(0));
}

use super::values::trail_file;
use super::*;

fn sources(file: &str, environment: &[(&str, &str)]) -> (tempfile::TempDir, Sources) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("gateway.toml");
    std::fs::write(&path, file).expect("writes");
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect();
    (
        directory,
        Sources {
            file: Some(path),
            environment,
            ..Sources::default()
        },
    )
}

fn load(file: &str, environment: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let (_directory, sources) = sources(file, environment);
    Config::load(&sources)
        .map_err(|faults| faults.0.iter().map(|fault| fault.key.clone()).collect())
}

const GOOD: &str = r#"
    [auth]
    issuer = "https://issuer.example"
    audience = "gateway"
    jwks_file = "keys.json"
    [upstream]
    public_key = "public"
    private_key = "private"
"#;

#[test]
fn defaults_are_those_of_the_contract() {
    let config = load(GOOD, &[]).expect("good");
    assert_eq!(config.server.bind.to_string(), "127.0.0.1:8080");
    assert_eq!(
        config
            .server
            .admin_bind
            .map(|address| address.to_string())
            .as_deref(),
        Some("127.0.0.1:9090")
    );
    assert_eq!(config.server.request_timeout, Duration::from_secs(30));
    assert_eq!(config.server.shutdown_timeout, Duration::from_secs(30));
    assert_eq!(config.server.drain_delay, Duration::ZERO);
    assert_eq!(config.auth.leeway, Duration::from_secs(30));
    assert_eq!(
        config.upstream.base_url.as_str(),
        "https://api.compshare.cn/"
    );
    assert_eq!(config.upstream.region.as_str(), "cn-wlcb");
    assert_eq!(
        config.upstream.regions,
        std::slice::from_ref(&config.upstream.region)
    );
    assert_eq!(config.upstream.timeout, Duration::from_secs(10));
    assert_eq!(config.upstream.connect_timeout, Duration::from_secs(3));
    assert_eq!(config.upstream.max_in_flight, 64);
    assert_eq!(config.audit.database, Path::new("data/audit.db"));
    assert!(config.inert.is_empty());
}

#[test]
fn the_environment_overrides_the_file_and_splits_lists_at_commas() {
    let file =
        format!("{GOOD}\nregions = [\"cn-wlcb\"]\ntimeout = \"1s\"\n[server]\nadmin_bind = \"\"");
    let environment = [
        ("ISG__UPSTREAM__TIMEOUT", "250ms"),
        ("ISG__UPSTREAM__REGIONS", "cn-sh2, cn-wlcb"),
        ("ISG__UPSTREAM__PRIVATE_KEY", "0012"),
        ("PATH", "/bin"),
    ];
    let config = load(&file, &environment).expect("good");
    assert_eq!(config.upstream.timeout, Duration::from_millis(250));
    let regions: Vec<&str> = config.upstream.regions.iter().map(Region::as_str).collect();
    assert_eq!(regions, ["cn-sh2", "cn-wlcb"]);
    assert_eq!(config.server.admin_bind, None);
    let private = secrecy::ExposeSecret::expose_secret(&config.upstream.private_key);
    assert_eq!(private, "0012", "text that looks like a number stays text");
}

#[test]
fn every_fault_is_told_at_once() {
    let file = r#"
        colour = "blue"
        [server]
        bind = "nowhere"
        request_timeout = "0s"
        trusted_proxies = ["10.0.0.0/99"]
        cors_origins = ["https://a.example/path"]
        tls_cert_file = "cert.pem"
        speed = 3
        [auth]
        issuer = ""
        leeway = "fast"
        jwks_url = "http://keys.example/jwks"
        [upstream]
        base_url = "http://api.example"
        public_key = 12
        regions = ["cn-sh2"]
        max_in_flight = 0
        [audit]
        database_url = "postgres://db/audit"
        [limits]
        burst = -1
        [telemetry]
        log_format = "xml"
        [colours]
        [empty]
    "#;
    let environment = [
        ("ISG__SERVER__BINDD", "x"),
        ("ISG__upstream__zone", "x"),
        ("ISG__AUTH__OIDC_DISCOVERY", "maybe"),
    ];
    let faults = load(file, &environment).expect_err("faulty");
    let expected = [
        "colour",
        "server.bind",
        "server.request_timeout",
        "server.trusted_proxies",
        "server.cors_origins",
        "server.tls_key_file",
        "server.speed",
        "auth.issuer",
        "auth.audience",
        "auth.leeway",
        "auth.jwks_url",
        "auth.oidc_discovery",
        "upstream.base_url",
        "upstream.public_key",
        "upstream.private_key",
        "upstream.regions",
        "upstream.max_in_flight",
        "audit.database_url",
        "limits.burst",
        "telemetry.log_format",
        "colours",
        "empty",
        "ISG__SERVER__BINDD",
        "ISG__upstream__zone",
    ];
    for key in expected {
        assert!(
            faults.iter().any(|fault| fault == key),
            "{key} is not among {faults:?}"
        );
    }
    assert_eq!(faults.len(), expected.len(), "{faults:?}");
}

#[test]
fn one_key_source_is_required_and_no_more() {
    let without = GOOD.replace("jwks_file", "#");
    assert_eq!(
        load(&without, &[]).err(),
        Some(vec!["auth.jwks_file".to_owned()])
    );
    let two = [("ISG__AUTH__JWKS_URL", "https://keys.example/jwks")];
    assert_eq!(
        load(GOOD, &two).err(),
        Some(vec!["auth.jwks_file".to_owned()])
    );
    let url = load(
        &without,
        &[("ISG__AUTH__JWKS_URL", "http://127.0.0.1:1/jwks")],
    )
    .expect("loopback may be http");
    assert!(matches!(url.auth.first.keys, KeySource::Url(_)));
    assert!(url.inert.is_empty(), "{:?}", url.inert);
    let of_the_sandbox = without
        .replace("public_key =", "# =")
        .replace("private_key =", "# =");
    let (_directory, mut sandbox) = sources(&of_the_sandbox, &[]);
    sandbox.sandbox = true;
    sandbox.defaults.extend([
        ("upstream.public_key", "public".to_owned()),
        ("upstream.private_key", "private".to_owned()),
    ]);
    assert_eq!(
        Config::load(&sandbox).expect("good").auth.first.keys,
        KeySource::Sandbox
    );
}

#[test]
fn a_secret_comes_from_its_file_without_what_editors_put_around_it_and_never_from_both() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("key");
    std::fs::write(&path, "\u{feff} k e y \t\r\n").expect("writes");
    let path = path.to_str().expect("UTF-8");
    let without = GOOD.replace("private_key =", "# =");
    let config = load(&without, &[("ISG__UPSTREAM__PRIVATE_KEY_FILE", path)]).expect("good");
    let private = secrecy::ExposeSecret::expose_secret(&config.upstream.private_key);
    assert_eq!(private, "k e y");
    let over = load(GOOD, &[("ISG__UPSTREAM__PRIVATE_KEY_FILE", path)])
        .expect("the environment is above the file");
    let private = secrecy::ExposeSecret::expose_secret(&over.upstream.private_key);
    assert_eq!(private, "k e y");
    let two_lines = directory.path().join("two");
    std::fs::write(&two_lines, "a\nb\n").expect("writes");
    let two_lines = [(
        "ISG__UPSTREAM__PRIVATE_KEY_FILE",
        two_lines.to_str().expect("UTF-8"),
    )];
    let faulty = load(&without, &two_lines).err();
    assert_eq!(faulty, Some(vec!["upstream.private_key_file".to_owned()]));
    for odd in ["a\nb", " a", "a\u{feff}"] {
        let given = [("ISG__UPSTREAM__PRIVATE_KEY", odd)];
        let faulty = load(&without, &given).err();
        assert_eq!(
            faulty,
            Some(vec!["upstream.private_key".to_owned()]),
            "{odd:?}"
        );
    }
    let both = [
        ("ISG__UPSTREAM__PRIVATE_KEY_FILE", path),
        ("ISG__UPSTREAM__PRIVATE_KEY", "x"),
    ];
    assert_eq!(
        load(&without, &both).err(),
        Some(vec!["upstream.private_key_file".to_owned()])
    );
    let missing = [("ISG__UPSTREAM__PRIVATE_KEY_FILE", "/nowhere/key")];
    assert_eq!(
        load(&without, &missing).err(),
        Some(vec!["upstream.private_key_file".to_owned()])
    );
}

#[test]
fn a_file_that_is_missing_or_no_toml_is_a_fault_that_quotes_no_value() {
    let missing = Sources {
        file: Some("/nowhere/gateway.toml".into()),
        ..Sources::default()
    };
    let faults = Config::load(&missing).expect_err("faulty").0;
    assert_eq!(
        faults[0].to_string(),
        "/nowhere/gateway.toml: cannot be read: there is no such file"
    );
    let (_directory, broken) = sources("[upstream]\nprivate_key = hunter2\n", &[]);
    let faults = Config::load(&broken).expect_err("faulty").0;
    assert!(
        faults[0].message.starts_with("is not TOML at line 2"),
        "{faults:?}"
    );
    assert!(!format!("{faults:?}").contains("hunter2"), "{faults:?}");
}

#[test]
fn secrets_do_not_print() {
    let config = load(&GOOD.replace("\"private\"", "\"hunter2\""), &[]).expect("good");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn durations_have_a_number_and_one_unit() {
    let millis = |text| parse_duration(text).map(|duration| duration.as_millis());
    assert_eq!(millis("250ms"), Ok(250));
    assert_eq!(millis("10s"), Ok(10_000));
    assert_eq!(millis("5m"), Ok(300_000));
    assert_eq!(millis("1h"), Ok(3_600_000));
    for bad in [
        "",
        "10",
        "s",
        "-1s",
        "1.5s",
        "10 s",
        "PT10S",
        "1h30m",
        "99999999999999999999s",
        "9000h00",
        "9999999h",
    ] {
        assert!(millis(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_trail_is_a_file_of_sqlite() {
    let path = |url| trail_file(url).map(|path| path.display().to_string());
    assert_eq!(
        path("sqlite://data/audit.db").as_deref(),
        Ok("data/audit.db")
    );
    assert_eq!(
        path("sqlite:///var/audit.db").as_deref(),
        Ok("/var/audit.db")
    );
    assert_eq!(path("sqlite:audit.db?mode=rwc").as_deref(), Ok("audit.db"));
    for bad in [
        "",
        "data/audit.db",
        "sqlite://",
        "sqlite::memory:",
        "sqlite://a?b=c",
        "postgres://x",
        "mysql://x",
    ] {
        assert!(path(bad).is_err(), "{bad:?}");
    }
}

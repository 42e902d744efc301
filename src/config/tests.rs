use std::time::Duration;

use super::trail::{TrailPlace, trail_file};
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
    let file = TrailPlace::File("data/audit.db".into());
    assert_eq!(config.audit.database, file);
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
        database_url = "postgres://db/"
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

/// The good configuration with further issuers under it.
fn with_issuers(tables: &str) -> String {
    format!("{GOOD}\n{tables}")
}

#[test]
fn further_issuers_are_tables_each_with_all_of_its_own() {
    let file = with_issuers(
        r#"
        [authorization]
        policy_file = "policies.cedar"
        [[auth.issuers]]
        name = "github"
        issuer = "https://token.actions.githubusercontent.com"
        audience = "gateway"
        oidc_discovery = true
        grant = ["shares:write"]
        policy_claims = ["repository", "environment", "repository"]
        [[auth.issuers]]
        name = "entra"
        issuer = "https://login.microsoftonline.com/tenant/v2.0"
        audience = "api://gateway"
        jwks_url = "https://login.microsoftonline.com/tenant/discovery/v2.0/keys"
        scope_claims = ["roles", "scp"]
        scopes = {"Shares.Write" = ["shares:read", "shares:write"], "Other" = "audit:read"}
        groups_claim = "wids"
        "#,
    );
    let auth = load(&file, &[]).expect("good").auth;
    assert_eq!(auth.first.claims, ClaimRules::default());
    let [github, entra] = auth.further.as_slice() else {
        panic!("{:?}", auth.further);
    };
    assert_eq!(
        github.name.as_ref().map(ToString::to_string).as_deref(),
        Some("github")
    );
    assert_eq!(github.keys, KeySource::Discovery);
    assert_eq!(github.claims.grant, ["shares:write"]);
    assert_eq!(github.claims.scope_claims, ["scope", "scp"]);
    let seen: Vec<&str> = github
        .claims
        .policy_claims
        .iter()
        .map(String::as_str)
        .collect();
    assert_eq!(seen, ["environment", "repository"]);
    assert_eq!(entra.claims.scope_claims, ["roles", "scp"]);
    assert_eq!(entra.claims.groups_claim, "wids");
    assert_eq!(
        entra.claims.scopes["Shares.Write"],
        ["shares:read", "shares:write"]
    );
    assert_eq!(entra.claims.scopes["Other"], ["audit:read"]);
    // The environment has tables as TOML writes them in one line, and beats the file.
    let table =
        r#"[{name = "ci", issuer = "https://ci.example", audience = "a", jwks_file = "k.json"}]"#;
    let environment = [
        ("ISG__AUTH__ISSUERS", table),
        ("ISG__AUTH__SCOPES", r#"{"a.b" = ["shares:read"]}"#),
        ("ISG__AUTH__POLICY_CLAIMS", "email, sub"),
    ];
    let auth = load(&file, &environment).expect("good").auth;
    assert_eq!(auth.further.len(), 1);
    assert_eq!(auth.further[0].section(), "auth.issuers.ci");
    assert_eq!(auth.first.claims.scopes["a.b"], ["shares:read"]);
    assert_eq!(auth.first.claims.policy_claims.len(), 2);
}

#[test]
fn every_fault_of_an_issuer_is_told_with_its_table() {
    let keys = |tables: &str| load(&with_issuers(tables), &[]).err().unwrap_or_default();
    let table = |more: &str| {
        format!(
            "[[auth.issuers]]\nissuer = \"https://x.example\"\naudience = \"a\"\njwks_file = \"k\"\n{more}\n"
        )
    };
    for (tables, expected) in [
        (table(""), vec!["auth.issuers[1].name"]),
        (table("name = \"Not A Name\""), vec!["auth.issuers[1].name"]),
        (table("name = \"a.b\""), vec!["auth.issuers[1].name"]),
        (table("name = 7"), vec!["auth.issuers[1].name"]),
        (
            table("name = \"ci\"\nleeway = \"1s\""),
            vec!["auth.issuers.ci.leeway"],
        ),
        (
            table("name = \"ci\"\nissuers = []"),
            vec!["auth.issuers.ci.issuers"],
        ),
        (
            table("name = \"ci\"\ncolour = 1"),
            vec!["auth.issuers.ci.colour"],
        ),
        (
            table("name = \"ci\"\ngrant = [\"shares:write\"]"),
            vec!["auth.issuers.ci.grant"],
        ),
        (
            table("name = \"ci\"\ngrant = 7"),
            vec!["auth.issuers.ci.grant"],
        ),
        (
            table("name = \"ci\"\nscopes = [1]"),
            vec!["auth.issuers.ci.scopes"],
        ),
        (
            table("name = \"ci\"\n[auth.issuers.scopes]\nx = 1"),
            vec!["auth.issuers.ci.scopes.x"],
        ),
        (
            table("name = \"ci\"\njwks_url = \"https://x.example\""),
            vec!["auth.issuers.ci.jwks_file"],
        ),
        (
            table("name = \"ci\"\ngroups_claim = \"\""),
            vec!["auth.issuers.ci.groups_claim"],
        ),
        (
            table("name = \"ci\"") + &table("name = \"ci\"\ncolour = 1"),
            vec![
                "auth.issuers",
                "auth.issuers[2].colour",
                "auth.issuers[2].issuer",
            ],
        ),
        (
            table("name = \"ci\"") + &table("name = \"cd\""),
            vec!["auth.issuers.cd.issuer"],
        ),
        (
            table("name = \"ci\"").replace("x.example", "issuer.example"),
            vec!["auth.issuers.ci.issuer"],
        ),
        (
            "[[auth.issuers]]\nname = \"ci\"\noidc_discovery = true\nissuer = \"http://x\"".into(),
            vec!["auth.issuers.ci.audience", "auth.issuers.ci.issuer"],
        ),
        ("[auth.issuers]\nname = \"ci\"".into(), vec!["auth.issuers"]),
        // All of a table at once, and all tables.
        (
            "[[auth.issuers]]\ngrant = [\"shares:read\"]\n[[auth.issuers]]\nname = \"2\"".into(),
            vec![
                "auth.issuers[1].name",
                "auth.issuers[1].grant",
                "auth.issuers[1].issuer",
                "auth.issuers[1].audience",
                "auth.issuers[1].jwks_file",
                "auth.issuers.2.issuer",
                "auth.issuers.2.audience",
                "auth.issuers.2.jwks_file",
            ],
        ),
    ] {
        assert_eq!(keys(&tables), expected, "{tables}");
    }
    let faulty = |name, value| load(GOOD, &[(name, value)]).err().unwrap_or_default();
    assert_eq!(faulty("ISG__AUTH__ISSUERS", "ci"), ["auth.issuers"]);
    assert_eq!(faulty("ISG__AUTH__SCOPES", "{} \n a = 1"), ["auth.scopes"]);
    assert_eq!(
        faulty("ISG__AUTH__GRANT", "shares:read"),
        ["ISG__AUTH__GRANT"]
    );
    let first = GOOD.replace("[upstream]", "grant = [\"shares:read\"]\n[upstream]");
    assert_eq!(load(&first, &[]).err(), Some(vec!["auth.grant".to_owned()]));
}

#[test]
fn a_fault_says_where_its_table_is_and_tells_one_thing_once() {
    let told = |file: &str, environment: &[(&str, &str)]| {
        let (_directory, sources) = sources(file, environment);
        let faults = Config::load(&sources).expect_err("faulty").0;
        faults.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let faults = told(
        &with_issuers(
            "[[auth.issuers]]\nname = \"ci\"\noidc_discovery = \"yes\"\nissuer = \"https://ci.example\"",
        ),
        &[],
    );
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(
        faults[0].contains("auth.issuers.ci.audience (") && faults[0].contains("gateway.toml"),
        "{faults:?}"
    );
    assert!(
        faults[1].contains("auth.issuers.ci.oidc_discovery"),
        "{faults:?}"
    );
    let json = [("ISG__AUTH__ISSUERS", r#"[{"name":"ci"}]"#)];
    assert_eq!(
        told(GOOD, &json),
        [
            "auth.issuers (environment ISG__AUTH__ISSUERS): must be an array of tables as TOML writes it in one line"
        ]
    );
}

#[test]
fn a_scope_that_the_gateway_does_not_know_and_files_for_nothing_are_odd_and_no_fault() {
    let file = GOOD.replace(
        "[upstream]",
        "scopes = {\"Writer\" = [\"shares:wirte\"]}\nfetch_ca_file = \"ca.crt\"\n[upstream]",
    );
    let mut warnings = load(&file, &[]).expect("good").warnings;
    warnings.retain(|warning| warning.starts_with("auth."));
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].starts_with("auth.scopes.Writer (") && warnings[0].contains("`shares:wirte`"),
        "{warnings:?}"
    );
    assert!(
        warnings[1].starts_with("auth.fetch_ca_file (") && warnings[1].contains("is set"),
        "{warnings:?}"
    );
}

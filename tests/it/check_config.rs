//! `check-config`: every fault with where it comes from, what takes effect without secrets, what is unwise.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use crate::support::{binary, keep, keys_file};

fn check(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut check = binary();
    check
        .arg("check-config")
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .current_dir(directory);
    check.output().unwrap()
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (printed, told) = (text(&output.stdout), text(&output.stderr));
    keep("check-config", &format!("{printed}{told}"));
    (printed, told)
}

/// Written so that nobody else may read it.
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, mode).unwrap();
}

const GOOD: &str = r#"[server]
bind = "127.0.0.1:8443"
trusted_proxies = "10.0.0.0/8, 192.168.0.0/16"

[auth]
issuer = "https://login.example.com"
audience = "gateway"
jwks_file = "keys.json"

[[auth.issuers]]
name = "ci"
issuer = "https://ci.example"
audience = "a"
jwks_url = "https://ci.example/keys?key=hunter2"

[authorization]
policy_file = "policies.cedar"

[upstream]
public_key = "a-public-key-that-nobody-sees"
private_key_file = "private.key"
proxy = "http://user:hunter2@proxy.example:3128"
"#;

/// A directory with all that [`GOOD`] names.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    keys_file(directory.path());
    write(&path("gateway.toml"), GOOD);
    write(&path("private.key"), "a-private-key-that-nobody-sees\n");
    write(
        &path("policies.cedar"),
        "permit (principal, action, resource);",
    );
    directory
}

#[test]
fn what_takes_effect_is_printed_as_toml_with_origins_and_without_secrets() {
    let directory = directory();
    let environment = [
        ("ISG__UPSTREAM__TIMEOUT", "7s"),
        ("ISG__LIMITS__BURST", "9"),
    ];
    let output = check(
        directory.path(),
        &["--config", "gateway.toml"],
        &environment,
    );
    let (printed, told) = texts(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    for line in [
        ("bind = \"127.0.0.1:8443\"", "# gateway.toml:2"),
        (
            "trusted_proxies = [\"10.0.0.0/8\", \"192.168.0.0/16\"]",
            "# gateway.toml:3",
        ),
        ("admin_bind = \"127.0.0.1:9090\"", "# default"),
        ("timeout = \"7s\"", "# environment ISG__UPSTREAM__TIMEOUT"),
        ("burst = 9", "# environment ISG__LIMITS__BURST"),
        ("public_key = \"(redacted)\"", "# gateway.toml:20"),
        ("private_key_file = \"private.key\"", "# gateway.toml:21"),
        ("name = \"ci\"", "# gateway.toml:11"),
        ("oidc_discovery = false", "# default"),
        (
            "jwks_url = \"https://ci.example/keys?redacted\"",
            "# gateway.toml:14",
        ),
        ("database_url = \"sqlite://data/audit.db\"", "# default"),
        ("# public_url is not set: links are relative", ""),
    ] {
        let found = printed
            .lines()
            .any(|printed| printed.starts_with(line.0) && printed.ends_with(line.1));
        assert!(found, "{line:?} in\n{printed}");
    }
    for secret in ["nobody-sees", "hunter2", "user"] {
        assert!(
            !printed.contains(secret) && !told.contains(secret),
            "{printed}{told}"
        );
    }
    let toml: toml::Table = printed.parse().unwrap();
    assert_eq!(toml["limits"]["burst"].as_integer(), Some(9));
    let issuer = &toml["auth"]["issuers"][0];
    assert_eq!(issuer["name"].as_str(), Some("ci"));
    assert_eq!(
        issuer["groups_claim"].as_str(),
        Some("groups"),
        "what holds there though nobody set it"
    );
    assert!(
        !directory.path().join("data").exists(),
        "no database is made"
    );
}

#[test]
fn every_fault_is_told_at_once_with_where_it_comes_from() {
    let directory = tempfile::tempdir().unwrap();
    let file = r#"
[server]
bind = "nowhere"
colour = "blue"
client_ca_file = "clients.crt"
public_url = "ftp://x"
[auth]
issuer = "https://login.example.com"
jwks_file = "absent.json"
[[auth.issuers]]
name = "ci"
speed = 3
[telemetry]
trace_sample_ratio = 1.5
otlp_endpoint = "collector:4318"
"#;
    write(&directory.path().join("gateway.toml"), file);
    let environment = [("ISG__UPSTREAM__TIMEOUT", "soon"), ("ISG__COLOUR", "red")];
    let output = check(
        directory.path(),
        &["--config", "gateway.toml"],
        &environment,
    );
    let (printed, told) = texts(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    for fault in [
        "server.bind (gateway.toml:3): must be an address",
        "server.colour (gateway.toml:4): is no key of the gateway",
        "server.client_ca_file (gateway.toml:5): ",
        "server.public_url (gateway.toml:6): must be a base URL",
        "auth.audience: is required (in the file, or as ISG__AUTH__AUDIENCE)",
        "auth.jwks_file (gateway.toml:9): `absent.json` cannot be read",
        "auth.issuers.ci.speed (gateway.toml:12): is no key of the gateway",
        "auth.issuers.ci.issuer (gateway.toml:10): is required",
        "telemetry.trace_sample_ratio (gateway.toml:14): must be a number from 0 to 1",
        "telemetry.otlp_endpoint (gateway.toml:15): must be a base URL",
        "upstream.timeout (environment ISG__UPSTREAM__TIMEOUT): must be a duration",
        "upstream.private_key: is required",
        "ISG__COLOUR: is no variable of the gateway",
    ] {
        assert!(told.contains(fault), "{fault} in\n{told}");
    }
    assert!(printed.contains("bind = \"nowhere\""), "{printed}");
    // `serve` tells the same, and does not start.
    let mut serve = binary();
    serve
        .args(["serve", "--config", "gateway.toml"])
        .envs(environment)
        .current_dir(directory.path());
    let served = serve.output().unwrap();
    let faults = |told: &str| -> Vec<String> {
        let lines = told.lines().filter(|line| !line.contains("warning: "));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(served.status.code(), Some(2));
    assert_eq!(faults(&texts(&served).1), faults(&told));
}

#[test]
fn what_is_legal_and_unwise_is_a_warning() {
    let directory = directory();
    let path = |name: &str| directory.path().join(name);
    let readable = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(path("private.key"), readable.clone()).unwrap();
    std::fs::set_permissions(path("gateway.toml"), readable).unwrap();
    let environment = [
        ("ISG__SERVER__BIND", "0.0.0.0:8080"),
        ("ISG__SERVER__ADMIN_BIND", "0.0.0.0:9090"),
        ("ISG__SERVER__TRUSTED_PROXIES", "0.0.0.0/0"),
        ("ISG__SERVER__PUBLIC_URL", "http://gateway.example"),
        ("ISG__AUTHORIZATION__POLICY_FILE", ""),
        ("ISG__UPSTREAM__BASE_URL", "http://127.0.0.1:9"),
    ];
    let output = check(
        directory.path(),
        &["--config", "gateway.toml"],
        &environment,
    );
    let (_, told) = texts(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    for warning in [
        "server.bind (environment ISG__SERVER__BIND): tokens come in the clear",
        "server.admin_bind (environment ISG__SERVER__ADMIN_BIND): whoever reaches it",
        "auth.jwks_file (gateway.toml:8): `keys.json` holds secret keys and can be read by others",
        "server.trusted_proxies (environment ISG__SERVER__TRUSTED_PROXIES): `0.0.0.0/0` is believed",
        "server.public_url (environment ISG__SERVER__PUBLIC_URL): is not https",
        "authorization.policy_file: is not set",
        "upstream.base_url (environment ISG__UPSTREAM__BASE_URL): is not https",
        "upstream.private_key_file (gateway.toml:21): `private.key` can be read by others",
        "upstream.public_key (gateway.toml:20): `gateway.toml` holds it and can be read by others",
    ] {
        assert!(told.contains(warning), "{warning} in\n{told}");
    }
    let quiet = check(directory.path(), &["--config", "gateway.toml"], &[]);
    let warnings = texts(&quiet).1;
    let of_others = warnings.lines().filter(|line| line.contains("warning: "));
    assert!(
        of_others.clone().all(|line| line.contains("by others")),
        "what is wise is no warning: {warnings}"
    );
}

#[test]
fn nothing_that_may_be_secret_is_shown_wherever_it_stands_by_a_slip() {
    let directory = directory();
    for (variable, value) in [
        ("ISG__SERVER__CORS_ORIGINS", "https://u:hunter2@x/y?hunter2"),
        ("ISG__SERVER__TRUSTED_PROXIES", "u:hunter2@10.0.0.0"),
        ("ISG__SERVER__PUBLIC_URL", "http//u:hunter2@x"),
        ("ISG__SERVER__PUBLIC_URL", "https://u:hunter2@x"),
        ("ISG__TELEMETRY__OTLP_ENDPOINT", "http://u:12#hunter2@px:1/"),
        ("ISG__TELEMETRY__OTLP_ENDPOINT", "http://u:hunter2@px:1/"),
        ("ISG__UPSTREAM__PROXY", "http://u:SEC@hunter2/x@px:1"),
        (
            "ISG__UPSTREAM__BASE_URL",
            "https://u:hunter2@x/?hunter2#hunter2",
        ),
        ("ISG__AUDIT__DATABASE_URL", "postgres://u:hunter2@db/audit"),
        ("ISG__AUTH__JWKS_URL", "https://u:hunter2@x/y#hunter2"),
        ("ISG__AUTH__JWKS_URL", "keys.example/jwks?key=hunter2"),
        ("ISG__AUTH__JWKS_FILE", "https://u:hunter2@k/x"),
        ("ISG__AUTH__FETCH_TOKEN_FILE", "eyJhbGciOi.hunter2.sig"),
        ("ISG__AUDIT__DATABASE_URL_FILE", "postgres://u:hunter2@db/x"),
        ("ISG__UPSTREAM__PRIVATE_KEY_FILE", "Zm9vhunter2YmFy"),
        ("ISG__UPSTREAM__REGIONS", "cn-wlcb,http://u:hunter2@x"),
        ("ISG__UPSTREAM__PROXY", "hunter2@proxy:3128"),
        (
            "ISG__AUTH__ISSUERS",
            r#"[{name = "x", issuer = "https://u:hunter2@x", jwks_url = "https://x/?hunter2"}]"#,
        ),
    ] {
        let output = check(
            directory.path(),
            &["--config", "gateway.toml"],
            &[(variable, value)],
        );
        let (printed, told) = texts(&output);
        let all = format!("{printed}{told}").to_lowercase();
        assert!(!all.contains("hunter2"), "{variable}={value}: {all}");
    }
}

#[test]
fn what_serve_could_not_do_is_a_fault_and_a_file_that_cannot_be_read_is_the_only_one() {
    let directory = directory();
    let faults = |file: &str, environment: &[(&str, &str)]| -> Vec<String> {
        let told = texts(&check(directory.path(), &["--config", file], environment)).1;
        let lines = told.lines().filter(|line| !line.contains("warning: "));
        lines
            .map(|line| line.replace("image-share-gateway: ", ""))
            .collect()
    };
    for (one, other) in [
        ("127.0.0.1:8443", "127.0.0.1:8443"),
        ("0.0.0.0:8443", "127.0.0.1:8443"),
    ] {
        let both = [
            ("ISG__SERVER__BIND", one),
            ("ISG__SERVER__ADMIN_BIND", other),
        ];
        assert_eq!(
            faults("gateway.toml", &both),
            [
                "server.admin_bind (environment ISG__SERVER__ADMIN_BIND): is where server.bind (environment ISG__SERVER__BIND) listens already"
            ]
        );
    }
    assert_eq!(
        faults("absent.toml", &[]),
        ["absent.toml: cannot be read: there is no such file"]
    );
    write(
        &directory.path().join("broken.toml"),
        "[auth]\nissuer = x\n",
    );
    let broken = faults("broken.toml", &[]);
    assert!(
        broken.len() == 1 && broken[0].starts_with("broken.toml: is not TOML at line 2"),
        "{broken:?}"
    );
    write(
        &directory.path().join("text.toml"),
        &GOOD.replace("[upstream]", "[other]").replacen(
            "[server]",
            "upstream = \"x\"\n[server]",
            1,
        ),
    );
    let text = faults("text.toml", &[]);
    assert!(
        text.iter()
            .any(|fault| fault.starts_with("upstream (text.toml:1): must be a table")),
        "{text:?}"
    );
    std::fs::write(directory.path().join("url"), "postgres://db").unwrap();
    let of_file = faults("gateway.toml", &[("ISG__AUDIT__DATABASE_URL_FILE", "url")]);
    assert!(
        of_file[0].starts_with(
            "audit.database_url_file (environment ISG__AUDIT__DATABASE_URL_FILE): must name a database"
        ),
        "{of_file:?}"
    );
}

/// Holds a file, or a part of one, equal to what the program makes; `ISG_TEST_BLESS=1` writes it.
fn hold(path: &str, section: Option<&str>, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let whole = match section {
        None => made.to_owned(),
        Some(name) => {
            let (begin, end) = (
                format!("<!-- {name} -->\n"),
                format!("<!-- end of {name} -->"),
            );
            let (before, rest) = text.split_once(&begin).expect("the section's begin");
            let (_, after) = rest.split_once(&end).expect("the section's end");
            format!("{before}{begin}{made}{end}{after}")
        }
    };
    if std::env::var_os("ISG_TEST_BLESS").is_some() {
        std::fs::write(&path, &whole).unwrap();
        return;
    }
    let path = path.display();
    assert!(
        text == whole,
        "{path} is not what the program makes: ISG_TEST_BLESS=1 writes it"
    );
}

#[test]
fn the_example_and_the_documentation_are_made_of_the_table_of_keys() {
    use image_share_gateway::config::{example_file, table_of_keys};
    use image_share_gateway::telemetry::{Metrics, table_of_fields};
    hold("config.example.toml", None, &example_file());
    hold("docs/configuration.md", Some("keys"), &table_of_keys());
    hold("docs/operations.md", Some("metrics"), &Metrics::table());
    hold("docs/operations.md", Some("fields"), &table_of_fields());
}

#[test]
fn the_example_is_a_configuration_with_every_key_at_its_default() {
    let directory = directory();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.example.toml");
    let example = std::fs::read_to_string(path).unwrap();
    // Whoever takes the comments away that hold settings sets every key.
    let uncommented = |line: &str| {
        let setting = line.strip_prefix("# ").filter(|setting| {
            let name = setting.split_once(" = ").map(|(name, _)| name);
            name.is_some_and(|name| !name.contains([' ', '`']))
        });
        setting.unwrap_or(line).to_owned()
    };
    let every = example
        .lines()
        .map(uncommented)
        .collect::<Vec<_>>()
        .join("\n");
    write(&directory.path().join("every.toml"), &every);
    let output = check(directory.path(), &["--config", "every.toml"], &[]);
    let told = texts(&output).1;
    assert!(!told.contains("is no key"), "{told}");
    assert!(!told.contains("is not TOML"), "{told}");
    // As it is, with the files that it names, it is good.
    let files = example
        .replace("/run/secrets/public_key", "private.key")
        .replace("/run/secrets/private_key", "private.key")
        .replace("# oidc_discovery = false", "oidc_discovery = true");
    write(&directory.path().join("example.toml"), &files);
    let output = check(directory.path(), &["--config", "example.toml"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", texts(&output).1);
}

//! The documentation: every code block is run or says why not, every page is in the book, every link leads somewhere, and
//! what is made of the program is as the program says.
//!
//! A comment stands above each block: `run`, `not run: WHY`, `checked by FILE`, `policies: NAME`, `question`; and `printed`
//! above what the block before it prints, line by line, other lines between them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use image_share_gateway::problem::ProblemKind;
use serde_json::Value;

use crate::support::{
    Certificates, Gateway, KeyAnswer, KeyServer, SECRET, beside_python, binary, ended, python,
    said, search_path, set_of, token,
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const EVERYTHING: &str = "shares:read shares:write audit:read";

const CLAIMS: &str =
    r#"{"sub": "team-a", "groups": ["vision"], "scope": "shares:read shares:write"}"#;

/// A code block of a page.
#[derive(Debug)]
struct Block {
    mark: String,
    language: String,
    text: String,
    line: usize,
}

fn pages() -> Vec<PathBuf> {
    let mut found = vec![Path::new(ROOT).join("README.md")];
    let mut folders = vec![Path::new(ROOT).join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn name(path: &Path) -> String {
    path.strip_prefix(ROOT).unwrap().display().to_string()
}

/// The blocks of a page; each below its mark.
fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    let (mut before, mut block_before) = (String::new(), String::new());
    while let Some((number, line)) = lines.next() {
        let Some(language) = line.trim_start().strip_prefix("```") else {
            if !line.trim().is_empty() {
                line.trim().clone_into(&mut before);
            }
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let inside = lines.by_ref().map(|(_, line)| line);
        let inside: Vec<&str> = inside.take_while(|line| line.trim() != "```").collect();
        let cut = |line: &&str| line.get(indent..).unwrap_or_default().to_owned();
        let mark = before
            .strip_prefix("<!-- ")
            .and_then(|mark| mark.strip_suffix(" -->"));
        // A question has a call, and a query behind it.
        let mark = match mark {
            Some(mark) => mark.to_owned(),
            None if block_before == "question" => block_before.clone(),
            None => String::new(),
        };
        block_before.clone_from(&mark);
        before.clear();
        found.push(Block {
            mark,
            language: language.to_owned(),
            text: inside.iter().map(cut).collect::<Vec<_>>().join("\n") + "\n",
            line: number + 1,
        });
    }
    found
}

#[test]
fn every_code_block_is_run_or_says_why_not() {
    let mut faults = Vec::new();
    let mut seen = 0;
    for page in pages() {
        for block in blocks(&read(&page)) {
            seen += 1;
            let about = format!("{}:{}", name(&page), block.line);
            let sound = match block.mark.split_once([':', ' ']) {
                None => ["run", "printed", "question"].contains(&block.mark.as_str()),
                Some(("run", _)) => true,
                Some(("not", why)) => why.strip_prefix("run: ").is_some_and(|why| why.len() > 10),
                Some(("policies", name)) => {
                    let tests = read(&Path::new(ROOT).join("tests/it/policies.rs"));
                    tests.contains(&format!("\"{}\"", name.trim()))
                }
                Some(("checked", file)) => {
                    let file = Path::new(ROOT).join(file.strip_prefix("by ").unwrap_or_default());
                    // It names the page: its file, or its name alone in a list.
                    let stem = page.file_stem().unwrap().to_string_lossy().into_owned();
                    let page = name(&page);
                    let tests = std::fs::read_to_string(file).unwrap_or_default();
                    tests.contains(&page) || tests.contains(&format!("(\"{stem}\", "))
                }
                Some(_) => false,
            };
            if !sound {
                faults.push(format!("{about}: {}", block.mark));
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
    assert!(seen > 80, "{seen}");
}

/// Where the blocks of a page run: one gateway, one folder, one environment for all of them.
struct Stage {
    gateway: Gateway,
    environment: BTreeMap<String, String>,
    _tokens: KeyServer,
}

impl Stage {
    async fn set() -> Self {
        let gateway = Gateway::spawn().await;
        let token = token("team-a", EVERYTHING);
        let answer = serde_json::json!({"value": token}).to_string();
        let tokens = KeyServer::start(KeyAnswer::Body(answer, "no-store")).await;
        let program = Path::new(env!("CARGO_BIN_EXE_image-share-gateway"))
            .parent()
            .unwrap();
        let path = search_path().into_string().unwrap();
        let path = format!("{}:{path}", program.display());
        let file = |name: &str| gateway.directory.path().join(name).display().to_string();
        let environment = BTreeMap::from([
            ("GATEWAY".to_owned(), gateway.base_url.clone()),
            ("TOKEN".to_owned(), token),
            (
                "SHARER".to_owned(),
                crate::support::token("sharer", "shares:read shares:write"),
            ),
            (
                "AUDITOR".to_owned(),
                crate::support::token("auditor", "shares:read audit:read"),
            ),
            ("PATH".to_owned(), path),
            ("HOME".to_owned(), file("home")),
            ("GOCACHE".to_owned(), file("go-cache")),
            ("GO111MODULE".to_owned(), "off".to_owned()),
            ("GITHUB_ENV".to_owned(), file("github-env")),
            (
                "ACTIONS_ID_TOKEN_REQUEST_TOKEN".to_owned(),
                "runner".to_owned(),
            ),
            (
                "ACTIONS_ID_TOKEN_REQUEST_URL".to_owned(),
                format!("{}/token?x=1", tokens.url),
            ),
            ("AUDIENCE".to_owned(), "image-share-gateway".to_owned()),
            ("ANSIBLE_LOCALHOST_WARNING".to_owned(), "false".to_owned()),
        ]);
        // What pages name that is beside them.
        let directory = gateway.directory.path();
        std::fs::write(directory.join("keys.json"), set_of("one", SECRET)).unwrap();
        std::fs::write(directory.join("claims.json"), CLAIMS).unwrap();
        Self {
            gateway,
            environment,
            _tokens: tokens,
        }
    }

    /// Runs a block; what it prints.
    async fn run(&self, block: &Block, about: &str) -> String {
        let directory = self.gateway.directory.path();
        let write = |name: &str| {
            std::fs::write(directory.join(name), &block.text).unwrap();
            name.to_owned()
        };
        match block.language.as_str() {
            "sh" => self.bash(&block.text, about).await,
            "python" => {
                let file = write("recipe.py");
                self.command(&["python", &file], about).await
            }
            "go" => {
                let file = write("main.go");
                self.command(&["go", "run", &file], about).await
            }
            "java" => {
                let file = write("Share.java");
                self.command(&["java", &file], about).await
            }
            "yaml" if block.text.starts_with("- hosts:") => {
                let file = write("playbook.yaml");
                let first = self.playbook(&file, about).await;
                let second = self.playbook(&file, about).await;
                assert!(
                    first.contains("changed=1") && second.contains("changed=0"),
                    "{first}{second}"
                );
                first + &second
            }
            "yaml" => {
                let workflow: Value = serde_saphyr::from_str(&block.text).unwrap();
                let mut told = String::new();
                for script in scripts(&workflow) {
                    // What a step leaves for the next.
                    let script = format!(
                        "set -a; [ ! -e \"$GITHUB_ENV\" ] || . \"$GITHUB_ENV\"; set +a\n{script}"
                    );
                    told += &self.bash(&script, about).await;
                }
                told
            }
            other => panic!("{about}: nobody knows how to run {other}"),
        }
    }

    async fn playbook(&self, file: &str, about: &str) -> String {
        let interpreter = format!("ansible_python_interpreter={}", python().to_str().unwrap());
        self.command(&["ansible-playbook", file, "-e", &interpreter], about)
            .await
    }

    async fn bash(&self, script: &str, about: &str) -> String {
        self.command(&["bash", "-euo", "pipefail", "-c", script], about)
            .await
    }

    async fn command(&self, words: &[&str], about: &str) -> String {
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::null())
            .current_dir(self.gateway.directory.path());
        let (out, err) = ended(command, about).await;
        out + &err
    }
}

/// The scripts of the steps of a workflow, or of the jobs of a pipeline, in their order.
fn scripts(value: &Value) -> Vec<String> {
    match value {
        Value::Object(members) => members
            .iter()
            .flat_map(|(name, member)| match (name.as_str(), member) {
                ("run", Value::String(script)) => vec![script.clone()],
                ("script", Value::Array(lines)) => {
                    let lines: Vec<&str> = lines.iter().filter_map(Value::as_str).collect();
                    vec![lines.join("\n")]
                }
                (_, other) => scripts(other),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(scripts).collect(),
        _ => Vec::new(),
    }
}

/// Runs all blocks of a page, and holds against them what it says that they print.
async fn play(page: &str) {
    let stage = Stage::set().await;
    let (mut told, mut ran) = (String::new(), 0);
    for block in blocks(&read(&Path::new(ROOT).join(page))) {
        let about = format!("{page}:{}", block.line);
        if block.mark == "printed" {
            for line in block.text.lines().map(str::trim) {
                assert!(told.contains(line), "{about}: `{line}` is not in\n{told}");
            }
        } else if block.mark.starts_with("policies: ") {
            // Whatever is tried below is tried by the first of them.
            let file = stage.gateway.directory.path().join("policies.cedar");
            if !file.exists() {
                std::fs::write(file, &block.text).unwrap();
            }
        } else if block.mark.starts_with("run") {
            told = stage.run(&block, &about).await;
            ran += 1;
        }
    }
    assert!(ran > 0, "{page}");
}

macro_rules! played {
    ($($test:ident = $page:literal;)+) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                play($page).await;
            }
        )+

        /// Every page that has something to run is run.
        #[test]
        fn every_page_with_blocks_to_run_is_played() {
            let played = [$($page),+];
            for page in pages() {
                let runs = blocks(&read(&page)).iter().any(|block| block.mark.starts_with("run"));
                assert_eq!(runs, played.contains(&name(&page).as_str()), "{}", page.display());
            }
        }
    };
}

played! {
    five_minutes_are_as_the_page_says = "docs/start.md";
    the_trail_is_asked_as_the_page_says = "docs/trail.md";
    a_token_is_made_as_the_page_says = "docs/tokens.md";
    a_policy_is_tried_as_the_page_says = "docs/policies.md";
    curl_shares = "docs/recipes/curl.md";
    python_shares = "docs/recipes/python.md";
    go_shares = "docs/recipes/go.md";
    java_shares = "docs/recipes/java.md";
    github_actions_share = "docs/recipes/github-actions.md";
    gitlab_ci_shares = "docs/recipes/gitlab-ci.md";
    ansible_shares_once = "docs/recipes/ansible.md";
}

#[test]
fn every_page_is_in_the_book() {
    let summary = read(&Path::new(ROOT).join("docs/SUMMARY.md"));
    for page in pages() {
        let Ok(inside) = page.strip_prefix(Path::new(ROOT).join("docs")) else {
            continue;
        };
        let inside = inside.display().to_string();
        let listed = summary.contains(&format!("]({inside})"));
        assert!(listed || inside == "SUMMARY.md", "{inside}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_book_is_made_and_every_link_in_it_leads_somewhere() {
    let directory = tempfile::tempdir().unwrap();
    let run = async |mut command: Command| {
        command.env("PATH", search_path());
        said(command).await
    };
    let mut make = Command::new(Path::new(ROOT).join(".ci/docs"));
    make.arg(directory.path());
    let told = run(make).await;
    assert!(!told.contains("WARN") && !told.contains("ERROR"), "{told}");
    let mut check = beside_python("lychee");
    check
        .args(["--offline", "--include-fragments", "--no-progress"])
        // Both repeat what other pages have, with their links.
        .args([
            "--exclude-path",
            r"print\.html",
            "--exclude-path",
            r"toc\.html",
        ])
        .arg("--root-dir")
        .arg(directory.path())
        .arg(directory.path().join("docs"));
    let told = run(check).await;
    assert!(told.contains("0 Errors"), "{told}");
    // The same as they lie in the repository.
    let mut check = beside_python("lychee");
    check.args(["--offline", "--include-fragments", "--no-progress"]);
    let others =
        ["ARCHITECTURE.md", "SECURITY.md", "CHANGELOG.md"].map(|name| Path::new(ROOT).join(name));
    // Its links are the architecture's, whose folder is another.
    let own = pages()
        .into_iter()
        .filter(|page| !page.ends_with("docs/architecture.md"));
    check.args(own.chain(others));
    let told = run(check).await;
    assert!(told.contains("0 Errors"), "{told}");
    // Nothing in the site asks another host.
    for page in ["index.html", "start.html", "recipes/curl.html"] {
        let html = read(&directory.path().join("docs").join(page));
        for asked in ["src=\"http", "href=\"http", "@import"] {
            let links = html.matches(asked).count();
            let of_text = html.matches("<a href=\"http").count();
            assert!(links <= of_text, "{page} asks {asked}");
        }
    }
}

const PROBLEMS_BEGIN: &str = "<!-- problems: made by tests/it/docs.rs -->\n";
const PROBLEMS_END: &str = "<!-- end of problems -->";

#[test]
fn the_catalogue_of_errors_is_that_of_the_program() {
    let path = Path::new(ROOT).join("docs/problems.md");
    let page = read(&path);
    let mut made = PROBLEMS_BEGIN.to_owned();
    for kind in ProblemKind::ALL {
        let (slug, status) = (kind.slug(), kind.status());
        let (title, meaning, remedy) = (kind.title(), kind.meaning(), kind.remedy());
        write!(
            made,
            "\n## {slug}\n\n{status}: {title}. {meaning}\n\n**What helps.** {remedy}\n"
        )
        .unwrap();
    }
    made += "\n";
    made += PROBLEMS_END;
    let begin = page.find(PROBLEMS_BEGIN).unwrap();
    let end = page.find(PROBLEMS_END).unwrap() + PROBLEMS_END.len();
    if std::env::var_os("ISG_TEST_BLESS").is_some() {
        let anew = format!("{}{made}{}", &page[..begin], &page[end..]);
        std::fs::write(&path, anew).unwrap();
        return;
    }
    assert_eq!(&page[begin..end], made, "ISG_TEST_BLESS=1 writes it anew");
}

/// With files in place of those that it names.
#[test]
fn the_configuration_for_the_real_api_has_no_fault() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().display().to_string();
    let page = read(&Path::new(ROOT).join("docs/run.md"));
    let block = blocks(&page)
        .into_iter()
        .find(|block| block.language == "toml")
        .unwrap();
    let mut text = block.text;
    for place in ["/etc/gateway", "/run/secrets", "/var/lib/gateway"] {
        text = text.replace(place, &folder);
    }
    let write = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("gateway.toml", &text);
    write("policies.cedar", "permit (principal, action, resource);");
    write("public.key", "public-key-of-the-page");
    write("private.key", "private-key-of-the-page");
    let certificates = Certificates::of("gateway.example.com");
    write("cert.pem", &certificates.certificate);
    write("key.pem", &certificates.key);
    let file = directory.path().join("gateway.toml").display().to_string();
    let checked = binary()
        .args(["check-config", "--config", &file])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&checked.stderr);
    assert_eq!(checked.status.code(), Some(0), "{told}");
}

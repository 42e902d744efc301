//! The arrows between the rooms (ARCHITECTURE.md), read off the `crate::` paths of each file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const GROUND: [&str; 7] = [
    "domain",
    "pages",
    "problem",
    "schema",
    "config",
    "telemetry",
    "tasks",
];

/// What each room may import, the ground floor's own order apart.
fn may_import() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let ground =
        |more: &[&'static str]| GROUND.iter().chain(more).copied().collect::<BTreeSet<_>>();
    let none = BTreeSet::new();
    let all: BTreeSet<_> = ground(&[
        "auth",
        "authorization",
        "upstream",
        "audit",
        "sharing",
        "http",
        "sandbox",
        "app",
    ]);
    BTreeMap::from([
        ("domain", none.clone()),
        ("sandbox", none.clone()),
        ("pages", none),
        ("problem", BTreeSet::from(["domain"])),
        ("schema", BTreeSet::from(["domain", "problem"])),
        ("config", BTreeSet::from(["domain"])),
        ("telemetry", BTreeSet::from(["domain", "config"])),
        ("tasks", BTreeSet::from(["domain", "telemetry"])),
        ("auth", ground(&[])),
        ("authorization", ground(&[])),
        ("upstream", ground(&[])),
        ("audit", ground(&[])),
        ("sharing", ground(&["authorization", "upstream", "audit"])),
        (
            "http",
            ground(&["sharing", "auth", "authorization", "audit"]),
        ),
        (
            "app",
            all.difference(&BTreeSet::from(["app"])).copied().collect(),
        ),
        ("cli", all),
    ])
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = entries
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect();
    found.sort();
    found
}

/// The rooms named after `crate::`, in a file without its test module.
fn imports(text: &str) -> BTreeSet<String> {
    let program = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = program
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let joined = lines.collect::<Vec<_>>().join("\n");
    let names = joined.split("crate::").skip(1);
    let name = |rest: &str| {
        rest.chars()
            .take_while(|c| c.is_ascii_lowercase() || *c == '_')
            .collect::<String>()
    };
    let mut found: BTreeSet<String> = names
        .clone()
        .map(name)
        .filter(|name| !name.is_empty())
        .collect();
    for group in names.filter_map(|rest| rest.strip_prefix('{')) {
        let group = group.split('}').next().unwrap_or_default();
        found.extend(group.split(',').map(|part| name(part.trim())));
    }
    found
}

#[test]
fn rooms_import_only_those_below_them() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (allowed, mut seen) = (may_import(), BTreeSet::new());
    let mut broken = Vec::new();
    for file in files(&source) {
        let inside = file.strip_prefix(&source).unwrap();
        let room = inside
            .iter()
            .next()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_end_matches(".rs")
            .to_owned();
        // lib.rs names the rooms, main.rs starts the program; tests of a room may look anywhere.
        if room == "lib" || room == "main" || inside.ends_with("tests.rs") {
            continue;
        }
        let allowed = allowed
            .get(room.as_str())
            .unwrap_or_else(|| panic!("{room} is no known room"));
        for import in imports(&std::fs::read_to_string(&file).unwrap()) {
            if import != room && !allowed.contains(import.as_str()) {
                broken.push(format!("{} imports {import}", inside.display()));
            }
        }
        seen.insert(room);
    }
    assert_eq!(broken, Vec::<String>::new());
    assert_eq!(
        seen.len(),
        allowed.len(),
        "every room was looked at: {seen:?}"
    );
}

/// What each room of `http` may use of the others; the table of routes and what is beside it may use all.
fn rooms_of_http() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        ("wire", &[][..]),
        ("edge", &["wire"]),
        ("routes", &["wire", "edge"]),
    ])
}

/// The text of a file without comments and tests.
fn program(text: &str) -> String {
    let program = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = program
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// All paths of a file that begin so, with groups taken apart: `super::{a::B, c}` is `super::a::B` and `super::c`.
fn paths(program: &str, begin: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for rest in program.split(begin).skip(1) {
        flatten(rest, &mut vec![], &mut found);
    }
    found
}

/// Reads one path or group at the beginning of `text`; gives what follows it.
fn flatten<'a>(text: &'a str, before: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = flatten(rest, &mut before.clone(), found).trim_start();
            match rest.strip_prefix(',') {
                Some(more) if !more.trim_start().starts_with('}') => rest = more,
                other => {
                    let rest = other.unwrap_or(rest).trim_start();
                    return rest.strip_prefix('}').unwrap_or(rest);
                }
            }
        }
    }
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .unwrap_or(text.len());
    before.push(text[..end].to_owned());
    match text[end..].strip_prefix("::") {
        Some(rest) if !rest.starts_with('<') => flatten(rest, before, found),
        _ => {
            found.push(before.clone());
            &text[end..]
        }
    }
}

/// The modules of `http` by their path below it, and the files that they are in.
fn modules_of_http() -> BTreeMap<Vec<String>, PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
    let mut modules = BTreeMap::new();
    for file in files(&root) {
        let inside = file.strip_prefix(&root).unwrap().with_extension("");
        let mut path: Vec<String> = inside
            .iter()
            .map(|part| part.to_str().unwrap().to_owned())
            .collect();
        if path.last().is_some_and(|last| last == "mod") {
            path.pop();
        }
        modules.insert(path, file);
    }
    modules
}

/// Which other files of `http` each of them uses: by paths from the crate, from its parent, and of a door from itself.
fn uses_of_http() -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let modules = modules_of_http();
    let longest = |path: &[String]| {
        let mut path = path.to_vec();
        while !modules.contains_key(&path) {
            path.pop()?;
        }
        Some(path)
    };
    let mut uses = BTreeMap::new();
    for (module, file) in &modules {
        // Tests of a room may look anywhere.
        if module
            .last()
            .is_some_and(|last| last == "fuzz" || last == "tests")
        {
            continue;
        }
        let program = program(&std::fs::read_to_string(file).unwrap());
        let mut named: Vec<Vec<String>> = paths(&program, "crate::http::");
        let (parents, own) = (paths(&program, "super::"), paths(&program, "use "));
        let parent = &module[..module.len().saturating_sub(1)];
        for path in parents {
            // `super::super::x` comes again by its second `super`.
            if path[0] != "super" {
                named.push([parent, &path].concat());
            }
        }
        for path in own {
            let path = [module.as_slice(), &path].concat();
            if path.len() > module.len() && modules.contains_key(&path[..=module.len()]) {
                named.push(path);
            }
        }
        let files = named.iter().filter_map(|path| longest(path));
        let others: BTreeSet<_> = files.filter(|file| file != module).collect();
        uses.insert(module.clone(), others);
    }
    uses
}

#[test]
fn http_has_three_rooms_with_one_direction_between_them() {
    let (rooms, mut seen) = (rooms_of_http(), BTreeSet::new());
    let mut broken = Vec::new();
    for (module, uses) in uses_of_http() {
        let Some(allowed) = module.first().and_then(|room| rooms.get(room.as_str())) else {
            continue;
        };
        seen.insert(module[0].clone());
        for used in uses {
            let room = used.first().map_or("", String::as_str);
            if room != module[0] && !allowed.contains(&room) {
                broken.push(format!("{} uses {}", module.join("/"), used.join("/")));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
    assert_eq!(seen.len(), rooms.len(), "each room was looked at: {seen:?}");
}

#[test]
fn no_files_of_http_use_one_another_in_a_circle() {
    let mut left = uses_of_http();
    assert!(left.len() > 30 && left.values().any(|uses| uses.len() > 3));
    // Whoever uses nobody that is left is part of no circle.
    loop {
        let free: Vec<Vec<String>> = left
            .iter()
            .filter(|(_, uses)| !uses.iter().any(|used| left.contains_key(used)))
            .map(|(module, _)| module.clone())
            .collect();
        if free.is_empty() {
            break;
        }
        for module in free {
            left.remove(&module);
        }
    }
    let circles: Vec<String> = left
        .iter()
        .map(|(module, uses)| {
            let uses: Vec<String> = uses.iter().map(|used| used.join("/")).collect();
            format!("{} uses {}", module.join("/"), uses.join(", "))
        })
        .collect();
    assert_eq!(circles, Vec::<String>::new());
}

#[test]
fn the_reader_of_paths_takes_groups_apart() {
    let text = "use super::{a::B, c::{self, D}};\nlet x = super::e::f();\nuse super::g;";
    let found: Vec<String> = paths(text, "super::")
        .iter()
        .map(|path| path.join("::"))
        .collect();
    assert_eq!(found, ["a::B", "c::self", "c::D", "e::f", "g"]);
}

#[test]
fn the_reader_of_imports_reads_imports() {
    let text = "use crate::audit::Writer;\nuse crate::{domain, http::Parts};\n// crate::cli\nlet x = crate::app::y();\n\
        #[cfg(test)]\nmod tests { use crate::sandbox::Z; }";
    let found: Vec<String> = imports(text).into_iter().collect();
    assert_eq!(found, ["app", "audit", "domain", "http"]);
}

/// The names of fields in the macros of a file that write log lines.
fn log_fields(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let text = text.replace("tracing::$level!(", "tracing::info!(");
    for level in ["error", "warn", "info", "debug"] {
        for rest in text.split(&format!("tracing::{level}!(")).skip(1) {
            // Up to the message, or the end of the macro.
            let fields = rest.split(['"', ';']).next().unwrap_or_default();
            let mut depth = 0;
            let at_top: String = fields
                .chars()
                .filter(|c| {
                    depth += i32::from(matches!(c, '(' | '{' | '['));
                    depth -= i32::from(matches!(c, ')' | '}' | ']'));
                    depth == 0
                })
                .collect();
            for field in at_top.split(',') {
                let name = field.split(" = ").next().unwrap_or_default();
                let name = name.trim().trim_start_matches(['%', '?']);
                let is_name = |c: char| c.is_ascii_lowercase() || matches!(c, '_' | '.');
                if !name.is_empty() && name.chars().all(is_name) {
                    found.insert(name.to_owned());
                }
            }
        }
    }
    found
}

#[test]
fn log_lines_have_the_documented_fields_and_no_name_that_means_something_else_to_others() {
    use image_share_gateway::telemetry::LOG_FIELDS;
    let read = r#"tracing::warn!(a.b = %f(x, y), c, %d, "words {e}"); tracing::$level!(f = if g { h } else { i }, "x")"#;
    let expected: BTreeSet<String> = ["a.b", "c", "d", "f"].map(str::to_owned).into();
    assert_eq!(log_fields(read), expected, "the reader reads");

    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let texts = files(&source)
        .into_iter()
        .map(|path| std::fs::read_to_string(path).unwrap());
    let used: BTreeSet<String> = texts.flat_map(|text| log_fields(&text)).collect();
    let documented: BTreeSet<String> = LOG_FIELDS.map(|(name, _)| name.to_owned()).into();
    assert_eq!(used, documented);

    // Objects of the Elastic Common Schema: a text of such a name makes Elasticsearch drop the line.
    let objects = "agent client cloud container data_stream destination device dll dns ecs email error event faas file \
        geo group hash host http interface log network observer orchestrator organization os package process registry \
        related risk rule server service source span threat tls trace transaction url user user_agent vlan \
        vulnerability x509";
    for name in &documented {
        assert!(
            !objects.split_whitespace().any(|object| object == name),
            "{name}"
        );
        let is_object = documented
            .iter()
            .any(|other| other.starts_with(&format!("{name}.")));
        assert!(!is_object, "{name} is a text and an object");
    }
}

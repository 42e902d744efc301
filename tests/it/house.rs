//! The arrows between the rooms (ARCHITECTURE.md), read off the `crate::` paths of each file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const GROUND: [&str; 5] = ["domain", "problem", "config", "telemetry", "tasks"];

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
        ("sandbox", none),
        ("problem", BTreeSet::from(["domain"])),
        ("config", BTreeSet::from(["domain"])),
        ("telemetry", BTreeSet::from(["domain", "config"])),
        ("tasks", BTreeSet::from(["domain"])),
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

#[test]
fn the_reader_of_imports_reads_imports() {
    let text = "use crate::audit::Writer;\nuse crate::{domain, http::Parts};\n// crate::cli\nlet x = crate::app::y();\n\
        #[cfg(test)]\nmod tests { use crate::sandbox::Z; }";
    let found: Vec<String> = imports(text).into_iter().collect();
    assert_eq!(found, ["app", "audit", "domain", "http"]);
}

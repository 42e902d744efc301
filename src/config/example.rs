//! What is written about the keys for people: the example file and the table of the documentation.

use std::fmt::Write as _;

use super::keys::{KEYS, Key, Unset};
use super::layers::variable;

/// `config.example.toml`: every key with its default and what it is for. What has no default and is not required stands
/// as an example; only what is required is set.
#[must_use]
pub fn example_file() -> String {
    let mut text = String::from(
        "# Every key of image-share-gateway, with its default. What is commented out need not be set: behind `=` stands its\n\
         # default, or an example where there is none. `check-config --config FILE` says what takes effect.\n",
    );
    let mut section = "";
    for key in &KEYS {
        let (of, name) = key.place();
        if of != section {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n[{of}]\n");
            section = of;
        }
        let _ = writeln!(text, "# {}", sentence(key));
        let example = key.example();
        let _ = match (key.unset, key.file_key()) {
            (Unset::Required(_), Some(_)) => {
                writeln!(
                    text,
                    "{name}_file = \"/run/secrets/{name}\"\n# {name} = {example}"
                )
            }
            (Unset::Required(_), None) => writeln!(text, "{name} = {example}"),
            (_, Some(_)) => {
                writeln!(
                    text,
                    "# {name} = {example}\n# {name}_file = \"/run/secrets/{name}\""
                )
            }
            (_, None) => writeln!(text, "# {name} = {example}"),
        };
    }
    text
}

/// What it is for, and what holds where it is not set and has no default.
fn sentence(key: &Key) -> String {
    let note = key.note();
    let mut rest = note.chars();
    let first = rest.next().map(|first| first.to_ascii_uppercase());
    let note: String = first.into_iter().chain(rest).collect();
    match key.unset {
        Unset::Default(_) => format!("{note}."),
        Unset::Otherwise { words, .. } => format!("{note}. Unless set: {words}."),
        Unset::Required(_) => format!("{note}. Required."),
    }
}

/// The keys as a table in Markdown, with the variable of each.
#[must_use]
pub fn table_of_keys() -> String {
    let mut text = String::from(
        "| key | variable | unless set | what it is for |\n| --- | --- | --- | --- |\n",
    );
    for key in &KEYS {
        let unset = match key.unset {
            Unset::Default(value) => format!("`{value}`"),
            Unset::Otherwise { words, .. } => words.to_owned(),
            Unset::Required(_) => "required".into(),
        };
        let by_file = key.file_key().map(|file_key| format!(", `{file_key}`"));
        let _ = writeln!(
            text,
            "| `{}`{} | `{}` | {unset} | {} |",
            key.name,
            by_file.unwrap_or_default(),
            variable(key.name),
            key.note()
        );
    }
    text
}

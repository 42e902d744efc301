//! Values that are tables: they become keys like any other, so that each has its origin and its faults.

use std::collections::BTreeSet;

use toml::{Table, Value};

use crate::domain::IssuerName;

use super::keys::{is_key_of_issuer, value};
use super::layers::{Given, Origin};
use super::reader::KeyReader;

impl KeyReader {
    /// The keys of the table `key`, each of which can be read as `key.KEY` then.
    pub(super) fn keys_of_table(&mut self, key: &str) -> Vec<String> {
        let Some(given) = self.table_value(key, "a table") else {
            return Vec::new();
        };
        match given.value {
            Value::Table(table) => self.lay_out(key, key, table, &given.origin),
            _ => self.fault(key, "must be a table").unwrap_or_default(),
        }
    }

    /// Where the keys of each table of the array `key` can be read: under the table's name, or its number (from 1) where it
    /// has none of its own.
    pub(super) fn named_tables(&mut self, key: &str) -> Vec<String> {
        let Some(given) = self.table_value(key, "an array of tables") else {
            return Vec::new();
        };
        let must_be = format!("must be tables, each under [[{key}]]");
        let Value::Array(items) = given.value else {
            return self.fault(key, &must_be).unwrap_or_default();
        };
        let (mut places, mut taken) = (Vec::new(), BTreeSet::new());
        for (index, item) in items.into_iter().enumerate() {
            let number = index + 1;
            let Value::Table(table) = item else {
                self.fault::<()>(key, &must_be);
                continue;
            };
            let name = table.get("name").and_then(Value::as_str);
            let name = name.and_then(|name| name.parse::<IssuerName>().ok());
            // No name holds a bracket.
            let mut place = format!("{key}[{number}]");
            if let Some(name) = name {
                if taken.insert(name.clone()) {
                    place = format!("{key}.{name}");
                } else {
                    self.fault::<()>(key, &format!("two of them are named `{name}`"));
                }
            }
            let numbered = format!("{key}[{number}]");
            for name in self.lay_out(&place, &numbered, table, &given.origin) {
                if !is_key_of_issuer(&name) {
                    self.fault::<()>(&format!("{place}.{name}"), "is no key of the gateway");
                }
            }
            places.push(place);
        }
        self.places.clone_from(&places);
        places
    }

    /// Lays the keys of a table under `place`; the file has it as `numbered`.
    fn lay_out(
        &mut self,
        place: &str,
        numbered: &str,
        table: Table,
        origin: &Origin,
    ) -> Vec<String> {
        let mut names = Vec::new();
        for (name, value) in table {
            let origin = self.origin_within(origin, &format!("{numbered}.{name}"));
            self.lay(format!("{place}.{name}"), Given { value, origin });
            names.push(name);
        }
        names
    }

    /// A value that is no text; as text it is TOML in one line, as the environment has it.
    fn table_value(&mut self, key: &str, what: &str) -> Option<Given> {
        let given = self.find(key)?.clone();
        let Value::String(text) = &given.value else {
            return Some(given);
        };
        match value(text) {
            Some(value) => Some(Given { value, ..given }),
            None => self.fault(
                key,
                &format!("must be {what} as TOML writes it in one line"),
            ),
        }
    }
}

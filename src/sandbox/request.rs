//! One call as it came: its parameters, whatever they came in.

use serde_json::{Map, Value};
use url::form_urlencoded;

/// The parameters of a call, by name.
pub(super) struct Call {
    parameters: Map<String, Value>,
}

impl Call {
    /// Reads a body, form or JSON; without one the query of the URL. The `Action` that Go's SDK repeats in
    /// the URL beside a body is not counted twice.
    pub(super) fn read(query: &str, body: &[u8], is_json: bool) -> Self {
        let form = |bytes| {
            form_urlencoded::parse(bytes)
                .map(|(name, value)| (name.into_owned(), Value::String(value.into_owned())))
                .collect()
        };
        let mut parameters: Map<String, Value> = if body.is_empty() {
            form(query.as_bytes())
        } else if is_json {
            match serde_json::from_slice(body) {
                Ok(Value::Object(members)) => members,
                _ => Map::new(),
            }
        } else {
            form(body)
        };
        if !body.is_empty() && !parameters.contains_key("Action") {
            let in_url =
                form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "Action");
            parameters.extend(
                in_url.map(|(name, value)| (name.into_owned(), Value::String(value.into_owned()))),
            );
        }
        Self { parameters }
    }

    pub(super) fn parameters(&self) -> &Map<String, Value> {
        &self.parameters
    }

    /// A parameter as text; numbers and truth values read as they are signed.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.parameters.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(truth) => Some(truth.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// A list of integers: `Name.0`, `Name.1`, … without gaps or, nested, `Name: […]`. `Err` names a list that
    /// is not so, or holds what is no plain integer.
    pub(super) fn integers(&self, name: &str) -> Result<Vec<u64>, String> {
        let integer = |value: &Value| match value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text
                .parse()
                .ok()
                .filter(|number: &u64| number.to_string() == *text),
            _ => None,
        };
        let items: Vec<&Value> = match self.parameters.get(name) {
            Some(Value::Array(items)) => items.iter().collect(),
            Some(Value::Null) | None => (0..)
                .map_while(|index| self.parameters.get(&format!("{name}.{index}")))
                .collect(),
            Some(other) => vec![other],
        };
        let prefix = format!("{name}.");
        let flat = self
            .parameters
            .keys()
            .filter(|key| key.starts_with(&prefix))
            .count();
        let gaps = flat > 0 && flat != items.len();
        let integers: Option<Vec<u64>> = items
            .into_iter()
            .map(|item| integer(item).filter(|number| *number > 0))
            .collect();
        integers.filter(|_| !gaps).ok_or_else(|| name.to_owned())
    }
}

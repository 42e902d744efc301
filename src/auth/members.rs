//! The members of a JSON object as they were written: a token's header, or its claims.
//!
//! Both have to be unique (RFC 7515, section 4; RFC 7519, section 4), and whatever a parser would make of a member given
//! twice, here it is a refusal.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::refusal::{TokenError, TokenRefusal, quoted};

/// Members by name.
pub(super) struct Members<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Members<'a> {
    /// Reads an object.
    pub(super) fn read(json: &'a str) -> Result<Self, TokenRefusal> {
        let Pairs(pairs) = serde_json::from_str(json).map_err(|_| TokenError::Malformed)?;
        let mut members = BTreeMap::new();
        for (name, value) in pairs {
            if members.contains_key(&name) {
                return Err(TokenError::GivenTwice(quoted(&name)).into());
            }
            members.insert(name, value);
        }
        Ok(Self(members))
    }

    /// A member's value; one that cannot be held counts as null.
    pub(super) fn value(&self, name: &str) -> Option<Value> {
        let written = self.written(name)?;
        Some(serde_json::from_str(written).unwrap_or_default())
    }

    /// A member as it was written.
    pub(super) fn written(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).map(|written| written.get())
    }
}

/// All members in their order.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }

        deserializer.deserialize_map(Object).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_given_twice_is_refused_by_name_whatever_it_is() {
        for (twice, name) in [
            (r#"{"sub":"a","sub":"b"}"#, "`sub`"),
            (r#"{"x":1,"x":1}"#, "`x`"),
            (r#"{"x":1,"\u0078":2}"#, "`x`"),
        ] {
            let refused = Members::read(twice).err().map(|refusal| refusal.error);
            assert_eq!(
                refused,
                Some(TokenError::GivenTwice(name.into())),
                "{twice}"
            );
        }
        assert!(Members::read(r#"{"a":{"x":1},"b":{"x":2}}"#).is_ok());
    }

    #[test]
    fn what_is_no_object_is_malformed() {
        for text in [
            "",
            "[]",
            "[[\"a\",1]]",
            "null",
            "{",
            "{}x",
            "7",
            r#"{"a":}"#,
        ] {
            let refused = Members::read(text).err().map(|refusal| refusal.error);
            assert_eq!(refused, Some(TokenError::Malformed), "{text}");
        }
    }

    #[test]
    fn what_no_reader_can_hold_is_there_as_it_was_written() {
        let members = Members::read(r#"{"n":1E400,"s":"\ud800"}"#).expect("an object");
        assert_eq!(members.written("n"), Some("1E400"));
        assert_eq!(members.value("n"), Some(Value::Null));
        assert_eq!(members.value("s"), Some(Value::Null));
        assert_eq!(members.value("x"), None);
    }
}

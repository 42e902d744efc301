//! Secrets: given themselves or in a file of their own, and who can read them besides.

use std::path::Path;

use secrecy::SecretString;

use super::layers::{Layer, Origin, is_readable_by_others, read_secret};
use super::reader::{KeyReader, is_required};

impl KeyReader {
    /// The key that gives a secret's value: it, or the one that names a file with it.
    pub(super) fn given_by(&self, key: &str) -> String {
        let file_key = format!("{key}_file");
        let of = |layer: &&Layer| layer.contains_key(key) || layer.contains_key(&file_key);
        match self.layers.iter().find(of) {
            Some(layer) if !layer.contains_key(key) => file_key,
            _ => key.to_owned(),
        }
    }

    /// Notes that a file with a secret can be read by whoever is on the machine.
    pub(super) fn warn_of_readable(&mut self, key: &str, path: &Path) {
        if is_readable_by_others(path) {
            let path = path.display();
            self.warn(key, &format!("`{path}` can be read by others (chmod o-r)"));
        }
    }

    /// Notes that a file that anybody on the machine can read holds a secret itself.
    fn warn_of_inline(&mut self, key: &str) {
        let Some(Origin::File(path, _)) = self.find(key).map(|given| given.origin.clone()) else {
            return;
        };
        // The place of a trail is secret only where it holds a password, and then it is a URL with one.
        let holds_one = key != "audit.database_url"
            || matches!(self.find(key), Some(given) if given.value.as_str().is_some_and(|url| url.contains('@')));
        if holds_one && is_readable_by_others(&path) {
            let path = path.display();
            self.warn(
                key,
                &format!("`{path}` holds it and can be read by others (chmod o-r)"),
            );
        }
    }

    /// A secret from `key` or the file that `key_file` names; the higher layer wins.
    pub(super) fn secret(&mut self, key: &str) -> Option<String> {
        let file_key = format!("{key}_file");
        for index in 0..self.layers.len() {
            let layer = &self.layers[index];
            match (layer.contains_key(key), layer.get(&file_key).cloned()) {
                (true, Some(_)) => {
                    return self.fault(&file_key, &format!("cannot be set together with {key}"));
                }
                (true, None) => {
                    self.warn_of_inline(key);
                    return self.text(key);
                }
                (false, Some(given)) => {
                    let toml::Value::String(path) = given.value else {
                        return self.fault(&file_key, "must be text, in quotes");
                    };
                    return match read_secret(Path::new(&path)) {
                        Ok(secret) => {
                            self.warn_of_readable(&file_key, Path::new(&path));
                            Some(secret)
                        }
                        Err(message) => self.fault(&file_key, &message),
                    };
                }
                (false, None) => {}
            }
        }
        self.find(key)?;
        self.text(key)
    }

    /// A secret on one line, as keys are.
    pub(super) fn required_secret(&mut self, key: &str) -> Option<SecretString> {
        let faults_before = self.faults.len();
        let secret = self.secret(key);
        let odd = |c: char| c.is_control() || c == '\u{feff}';
        let is_odd = |secret: &str| secret.contains(odd) || secret.trim() != secret;
        if secret.as_deref().is_some_and(is_odd) {
            let why = "holds a control character, a byte order mark or white space around it";
            let key = self.given_by(key);
            return self.fault(&key, why);
        }
        if secret.is_none() && self.faults.len() == faults_before {
            return self.lacking(key, &is_required(key));
        }
        secret.map(SecretString::from)
    }
}

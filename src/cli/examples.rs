//! What stands under `--help`: commands that people begin with. A test holds that each is one.

pub(super) const SERVE: &str = "\
Examples:
  Try it, without an account and without a configuration:
    image-share-gateway serve --sandbox
  In front of the real API:
    image-share-gateway serve --config gateway.toml";

pub(super) const SANDBOX: &str = "\
Examples:
  At a port of its own, slow and faulty:
    image-share-gateway sandbox --bind 127.0.0.1:9999 \\
      --latency-ms 200 --fault-rate 0.1";

pub(super) const TOKEN: &str = "\
Examples:
  For an hour, by the keys of the configuration:
    image-share-gateway token --config gateway.toml --sub team-a \\
      --scope 'shares:read shares:write'
  By a key of a set, for somebody else's issuer:
    image-share-gateway token --jwks keys.json --kid ci \\
      --iss https://issuer.example --aud gateway --sub ci --scope shares:write";

pub(super) const OPENAPI: &str = "\
Examples:
  For a generator of clients:
    image-share-gateway openapi > openapi.json
    image-share-gateway openapi --format yaml > openapi.yaml";

pub(super) const CHECK_CONFIG: &str = "\
Examples:
  Before a start or a reload:
    image-share-gateway check-config --config gateway.toml";

pub(super) const HEALTHCHECK: &str = "\
Examples:
  Of the configured listener, and of another:
    image-share-gateway healthcheck --config gateway.toml
    image-share-gateway healthcheck --url http://127.0.0.1:8080";

pub(super) const VERIFY: &str = "\
Examples:
  The whole chain, from its first row:
    image-share-gateway audit verify \\
      --database-url sqlite:///var/lib/image-share-gateway/audit.db
  That it still holds a head that was noted, so that no tail was cut off:
    image-share-gateway audit verify --config gateway.toml --expect \\
main:2:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

pub(super) const BACKUP: &str = "\
Examples:
  While the gateway runs:
    image-share-gateway audit backup --config gateway.toml \\
      --to /backup/audit.db";

pub(super) const IMPORT: &str = "\
Examples:
  With the gateway stopped; the password comes from PGPASSWORD or ~/.pgpass:
    image-share-gateway audit import \\
      sqlite:///var/lib/image-share-gateway/audit.db \\
      'postgres://gateway@db.example.com/audit?sslmode=verify-full'";

pub(super) const EXPORT: &str = "\
Examples:
  One image's changes, for a spreadsheet:
    image-share-gateway audit export --config gateway.toml --format csv --bom \\
      --image-id compshareImage-abc > changes.csv
  What did not end well in January:
    image-share-gateway audit export --config gateway.toml --outcome failed \\
      --from 2026-01-01T00:00:00Z --to 2026-02-01T00:00:00Z";

pub(super) const POLICY_CHECK: &str = "\
Examples:
  May whoever holds this token share that image?
    image-share-gateway policy check --policy policies.cedar --token \"$TOKEN\" \\
      --method PUT --path /images/img/shares/12345
  With claims that are no token yet:
    image-share-gateway policy check --policy policies.cedar \\
      --claims claims.json --method GET --path /audit/events";

pub(super) const COMPLETIONS: &str = "\
Examples:
  For bash, from the next shell on:
    image-share-gateway completions bash \\
      > ~/.local/share/bash-completion/completions/image-share-gateway
  For zsh and fish:
    image-share-gateway completions zsh > ~/.zfunc/_image-share-gateway
    image-share-gateway completions fish \\
      > ~/.config/fish/completions/image-share-gateway.fish";

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::super::CommandLine;

    /// Words as a shell takes them apart; what goes elsewhere is left out.
    fn words(line: &str) -> Vec<String> {
        let (command, _) = line.split_once(" > ").unwrap_or((line, ""));
        let mut words = vec![String::new()];
        let mut quote = None;
        for letter in command.chars() {
            match (letter, quote) {
                ('\'' | '"', None) => quote = Some(letter),
                (_, Some(open)) if letter == open => quote = None,
                (' ', None) => words.push(String::new()),
                _ => words.last_mut().expect("one at least").push(letter),
            }
        }
        words
    }

    /// The commands under `Examples`, as a terminal of 80 columns shows them.
    fn shown(help: &str) -> Vec<String> {
        let (_, examples) = help.split_once("Examples:\n").expect("examples");
        let joined = examples.replace("\\\n", " ");
        assert!(examples.lines().all(|line| line.len() <= 80), "{examples}");
        let lines = joined.lines().filter_map(|line| line.strip_prefix("    "));
        lines
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    }

    fn look(command: &mut clap::Command, path: &str, seen: &mut usize) {
        let path = format!("{path} {}", command.get_name());
        if command.get_subcommands().next().is_none() {
            let commands = shown(&command.render_long_help().to_string());
            assert!(!commands.is_empty(), "{path} has no example");
            for line in commands {
                assert!(line.starts_with(path.trim()), "{line} under {path}");
                let parsed = CommandLine::try_parse_from(words(&line));
                assert!(parsed.is_ok(), "{line}: {parsed:?}");
                *seen += 1;
            }
        }
        for command in command
            .get_subcommands_mut()
            .filter(|command| command.get_name() != "help")
        {
            look(command, &path, seen);
        }
    }

    #[test]
    fn every_command_has_examples_and_each_is_one() {
        let mut seen = 0;
        look(&mut CommandLine::command().term_width(80), "", &mut seen);
        assert!(seen > 15, "{seen}");
    }
}

//! The same trails in a server of PostgreSQL.

use std::process::Command;

use image_share_gateway::config::trail_place;

use super::{Bench, Place, Trail, look, url};

/// What somebody with `psql` is answered.
fn psql(database: &str, statement: &str) -> String {
    let arguments = ["-XAtq", "-d", database, "-c", statement];
    let output = Command::new("psql").args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Where a trail lies in the server; copied where an earlier run did not leave it.
fn imported(server: &str, trail: &Trail) -> (Place, String) {
    let (events, path) = trail;
    let name = format!("bench_trail_{events}");
    let (to, own) = (format!("{server}/{name}"), format!("{server}/postgres"));
    let there = format!("SELECT COUNT(*) FROM pg_database WHERE datname = '{name}'");
    if psql(&own, &there) == "0" {
        psql(&own, &format!("CREATE DATABASE {name}"));
    }
    let filled = "SELECT to_regclass('lane_locks') IS NOT NULL";
    if psql(&to, filled) == "f" {
        let (took, peak) = look::import(&url(path), &to);
        println!(
            "\nimport of {events} events: {took:.0} s, most memory {} MiB",
            peak >> 10
        );
        psql(&to, "VACUUM (ANALYZE) audit_entries");
    }
    let mib = psql(&to, "SELECT pg_database_size(current_database()) >> 20");
    println!("\n{events} events in PostgreSQL: {mib} MiB");
    ((*events, trail_place(&to).unwrap()), to)
}

impl Bench {
    /// Pages, provenance, starts, verification and exports, large over small.
    pub(crate) async fn over_server(&mut self, server: &str, small: &Trail, large: &Trail) {
        let server = server.trim_end_matches('/');
        let (small, small_url) = imported(server, small);
        let (large, large_url) = imported(server, large);
        self.pages(&small, &large).await;
        self.provenance(&small, &large).await;
        let keys = tempfile::tempdir_in(&self.directory).unwrap();
        let (one, _) = look::start(keys.path(), &small_url);
        let (other, _) = look::start(keys.path(), &large_url);
        println!("\nstart until serving, median ms: {one:.1} and {other:.1}");
        self.mark("start, large over small", other / one, 2.0);
        let (took, peak) = look::verify(&large_url);
        println!("\naudit verify, s: {took:.1}");
        self.memory("verify", peak);
        let (took, peak) = look::export(&large_url, "ndjson");
        println!("\naudit export, s: {took:.1}");
        self.memory("export", peak);
    }
}

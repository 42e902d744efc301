//! What the system knows of a process: CPU time, bytes written, peak memory.

use std::time::Duration;

/// Linux counts CPU time in these (`getconf CLK_TCK`).
const TICKS_PER_SECOND: u64 = 100;

/// User and system time of a process, `self` among them.
pub(crate) fn cpu_of(process: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The command's name is in brackets and may hold anything.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

/// Bytes that this process handed to write calls, checkpoints among them.
pub(crate) fn written_by_self() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.unwrap().parse().unwrap()
}

//! A share of the processor for a process, by a control group: so that the machine is not what bounds two of them.

use std::path::PathBuf;

use super::process::Process;

/// The groups of this run are gone with it.
pub(crate) struct Quota(PathBuf);

/// Of a period, in microseconds.
const PERIOD: u32 = 100_000;

impl Quota {
    /// Gives a gateway so many hundredths of a processor; `None` where this user may not.
    pub(crate) fn of(gateway: &Process, hundredths: u32) -> Option<Self> {
        let id = gateway.id();
        let is_unified = PathBuf::from("/sys/fs/cgroup/cgroup.controllers").exists();
        let (root, limit, text) = if is_unified {
            let text = format!("{} {PERIOD}", PERIOD / 100 * hundredths);
            ("/sys/fs/cgroup", "cpu.max", text)
        } else {
            let text = (PERIOD / 100 * hundredths).to_string();
            ("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", text)
        };
        let group = PathBuf::from(root).join(format!("image-share-gateway-bench-{id}"));
        std::fs::create_dir(&group).ok()?;
        let quota = Self(group);
        std::fs::write(quota.0.join(limit), text).ok()?;
        std::fs::write(quota.0.join("cgroup.procs"), id.to_string()).ok()?;
        Some(quota)
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // Once its process has ended.
        let _ = std::fs::remove_dir(&self.0);
    }
}

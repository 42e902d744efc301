//! How far long work is, for whoever waits for it.

/// How far it is. Told once a page at most, and more than once of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is done.
    pub done: u64,
    /// Of how much, where that is known; it may grow meanwhile.
    pub total: Option<u64>,
    /// Of what.
    pub unit: ProgressUnit,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgressUnit {
    /// Bytes that are copied.
    Bytes,
    /// Rows that are verified.
    Rows,
    /// Events that are written.
    Events,
}

/// Takes how far it is; it must not wait.
pub type TellProgress<'a> = &'a (dyn Fn(Progress) + Send + Sync);

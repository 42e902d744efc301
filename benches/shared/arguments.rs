//! What a bench is told on its command line.

/// The argument that follows this flag.
pub(crate) fn after(flag: &str) -> Option<String> {
    let mut arguments = std::env::args();
    arguments.find(|argument| argument == flag)?;
    Some(arguments.next().unwrap())
}

//! The trail bench, in the making.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on says where")]
#![expect(
    clippy::disallowed_methods,
    reason = "a bench reads the clock and the environment"
)]
#![expect(clippy::cast_precision_loss, reason = "figures are for people")]

mod generate;
mod process;
mod record;

use std::path::PathBuf;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |flag: &str| {
        arguments
            .iter()
            .position(|argument| argument == flag)
            .map(|at| arguments[at + 1].clone())
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    if let Some(path) = after("--record") {
        return runtime.block_on(record::cost(&PathBuf::from(path), 20_000));
    }
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("trail-bench");
    std::fs::create_dir_all(&directory).unwrap();
    for events in [10_000, 1_000_000] {
        let begun = std::time::Instant::now();
        let path = runtime.block_on(generate::trail(&directory, events));
        println!(
            "{events}: {:?} {}",
            begun.elapsed(),
            path.metadata().unwrap().len() / 1024
        );
    }
}

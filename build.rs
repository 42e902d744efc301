//! Has cargo build anew when a migration changes: `sqlx::migrate!` reads the folder, which the compiler does not see.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}

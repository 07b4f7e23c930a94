//! Writes the golden tokens, `caps/tests/vectors/tokens.json`, anew.
//!
//! ```sh
//! cargo run -p caps --example vectors
//! ```
//! A difference afterwards means that tokens have changed: old ones may no longer be accepted.

#[path = "../tests/vectors/generate.rs"]
mod generate;
#[path = "../tests/support/mod.rs"]
mod support;

fn main() -> std::io::Result<()> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/tokens.json");
    std::fs::write(path, generate::text())?;
    println!("wrote {path}");
    Ok(())
}

//! Writes the published vectors, `caps/tests/vectors/*.json`, anew.
//!
//! ```sh
//! cargo run -p caps --example vectors
//! ```
//! A difference afterwards means that tokens or signed messages have changed: old ones may no longer be accepted.

#[path = "../tests/vectors/generate.rs"]
mod generate;
#[path = "../tests/support/mod.rs"]
mod support;

fn main() -> std::io::Result<()> {
    let directory = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors"));
    for (name, document) in generate::documents() {
        let path = directory.join(name);
        std::fs::write(&path, generate::text(&document))?;
        println!("wrote {}", path.display());
    }
    Ok(())
}

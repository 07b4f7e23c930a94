//! Tests that a document names.

use std::path::Path;

/// Whether `file::name` is a test: a function of that name, below `#[test]`; or, in a program that lists its tests by
/// name, in that list; or, among the hostile clients, an attack that `attacks!` makes a test of.
///
/// # Errors
/// What is wrong.
pub fn exists(root: &Path, test: &str) -> Result<(), String> {
    let (file, name) = test.split_once("::").ok_or(format!("{test}: not file::name"))?;
    let text = std::fs::read_to_string(root.join(file)).map_err(|error| format!("{file}: {error}"))?;
    if text.contains("const TESTS: &[Test]") {
        // As a text, or as a path of which a macro makes one.
        let listed = text.lines().map(str::trim).any(|line| {
            line.contains(&format!("\"{name}\",")) || line.strip_suffix(',').is_some_and(|path| path == name)
        });
        return listed.then_some(()).ok_or(format!("{file} lists no {name}"));
    }
    let attacks = text.split_once("attacks! {").and_then(|(_, rest)| rest.split_once("\n}\n"));
    if attacks
        .is_some_and(|(list, _)| list.lines().any(|line| line.trim().starts_with(&format!("{name} =>"))))
    {
        return Ok(());
    }
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let at = lines
        .iter()
        .position(|line| {
            line.starts_with(&format!("fn {name}(")) || line.starts_with(&format!("async fn {name}("))
        })
        .ok_or(format!("{file} has no {name}"))?;
    let attributes =
        lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
    let mut attributes = attributes.peekable();
    if attributes.any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test")) {
        Ok(())
    } else {
        Err(format!("{file}: {name} is no test"))
    }
}

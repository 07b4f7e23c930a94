//! The few files that a program in the sandbox may read: itself, its loader, libraries. Landlock holds it to them.

use std::fs::File;
use std::path::Path;

use caps::error::{Code, Error, Result};
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, Scope,
};

/// Where loaders lie: what the kernel starts for a program that is linked dynamically.
const LOADERS: [&str; 4] = [
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/ld-musl-x86_64.so.1",
    "/lib/ld-musl-aarch64.so.1",
];
/// Where libraries lie, and the list of them.
const LIBRARIES: [&str; 6] =
    ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"];

/// Rules that let `program` be started and read its libraries, and nothing else of any file system; no TCP, no abstract
/// sockets and no signals beyond the sandbox where the kernel can forbid them.
///
/// # Errors
/// `E_SYSTEM` without Landlock: then there is no sandbox.
pub(super) fn rules(program: &File) -> Result<RulesetCreated> {
    let build = || {
        let rules = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(ABI::V1))?
            // Later kernels can forbid more. The filter of system calls forbids it all too.
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(ABI::V5))?
            .handle_access(AccessNet::from_all(ABI::V4))?
            .scope(Scope::from_all(ABI::V6))?
            .create()?;
        let run = AccessFs::Execute | AccessFs::ReadFile;
        let mut rules = rules.add_rule(PathBeneath::new(program, run))?;
        for (paths, access) in [(&LOADERS[..], run), (&LIBRARIES[..], AccessFs::ReadFile.into())] {
            for path in paths.iter().filter(|path| Path::new(path).exists()) {
                rules = rules.add_rule(PathBeneath::new(PathFd::new(path)?, access))?;
            }
        }
        Ok(rules)
    };
    build().map_err(|_: Box<dyn std::error::Error>| {
        Error::new(Code::System, "this kernel cannot keep a program from files (Landlock, Linux 5.13)")
    })
}

//! A configuration as TOML, every key stated: what `status` shows, and what a test reads back.

use std::fmt;

use super::Config;
use crate::fault::FaultKind;
use crate::quota::Quota;

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[node]\ncluster = \"{}\"", self.node.cluster)?;
        if let Some(pool) = self.node.pool {
            writeln!(f, "pool = {}", Size(pool))?;
        }
        if let Some(uids) = &self.node.allow_uids {
            writeln!(f, "allow_uids = {uids:?}")?;
        }
        writeln!(f, "allow_swap = {}", self.node.allow_swap)?;
        if let Some(root) = &self.node.root {
            writeln!(f, "root = {}", Text(&root.to_string_lossy()))?;
        }

        let lease = &self.lease;
        writeln!(f, "\n[lease]\nttl_default = \"{}ms\"", lease.ttl_default.as_millis())?;
        writeln!(f, "ttl_max = \"{}ms\"", lease.ttl_max.as_millis())?;
        writeln!(f, "bytes_min = {}\nbytes_max = {}", Size(lease.bytes_min), Size(lease.bytes_max))?;
        writeln!(f, "per_principal = {}", lease.per_principal)?;

        quota(f, "default", &self.quotas.default)?;
        for (name, value) in &self.quotas.named {
            quota(f, &format!("\"{name}\""), value)?;
        }

        let audit = &self.audit;
        let devices: Vec<_> =
            audit.devices.iter().map(|path| Text(&path.to_string_lossy()).to_string()).collect();
        writeln!(f, "\n[audit]\ndevices = [{}]", devices.join(", "))?;
        writeln!(f, "on_full = \"{}\"", audit.on_full.name())?;
        writeln!(f, "checkpoint_every = \"{}ms\"", audit.checkpoint_every.as_millis())?;
        writeln!(f, "checkpoint_entries = {}", audit.checkpoint_entries)?;

        writeln!(f, "\n[faults]")?;
        for kind in FaultKind::ALL {
            writeln!(f, "{} = \"{}\"", kind.name(), self.faults.reaction(kind).name())?;
        }
        let kinds: Vec<_> =
            self.faults.quarantine.iter().map(|kind| format!("\"{}\"", kind.name())).collect();
        writeln!(f, "quarantine = [{}]", kinds.join(", "))?;

        writeln!(f, "\n[policy]")?;
        if let Some(file) = &self.policy.file {
            writeln!(f, "file = {}", Text(&file.to_string_lossy()))?;
        }
        writeln!(f, "allow_all = {}", self.policy.allow_all)?;

        let every = self.canary.every.map_or("off".to_owned(), |every| format!("{}ms", every.as_millis()));
        writeln!(f, "\n[canary]\nevery = \"{every}\"")?;

        let remote = &self.remote;
        writeln!(f, "\n[remote]")?;
        if let Some(listen) = remote.listen {
            writeln!(f, "listen = \"{listen}\"")?;
        }
        if let Some(domain) = &remote.domain {
            writeln!(f, "domain = {}", Text(domain))?;
        }
        for (key, path) in [
            ("certificate", &remote.certificate),
            ("key", &remote.key),
            ("roots", &remote.roots),
            ("lists", &remote.lists),
        ] {
            if let Some(path) = path {
                writeln!(f, "{key} = {}", Text(&path.to_string_lossy()))?;
            }
        }
        super::cluster::write(f, &self.cluster)
    }
}

fn quota(f: &mut fmt::Formatter<'_>, name: &str, quota: &Quota) -> fmt::Result {
    writeln!(f, "\n[quota.{name}]\nleases = {}", quota.leases)?;
    writeln!(f, "leased_bytes = {}", Size(quota.leased_bytes))?;
    writeln!(f, "resident_bytes = {}", Size(quota.resident_bytes))?;
    writeln!(f, "shared_bytes = {}", Size(quota.shared_bytes))?;
    writeln!(f, "grants = {}", quota.grants)?;
    writeln!(f, "opens = {}\nmappings = {}", quota.opens, quota.mappings)
}

/// A size that loses nothing: a TOML integer has 63 bits, so it is quoted.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// A TOML basic string.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if c.is_control() => write!(f, "\\U{:08x}", u32::from(c))?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

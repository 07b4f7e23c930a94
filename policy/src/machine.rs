//! How much RAM there is: the one thing about the machine that a configuration is checked against.

use caps::{Code, Error, Result};

use crate::limits::{KIB, POOL_RAM_PERCENT_DEFAULT, POOL_RAM_PERCENT_MAX};

/// The RAM of a machine in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// All of it (`MemTotal`).
    pub total_bytes: u64,
    /// What programs can get without swapping (`MemAvailable`).
    pub available_bytes: u64,
}

impl Machine {
    /// Reads `/proc/meminfo`.
    ///
    /// # Errors
    /// `E_SYSTEM` if the file is not there or not in its form.
    pub fn detect() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/meminfo")
            .map_err(|_| Error::new(Code::System, "/proc/meminfo cannot be read"))?;
        Self::parse(&text)
    }

    /// Reads the text of `/proc/meminfo`.
    ///
    /// # Errors
    /// `E_SYSTEM` if a line that is needed is missing or not in its form.
    pub fn parse(meminfo: &str) -> Result<Self> {
        let bytes = |key: &str| {
            meminfo
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(':')?.trim().strip_suffix(" kB"))
                .and_then(|number| number.parse::<u64>().ok()?.checked_mul(KIB))
                .ok_or(Error::new(Code::System, "/proc/meminfo is not in its form"))
        };
        Ok(Self { total_bytes: bytes("MemTotal")?, available_bytes: bytes("MemAvailable")? })
    }

    /// The largest pool that may be started now, in bytes.
    #[must_use]
    pub const fn pool_bytes_max(&self) -> u64 {
        self.available_bytes / 100 * POOL_RAM_PERCENT_MAX
    }

    /// The pool of a node whose configuration does not say, in bytes.
    #[must_use]
    pub const fn pool_bytes_default(&self) -> u64 {
        self.available_bytes / 100 * POOL_RAM_PERCENT_DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read_strictly() {
        let text = "MemTotal:       24000000 kB\nMemFree:  1 kB\nMemAvailable:   20000000 kB\n";
        let machine = Machine::parse(text).unwrap();
        assert_eq!(machine.total_bytes, 24_000_000 * 1024);
        assert_eq!(machine.pool_bytes_max(), 20_000_000 * 1024 / 100 * 80);
        for bad in [
            "",
            "MemTotal: 1 kB\n",
            "MemTotal: 1\nMemAvailable: 1 kB\n",
            "MemTotal: -1 kB\nMemAvailable: 1 kB\n",
        ] {
            assert_eq!(Machine::parse(bad).unwrap_err().code(), Code::System, "{bad:?}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads /proc")]
    fn this_machine_has_ram() {
        let machine = Machine::detect().unwrap();
        assert!(machine.available_bytes <= machine.total_bytes && machine.pool_bytes_max() > 0);
    }
}

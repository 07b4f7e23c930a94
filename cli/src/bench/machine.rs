//! What the machine says of itself: memory of the kernel and of processes, the file system of a directory.

use std::fs;
use std::path::Path;

use caps::error::{Code, Error, Result};

/// Bytes from `/proc/meminfo`.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// In use and neither cached file, tmpfs page nor a process' own: what the kernel took for itself. Whatever it
    /// took pages for, named in another line or not, is in here.
    pub kernel: i64,
    /// Slab, per-processor and virtually mapped memory (kernel stacks are in it), page tables: the part that is named.
    pub named: i64,
    /// Pages of tmpfs.
    pub shmem: i64,
}

impl Memory {
    /// # Errors
    /// `E_SYSTEM` if the kernel's text is not what it has been for decades.
    pub fn now() -> Result<Self> {
        let text = read("/proc/meminfo")?;
        let bytes = |name: &str| kib(&text, name).map(|kib| kib << 10);
        Ok(Self {
            kernel: bytes("MemTotal:")?
                - bytes("MemFree:")?
                - bytes("Buffers:")?
                - bytes("Cached:")?
                - bytes("AnonPages:")?,
            named: bytes("Slab:")? + bytes("Percpu:")? + bytes("PageTables:")? + bytes("VmallocUsed:")?,
            shmem: bytes("Shmem:")?,
        })
    }
}

/// Bytes of a process' own memory and of the files it has mapped, without tmpfs pages, and of its children.
///
/// # Errors
/// `E_SYSTEM` if there is no such process.
pub fn resident_bytes(pid: u32) -> Result<i64> {
    let children = read(&format!("/proc/{pid}/task/{pid}/children"))?;
    let mut pids: Vec<u32> = children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    pids.push(pid);
    pids.into_iter()
        .map(|pid| {
            let status = read(&format!("/proc/{pid}/status"))?;
            Ok((kib(&status, "RssAnon:")? + kib(&status, "RssFile:")?) << 10)
        })
        .sum()
}

/// Microseconds that the processors have worked for a process and its threads so far, the kernel on its behalf included,
/// and for its children.
///
/// # Errors
/// `E_SYSTEM` if there is no such process.
pub fn processor_us(pid: u32) -> Result<f64> {
    let children = read(&format!("/proc/{pid}/task/{pid}/children"))?;
    let mut pids: Vec<u32> = children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    pids.push(pid);
    let ticks: u64 =
        pids.into_iter().map(|pid| ticks(&read(&format!("/proc/{pid}/stat"))?)).sum::<Result<_>>()?;
    Ok(ticks as f64 * 1e6 / rustix::param::clock_ticks_per_second() as f64)
}

/// Ticks of a line of `/proc/PID/stat`, as a user and as the kernel. The program's name before them may hold anything.
fn ticks(stat: &str) -> Result<u64> {
    let unread = Error::new(Code::System, "the kernel does not say how long a process has worked");
    let (_, words) = stat.rsplit_once(')').ok_or(unread.clone())?;
    // The name is the second word, these are the 14th and the 15th.
    let mut words = words.split_whitespace().skip(11).map_while(|word| word.parse::<u64>().ok());
    words.next().zip(words.next()).map(|(user, kernel)| user + kernel).ok_or(unread)
}

/// The value of a line like `Name:   12 kB`.
fn kib(text: &str, name: &str) -> Result<i64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok())
        .ok_or(Error::new(Code::System, "the kernel does not say how much memory is used"))
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path)
        .map_err(|_| Error::new(Code::System, "cannot read what the kernel says in /proc"))
}

/// How many programs wanted a processor in the last minute, on average, as uptime(1) says it. 0 if the kernel does not
/// say.
pub fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

/// The type of the file system that holds a directory, as mount(8) names it.
pub fn file_system(directory: &Path) -> String {
    let Ok(directory) = directory.canonicalize() else { return "unknown".into() };
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (point, kind) = (words.next()?, words.next()?);
            directory.starts_with(point).then_some((point.len(), kind))
        })
        // The last mount over a path is the one that is seen.
        .max_by_key(|(length, _)| *length)
        .map_or("unknown".into(), |(_, kind)| kind.to_owned())
}

/// How much of the mapping that contains this address is in huge pages, from `/proc/self/smaps`, in bytes.
pub fn huge_bytes(address: usize) -> u64 {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let contains = |line: &str| {
        let (start, rest) = line.split_once('-')?;
        let (end, _) = rest.split_once(' ')?;
        let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
        Some(range.contains(&address))
    };
    let kib: u64 = smaps
        .lines()
        .skip_while(|line| contains(line) != Some(true))
        .skip(1)
        .take_while(|line| contains(line).is_none())
        .filter(|line| {
            ["AnonHugePages:", "ShmemPmdMapped:", "FilePmdMapped:"].iter().any(|name| line.starts_with(name))
        })
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum();
    kib << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_how_much_memory_is_used() {
        let memory = Memory::now().unwrap();
        assert!(memory.kernel > 0 && memory.named > 0);
        assert!(resident_bytes(std::process::id()).unwrap() > 1 << 20);
        assert_eq!(kib("A:  3 kB\nB: 4 kB\n", "B:").unwrap(), 4);
        assert!(kib("A:  3 kB\n", "C:").is_err());
    }

    #[test]
    fn the_work_of_a_process_is_the_14th_and_the_15th_word() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 400 20 13 14";
        assert_eq!(ticks(stat).unwrap(), 420);
        assert!(ticks("7 (a").is_err() && ticks("7 (a) S 1").is_err());
        let before = processor_us(std::process::id()).unwrap();
        let mut sum = 0_u64;
        while processor_us(std::process::id()).unwrap() - before < 20_000.0 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
    }

    #[test]
    fn every_directory_is_on_some_file_system() {
        assert_eq!(file_system(Path::new("/proc/self")), "proc");
        assert_eq!(file_system(Path::new("/no such directory")), "unknown");
    }
}

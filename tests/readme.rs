//! The command blocks of the README and of the documents that tell a story, run against what they print.
//!
//! A block that begins with ```` ```console ```` holds commands (`$ `) and their output. Each is run, the first one as the
//! binary that cargo would run, and compared line by line after everything that differs from run to run was replaced:
//! hexadecimal ids, numbers, times, the width of columns. So a word, a line or a command that is no longer true fails here.
//! Each document has a directory of its own, and starts its node, or its nodes, itself: `leasehold up`, `broker` and `provider`
//! run until the document is over. A block that begins with ```` ```toml FILE ```` is written to that file first.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// One command and the lines that it is said to print.
struct Shown {
    command: String,
    output: Vec<String>,
}

/// The files that a document has its reader write: where, and what.
fn written(document: &str) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in document.lines() {
        match line.strip_prefix("```toml ") {
            Some(file) => {
                inside = true;
                all.push((file.into(), String::new()));
            }
            None if line == "```" => inside = false,
            None if inside => {
                let (_, text) = all.last_mut().expect("a file has begun");
                text.push_str(line);
                text.push('\n');
            }
            None => {}
        }
    }
    all
}

fn shown(document: &str) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    let mut inside = false;
    for line in document.lines() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            _ if inside => match line.strip_prefix("$ ") {
                Some(command) => all.push(Shown { command: command.into(), output: Vec::new() }),
                None => all.last_mut().expect("a block begins with a command").output.push(line.into()),
            },
            _ => {}
        }
    }
    all
}

/// Replaces what differs from run to run.
fn plain(line: &str) -> String {
    let id = |word: &&str| word.len() >= 16 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let ids: Vec<_> =
        line.split(|c: char| !c.is_ascii_alphanumeric()).filter(id).map(str::to_owned).collect();
    let mut text = line.to_owned();
    for id in ids {
        text = text.replace(&id, "ID");
    }
    // The short id of a root key.
    let roots = text.split("root key ").skip(1).filter_map(|rest| rest.get(..8)).map(str::to_owned);
    for root in roots.collect::<Vec<_>>() {
        text = text.replace(&root, "ID");
    }
    let mut out = String::new();
    for c in text.chars() {
        let c = if c.is_ascii_digit() { '0' } else { c };
        if !((c == '0' || c == ' ') && out.ends_with(c)) {
            out.push(c);
        }
    }
    // How long something took, or still lives, may come in another unit.
    for unit in ["0.0ms", "0ms", "0us", "0.0s", "0m0s", "0m", "0s", "0.0 s", "0 us"] {
        out = out.replace(unit, "T");
    }
    out.trim().to_owned()
}

fn same(shown: &[String], printed: &str, command: &str, file: &str) {
    let expected: Vec<_> = shown.iter().map(|line| plain(line)).filter(|line| !line.is_empty()).collect();
    let found: Vec<_> = printed.lines().map(plain).filter(|line| !line.is_empty()).collect();
    assert_eq!(expected, found, "{file} no longer says what `{command}` prints:\n{printed}");
}

/// Ends a node when a test ends, however it ends.
struct Node(std::process::Child);

impl Drop for Node {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

#[test]
fn the_readme_says_what_the_commands_print() {
    play("README.md", 10);
}

#[test]
fn the_story_of_three_parties_is_what_the_commands_print() {
    play("docs/three-parties.md", 10);
}

#[test]
fn the_story_over_the_network_is_what_the_commands_print() {
    play("docs/over-the-network.md", 14);
}

#[test]
fn the_story_of_several_hosts_is_what_the_commands_print() {
    play("docs/several-hosts.md", 20);
}

/// Where documents have their nodes listen, all at 127.0.0.1.
const PORTS: [u16; 4] = [7171, 7172, 7173, 7174];

/// Runs the commands of a document, of which there are so many at least.
fn play(file: &str, commands: usize) {
    let binary = Path::new(env!("CARGO_BIN_EXE_leasehold"));
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let document = fs::read_to_string(root.join(file)).unwrap();
    let blocks = shown(&document);
    assert!(blocks.len() >= commands, "{file} has its commands");
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().join("leasehold");
    let dir = dir.to_str().unwrap();
    // Another test may listen where a document says that its nodes do. All are held until all are chosen.
    let free = PORTS.map(|shown| (shown, std::net::TcpListener::bind("127.0.0.1:0").unwrap()));
    let ports = free.map(|(shown, free)| (shown, free.local_addr().unwrap().port()));
    let local = |text: &str| {
        let text = ports.iter().fold(text.to_owned(), |text, (shown, free)| {
            text.replace(&format!("127.0.0.1:{shown}"), &format!("127.0.0.1:{free}"))
        });
        text.replace("/tmp/leasehold/", &format!("{dir}/"))
            .replace("--dir /tmp/leasehold", &format!("--dir {dir}"))
    };
    for (file, text) in written(&document) {
        let file = std::path::PathBuf::from(local(&file));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, local(&text)).unwrap();
    }
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    // The documents were written as root. Elsewhere the commands must work all the same; what they say differs in places.
    let compare = rustix::process::geteuid().is_root();

    // Ids that a command printed stand in later commands: those that are shown become those that were printed.
    let mut ids: Vec<(String, String)> = Vec::new();
    let mut nodes = Vec::new();
    for Shown { command, output } in &blocks {
        let expected: Vec<_> = output.iter().map(|line| local(line)).collect();
        if command.starts_with("cargo run") {
            let run = Command::new(binary).arg("demo").output().unwrap();
            let printed = String::from_utf8(run.stdout).unwrap();
            assert!(run.status.success(), "{printed}");
            if compare {
                let printed: Vec<_> = printed.lines().map(str::to_owned).collect();
                same(&without_directory(&expected), &without_directory(&printed).join("\n"), command, file);
            }
            continue;
        }
        let mut text = local(command);
        for (old, new) in &ids {
            text = text.replace(old, new);
        }
        if [" up ", "leasehold broker ", "leasehold provider "].iter().any(|start| text.contains(start)) {
            let mut child = Command::new("sh")
                .args(["-c", &format!("exec {text}")])
                .env("PATH", &path)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut reader = BufReader::new(child.stdout.take().unwrap());
            let mut printed = String::new();
            while !printed.contains("Ctrl-C") {
                assert!(reader.read_line(&mut printed).unwrap() > 0, "the node ended: {printed}");
            }
            nodes.push(Node(child));
            if compare {
                same(&expected, &printed, command, file);
            }
            continue;
        }
        let run = Command::new("sh")
            .args(["-c", &text])
            .env("PATH", &path)
            .env("LEASEHOLD_DIR", dir)
            .env_remove("LEASEHOLD_ID")
            .output()
            .unwrap();
        let printed = String::from_utf8(run.stdout).unwrap() + &String::from_utf8(run.stderr).unwrap();
        if compare {
            same(&expected, &printed, command, file);
        }
        remember(&mut ids, output, &printed);
    }
    assert!(!nodes.is_empty(), "{file} starts a node");
    // The last that came goes first: a broker stays until its providers have taken leave.
    while nodes.pop().is_some() {}
}

/// The demo's directory is named after its process, and stands where the machine keeps temporary files.
fn without_directory(lines: &[String]) -> Vec<String> {
    let cut = |line: &String| match (line.find("is up in "), line.find(": tier")) {
        (Some(from), Some(to)) => format!("{}DIR{}", &line[..from + 9], &line[to..]),
        _ => line.clone(),
    };
    lines.iter().map(cut).collect()
}

/// Pairs the ids that a document shows with those that were printed, line by line.
fn remember(ids: &mut Vec<(String, String)>, shown: &[String], printed: &str) {
    let found = |line: &str| -> Vec<String> {
        line.split(|c: char| !c.is_ascii_hexdigit())
            .filter(|word| word.len() == 32)
            .map(str::to_owned)
            .collect()
    };
    for (old, new) in shown.iter().zip(printed.lines()) {
        for (old, new) in found(old).into_iter().zip(found(new)) {
            if !ids.iter().any(|(known, _)| *known == old) {
                ids.push((old, new));
            }
        }
    }
}

#[test]
fn what_differs_from_run_to_run_is_left_out_of_the_comparison() {
    assert_eq!(plain("lease   0abcf642cd68739dc71bcd1976e4c031"), "lease ID");
    assert_eq!(plain("dead after   110 us"), plain("dead after 7 us"));
    assert_eq!(plain("expires in  9m59s"), plain("expires in  10m"));
    assert_eq!(plain("by root key d21736f0)"), plain("by root key f5f88270)"));
    for heard in ["7us", "979ms", "1.5s", "1s"] {
        assert_eq!(plain(&format!("{heard} ago")), plain("267.7ms ago"));
    }
    assert_ne!(plain("state live"), plain("state ended"));
}

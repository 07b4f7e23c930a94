//! The command line with a plain list of nodes (`--nodes`): where leases go, who is asked about them, and what is said of a node
//! that is not there.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A user with an authority and a list of nodes.
struct Scene {
    dir: TempDir,
    nodes: Vec<Node>,
}

/// A node with a directory of its own. Dropping it kills it.
struct Node {
    dir: TempDir,
    name: String,
    address: String,
    child: Child,
}

fn run(dir: &Path, args: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_leasehold"))
        .args(args)
        .env_clear()
        .env("LEASEHOLD_DIR", dir)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _ = input.write_all(stdin); // a command that fails early reads no further
        });
        child.wait_with_output().unwrap()
    })
}

#[track_caller]
fn done(output: Output) -> Vec<u8> {
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

fn code(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let code = text.strip_prefix("error[").and_then(|rest| rest.split_once(']'));
    code.unwrap_or_else(|| panic!("no error: {output:?}")).0.to_owned()
}

impl Node {
    /// Starts a node with a certificate of the user's authority, where alice is registered.
    fn start(user: &Path, name: &str, config: &str) -> Self {
        done(run(user, &["pki", "issue", name, "--role", "provider"], b""));
        let dir = tempfile::Builder::new().prefix("leasehold-e2e-").tempdir().unwrap();
        let pki = user.join("pki");
        let file = |file: &str| pki.join(file).display().to_string();
        let remote = format!(
            "[canary]\nevery = \"off\"\n[remote]\ndomain = \"mem.example\"\ncertificate = \"{}\"\nkey = \"{}\"\n\
             roots = \"{}\"\nlists = \"{}\"\n",
            file(&format!("{name}.pem")),
            file(&format!("{name}.key")),
            file("roots.pem"),
            file("lists.pem"),
        );
        fs::write(dir.path().join("leasehold.toml"), format!("{config}\n{remote}")).unwrap();
        let (child, address) = up(dir.path());
        fs::copy(user.join("ids/alice.key"), dir.path().join("ids/alice.key")).unwrap();
        fs::copy(user.join("ids/bob.key"), dir.path().join("ids/bob.key")).unwrap();
        for who in ["alice", "bob"] {
            done(run(dir.path(), &["id", "register", who], b""));
        }
        Self { dir, name: name.to_owned(), address, child }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn up(dir: &Path) -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_leasehold"))
        .args(["up", "--json", "--pool", "64MiB", "--listen", "127.0.0.1:0"])
        .env_clear()
        .env("LEASEHOLD_DIR", dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    said.read_line(&mut line).unwrap();
    // To the end, so that it never writes in vain.
    std::thread::spawn(move || said.lines().map_while(Result::ok).for_each(drop));
    let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no node: {line}"));
    (child, ready["ready"]["address"].as_str().unwrap().to_owned())
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

impl Scene {
    fn new(config: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("leasehold-e2e-").tempdir().unwrap();
        let user = dir.path();
        done(run(user, &["pki", "init", "--domain", "mem.example"], b""));
        for who in ["alice", "bob"] {
            done(run(user, &["id", "new", who], b""));
            done(run(user, &["pki", "issue", who], b""));
        }
        if config.contains("root") {
            done(run(user, &["id", "new", "root"], b""));
        }
        let config = config.replace("ROOT", &user.join("ids/root.key").display().to_string());
        let nodes: Vec<_> = ["east", "west"].iter().map(|name| Node::start(user, name, &config)).collect();
        let lines = nodes.iter().map(|node| format!("{} {}\n", node.address, node.name));
        fs::write(user.join("nodes"), format!("# both\n{}", lines.collect::<String>())).unwrap();
        Self { dir, nodes }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn list(&self) -> PathBuf {
        self.path().join("nodes")
    }

    fn run(&self, args: &[&str], stdin: &[u8]) -> Output {
        let list = self.list();
        run(self.path(), &[args, &["--nodes", list.to_str().unwrap()]].concat(), stdin)
    }

    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[args, &["--json"]].concat(), b"");
        assert!(output.status.success(), "{args:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    #[track_caller]
    fn refused(&self, args: &[&str], expected: &str) -> String {
        let output = self.run(args, b"");
        assert_eq!(code(&output), expected, "{args:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    #[track_caller]
    fn create(&self, name: &str, size: &str) -> Value {
        let create = ["lease", "create", "--as", "alice", "--size", size, "--ttl", "10m", "--name", name];
        self.json(&create)["lease"].clone()
    }

    /// The node of the list that has a lease.
    fn at(&self, lease: &Value) -> usize {
        let is_there = |node: &&Node| {
            let args = ["lease", "list", "--as", "alice", "--json"];
            let list: Value = serde_json::from_slice(&done(run(node.dir.path(), &args, b""))).unwrap();
            list["leases"].as_array().unwrap().iter().any(|row| row["id"] == lease["id"])
        };
        let found: Vec<_> = (0..).zip(&self.nodes).filter(|(_, node)| is_there(node)).collect();
        assert_eq!(found.len(), 1, "a lease is at one node");
        found[0].0
    }
}

#[test]
fn leases_go_where_most_is_free_and_every_command_finds_them() {
    let scene = Scene::new("");
    let leases = ["one", "two", "three"].map(|name| (name, scene.create(name, "8MiB")));
    let at = leases.each_ref().map(|(_, lease)| scene.at(lease));
    assert_ne!(at[0], at[1], "the second goes where the first took nothing");
    for (name, lease) in &leases {
        let id = lease["id"].as_str().unwrap();
        done(scene.run(&["put", name, "--as", "alice"], name.as_bytes()));
        let length = name.len().to_string();
        for which in [*name, id] {
            let got = done(scene.run(&["get", which, "--as", "alice", "--len", &length], b""));
            assert_eq!(got, name.as_bytes());
        }
        assert_eq!(scene.json(&["lease", "show", name, "--as", "alice"])["lease"]["id"], id);
        scene.json(&["lease", "renew", id, "--as", "alice", "--ttl", "5m"]);
    }
    let listed = scene.json(&["lease", "list", "--as", "alice"]);
    assert_eq!(listed["leases"].as_array().unwrap().len(), 3);
    assert!(listed.get("not_asked").is_none(), "{listed}");

    // Without the token here the nodes are asked.
    fs::remove_dir_all(scene.path().join("tokens/alice")).unwrap();
    for (name, lease) in &leases {
        assert_eq!(scene.json(&["lease", "show", name, "--as", "alice"])["lease"]["id"], lease["id"]);
        scene.json(&["lease", "release", name, "--as", "alice"]);
    }
    scene.refused(&["lease", "show", "one-more", "--as", "alice"], "E_LEASE_UNKNOWN");
    assert_eq!(scene.json(&["lease", "list", "--as", "alice"])["leases"], json!([]));
}

#[test]
fn a_share_is_found_at_the_node_of_its_lease() {
    let scene = Scene::new("");
    for name in ["one", "two"] {
        scene.create(name, "64KiB");
        done(scene.run(&["put", name, "--as", "alice"], name.as_bytes()));
        let offer = ["share", "offer", name, "--as", "alice", "--to", "bob", "--rights", "r", "--ttl", "5m"];
        let grant = scene.json(&offer)["share"]["id"].as_str().unwrap().to_owned();
        scene.json(&["share", "accept", &grant, "--as", "bob"]);
        let get = ["get", &grant, "--as", "bob", "--len", "3"];
        assert_eq!(done(scene.run(&get, b"")), name.as_bytes());
        let shares = scene.json(&["share", "list", "--as", "bob"]);
        assert!(shares["shares"].as_array().unwrap().iter().any(|row| row["id"] == grant[..]), "{shares}");
        scene.json(&["revoke", "grant", &grant, "--as", "alice"]);
        scene.refused(&get, "E_TOKEN_REVOKED");
    }
}

#[test]
fn a_token_is_shown_to_the_node_of_its_lease_and_to_nobody_else() {
    let scene = Scene::new("");
    let there = scene.at(&scene.create("one", "64KiB"));
    let entries = fs::read_dir(scene.path().join("tokens/alice")).unwrap().map(|entry| entry.unwrap().path());
    let kept: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "node")).collect();
    let [kept] = &kept[..] else { panic!("{kept:?}") };
    let (node, other) = (&scene.nodes[there], &scene.nodes[1 - there]);
    assert_eq!(fs::read_to_string(kept).unwrap(), format!("{} {}\n", node.name, node.address));
    let get = ["get", "one", "--as", "alice", "--len", "1"];
    done(scene.run(&get, b""));
    // Wherever the life is that the token names: one of another name is not the one that leased.
    fs::write(kept, format!("{} {}\n", other.name, node.address)).unwrap();
    scene.refused(&get, "E_PEER_IDENTITY");
    // At another address the node is found by its name, and by its life.
    fs::write(kept, format!("{} 127.0.0.1:1\n", node.name)).unwrap();
    done(scene.run(&get, b""));
    // What nobody kept is found by asking all, and kept.
    fs::remove_file(kept).unwrap();
    done(scene.run(&get, b""));
    assert_eq!(fs::read_to_string(kept).unwrap(), format!("{} {}\n", node.name, node.address));
}

#[test]
fn a_node_that_is_gone_takes_its_own_leases_along_and_nothing_else() {
    let mut scene = Scene::new("");
    let leases = ["one", "two"].map(|name| (name, scene.at(&scene.create(name, "8MiB"))));
    let [(lost, gone), (kept, there)] = leases;
    assert_ne!(gone, there);
    scene.nodes[gone].kill();
    let get = |name| ["get", name, "--as", "alice", "--len", "1"];
    scene.refused(&get(lost), "E_UNREACHABLE");
    done(scene.run(&get(kept), b""));
    // Leased where somebody is.
    for name in ["three", "four"] {
        scene.create(name, "64KiB");
        done(scene.run(&get(name), b""));
    }
    let listed = scene.json(&["lease", "list", "--as", "alice"]);
    assert_eq!(listed["leases"].as_array().unwrap().len(), 3);
    assert_eq!(listed["not_asked"][0]["code"], "E_UNREACHABLE");
    assert!(
        listed["not_asked"][0]["reason"].as_str().unwrap().starts_with(&scene.nodes[gone].address),
        "{listed}"
    );
    let status = scene.json(&["status", "--as", "alice"]);
    assert_eq!(status["nodes"][gone]["code"], "E_UNREACHABLE");
    assert_eq!(status["nodes"][there]["status"]["leases"], 3);
    // Nobody can say that a lease of its is unknown.
    fs::remove_dir_all(scene.path().join("tokens/alice")).unwrap();
    scene.refused(&["lease", "show", lost, "--as", "alice"], "E_UNREACHABLE");
    scene.nodes[there].kill();
    let create = ["lease", "create", "--as", "alice", "--size", "64KiB", "--ttl", "10m"];
    scene.refused(&create, "E_UNREACHABLE");
    scene.refused(&["lease", "list", "--as", "alice"], "E_UNREACHABLE");
}

#[test]
fn what_is_no_list_is_told_with_its_lines_and_what_needs_one_node_says_so() {
    let scene = Scene::new("");
    let said = scene.refused(&["quota", "list", "--as", "alice"], "E_WRONG_NODE");
    assert!(said.contains("--broker"), "{said}");
    let good = fs::read_to_string(scene.list()).unwrap();
    fs::write(scene.list(), format!("{good}nowhere\n{}\n", scene.nodes[0].address)).unwrap();
    let output = scene.run(&["lease", "list", "--as", "alice"], b"");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for at in ["nodes:4:1: ", "nodes:5:1: "] {
        assert!(said.contains(at), "{said}");
    }
    fs::remove_file(scene.list()).unwrap();
    scene.refused(&["lease", "list", "--as", "alice"], "E_CONFIG_IO");
    let both = scene.run(&["lease", "list", "--broker", &scene.nodes[0].address], b"");
    assert_eq!((both.status.code(), &code(&both)[..]), (Some(2), "E_USAGE"));
    // Names count: who answers at the second address is not whom the list says.
    let [east, west] = &scene.nodes[..] else { panic!() };
    fs::write(scene.list(), format!("{} west\n{} east\n", east.address, west.address)).unwrap();
    scene.refused(&["lease", "list", "--as", "alice"], "E_PEER_IDENTITY");
}

#[test]
fn nodes_that_were_given_the_same_root_key_mint_by_it_and_do_not_turn_it() {
    let scene = Scene::new("[node]\nroot = \"ROOT\"");
    let published: Vec<_> = scene
        .nodes
        .iter()
        .map(|node| fs::read_to_string(node.dir.path().join("audit/root")).unwrap())
        .collect();
    assert_eq!(published[0], published[1]);
    assert_eq!(published[0].lines().count(), 1);
    let leases = ["one", "two"].map(|name| (name, scene.create(name, "8MiB")));
    assert_ne!(scene.at(&leases[0].1), scene.at(&leases[1].1));
    // Whoever knows the one key verifies what either minted.
    for (name, _) in &leases {
        let verify = ["token", "verify", name, "--as", "alice", "--root", published[0].trim()];
        assert_eq!(scene.json(&verify)["verified"], true);
    }
    for node in &scene.nodes {
        let refused = run(node.dir.path(), &["root", "rotate", "--as", "admin"], b"");
        assert_eq!(code(&refused), "E_DENIED");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("[node] root"), "{refused:?}");
        let roots = run(node.dir.path(), &["root", "list", "--as", "admin", "--json"], b"");
        let roots: Value = serde_json::from_slice(&done(roots)).unwrap();
        assert_eq!(roots["roots"].as_array().unwrap().len(), 1, "{roots}");
        // It is nowhere in the node's own directory.
        let keys = fs::read_to_string(node.dir.path().join("keys/roots")).unwrap();
        assert!(!keys.contains(published[0].trim()), "{keys}");
    }
    // A key that others may read is none.
    let root = scene.path().join("ids/root.key");
    fs::set_permissions(&root, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    let mut scene = scene;
    scene.nodes[0].kill();
    let again = run(scene.nodes[0].dir.path(), &["up", "--pool", "64MiB"], b"");
    assert_eq!(code(&again), "E_CONFIG_PERMS");
}

//! Rows D3 and D9: the node's own files, changed while it runs and before it starts.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use caps::error::Code;

use super::bed::Bed;
use super::common::shell::Shell;
use super::common::tls::DOMAIN;
use super::common::tls::Tls;
use super::common::{log, until};
use super::forge::{Authority, Flaws, uri};

/// Puts another file in a file's place, at once.
fn replace(path: &Path, bytes: &[u8]) {
    let fresh = path.with_extension("fresh");
    fs::write(&fresh, bytes).unwrap();
    fs::set_permissions(&fresh, Permissions::from_mode(0o600)).unwrap();
    fs::rename(fresh, path).unwrap();
}

/// The certificate that the node shows now.
fn shown(bed: &Bed) -> Vec<u8> {
    let mut tls: Tls = bed.session();
    tls.tls().peer_certificates().unwrap()[0].to_vec()
}

fn bad_loads(bed: &Bed) -> usize {
    let entries = log::read(&bed.node.audit()).provider;
    entries.iter().filter(|entry| entry["event"] == "config.load" && entry["code"] == "E_CONFIG_TLS").count()
}

#[test]
fn d9_files_that_change_while_the_node_runs() {
    let mut bed = Bed::new("");
    let pki = bed.node.path().join("pki");
    let (chain, key) = (pki.join("node-1.pem"), pki.join("node-1.key"));
    let (lists, roots) = (pki.join("lists.pem"), pki.join("roots.pem"));
    let before = shown(&bed);
    let (mut open, handle) = bed.opened();
    let ours = Authority::of(bed.node.path());
    let node = |name: &str| Flaws {
        names: vec![uri(&format!("spiffe://{DOMAIN}/provider/{name}"))],
        usage: vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth],
        ..Flaws::default()
    };
    let over = ours.issue(Flaws { is_over: true, ..node("node-1") });
    let (another, strangers) = (ours.issue(node("node-2")), Authority::other().issue(node("node-1")));
    let read = |path: &Path| fs::read(path).unwrap();
    let was = [&chain, &key, &lists, &roots].map(|path| (path.clone(), read(path)));
    let half = read(&chain)[..200].to_vec();
    let bad: &[(&str, &dyn Fn())] = &[
        ("half a certificate", &|| replace(&chain, &half)),
        ("nothing", &|| replace(&chain, b"")),
        ("another key", &|| replace(&key, over.key.serialize_pem().as_bytes())),
        ("no file", &|| fs::remove_file(&chain).unwrap()),
        ("a key that others may read", &|| fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap()),
        ("a certificate whose time is over", &|| {
            replace(&chain, over.pem.as_bytes());
            replace(&key, over.key.serialize_pem().as_bytes());
        }),
        ("somebody else's certificate", &|| {
            replace(&chain, another.pem.as_bytes());
            replace(&key, another.key.serialize_pem().as_bytes());
        }),
        ("another authority's certificate", &|| {
            replace(&chain, strangers.pem.as_bytes());
            replace(&key, strangers.key.serialize_pem().as_bytes());
        }),
        ("no list", &|| fs::remove_file(&lists).unwrap()),
        ("a damaged list", &|| replace(&lists, b"-----BEGIN X509 CRL-----\nMIIB\n-----END X509 CRL-----\n")),
        ("a list whose time is over", &|| replace(&lists, ours.list(&[], false).as_bytes())),
        ("another authority's list", &|| replace(&lists, Authority::other().list(&[], true).as_bytes())),
        ("no roots", &|| replace(&roots, b"")),
    ];
    for (what, spoil) in bad {
        let loads = bad_loads(&bed);
        spoil();
        until(&format!("{what} is on record"), || (bad_loads(&bed) > loads).then_some(()));
        assert_eq!(shown(&bed), before, "{what}: the one before is still shown");
        assert_eq!(open.read_at(handle, 0, 1).map(|bytes| bytes.len()), Ok(1), "{what}: who was in stays in");
        bed.unharmed(what);
        // All as it was. The same mistake twice in a row would be said once: each is another than the one before.
        was.iter().for_each(|(path, bytes)| replace(path, bytes));
    }
    // A good one is shown to who comes from then on; who was in stays in.
    Shell::new(bed.node.path()).bytes(&["pki", "rotate", "node-1"]);
    until("the new certificate is shown", || (shown(&bed) != before).then_some(()));
    assert_eq!(open.read_at(handle, 0, 1).map(|bytes| bytes.len()), Ok(1));
    drop(open);
    bed.finish("D9");
}

#[test]
fn d3_a_node_does_not_start_without_a_list_that_is_in_time() {
    let mut bed = Bed::new("");
    let lists = bed.node.path().join("pki/lists.pem");
    let ours = Authority::of(bed.node.path());
    let serial = Flaws { serial: 4_711, ..Flaws::default() };
    let shown = ours.issue(serial);
    let connect = |bed: &Bed| {
        let mut tls = super::forge::connect(bed.node.address(), super::forge::careless(Some(&shown)));
        tls.begin(&bed.mallory.key).map_err(|error| error.code())
    };
    assert_eq!(connect(&bed), Ok(()));
    // On the list, it is refused, and so it is on no list that counts.
    let good = fs::read(&lists).unwrap();
    replace(&lists, ours.list(&[4_711], true).as_bytes());
    until("who is on the list is refused", || (connect(&bed) == Err(Code::Unreachable)).then_some(()));
    bed.unharmed("D3");
    replace(&lists, &good);
    until("the list is read again", || connect(&bed).is_ok().then_some(()));
    bed.leave();
    bed.node.stop();
    let shell = Shell::new(bed.node.path());
    for bytes in [None, Some(Vec::new()), Some(b"rubbish".to_vec()), Some(ours.list(&[], false).into_bytes())]
    {
        match &bytes {
            Some(bytes) => replace(&lists, bytes),
            None => fs::remove_file(&lists).unwrap(),
        }
        shell.fails(&["up", "--pool", "64MiB"], 1, "E_CONFIG_TLS");
    }
    replace(&lists, &good);
    bed.node.restart();
    assert_eq!(bed.node.address().ip(), std::net::Ipv4Addr::LOCALHOST);
    bed.node.stop();
    log::verify(&bed.node.audit());
}

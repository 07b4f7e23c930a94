//! One suite for every device: what [`audit::store`] promises.

mod common;

use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::Path;

use audit::store::disk::{Disk, ReadDir};
use audit::store::memory::{Memory, Survivors};
use audit::store::{Files, Listed, Store};
use caps::error::Code;

/// The promises that do not need a crash to be seen.
fn conforms(store: &dyn Store) {
    let file = |path: &str, bytes: &[u8]| (path.to_owned(), bytes.to_vec());
    assert_eq!(store.read("a/b", 10).unwrap(), None);
    assert!(store.list("a").unwrap().is_empty());

    store.put(&[file("a/b", b"one"), file("c", b""), file("a/d/e.p/7", b"three")]).unwrap();
    assert_eq!(store.read("a/b", 3).unwrap().as_deref(), Some(&b"one"[..]));
    assert_eq!(store.read("a/d/e.p/7", 10).unwrap().as_deref(), Some(&b"three"[..]));
    assert!(store.read("a/b", 2).is_err(), "larger than it may be");
    store.put(&[file("a/b", b"two")]).unwrap();
    assert_eq!(store.read("a/b", 10).unwrap().as_deref(), Some(&b"two"[..]), "replaced");
    let listed = |name: &str, is_dir| Listed { name: name.into(), is_dir };
    assert_eq!(store.list("a").unwrap(), [listed("b", false), listed("d", true)]);
    store.remove("a/b").unwrap();
    assert_eq!(store.read("a/b", 10).unwrap(), None);
    store.put(&[]).unwrap();

    assert!(store.journal_append(0, b"x").is_err(), "no journal yet");
    store.journal_replace(b"abc").unwrap();
    store.journal_append(3, b"def").unwrap();
    assert!(store.journal_append(3, b"ghi").is_err(), "the end is elsewhere");
    assert!(store.journal_append(7, b"ghi").is_err(), "the end is elsewhere");
    store.journal_sync(6).unwrap();
    assert!(store.journal_sync(5).is_err(), "another length");
    assert_eq!(store.read("journal", 10).unwrap().as_deref(), Some(&b"abcdef"[..]));
    store.journal_replace(b"ef").unwrap();
    store.journal_append(2, b"gh").unwrap();
    store.journal_sync(4).unwrap();
    assert_eq!(store.read("journal", 10).unwrap().as_deref(), Some(&b"efgh"[..]));

    assert!(store.mark(&[1; 48]).is_err(), "the mark is put in place first");
    store.put(&[file("acked", &[1; 48])]).unwrap();
    store.mark(&[2; 48]).unwrap();
    assert_eq!(store.read("acked", 48).unwrap().as_deref(), Some(&[2; 48][..]));
}

#[test]
fn memory_conforms() {
    conforms(&Memory::new());
}

#[test]
fn disk_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conforms(&Disk::create(&dir.path().join("log")).unwrap());
}

#[test]
fn memory_loses_what_was_not_made_durable() {
    let store = Memory::new();
    store.journal_replace(b"abc").unwrap();
    store.journal_append(3, b"def").unwrap();
    store.journal_sync(6).unwrap();
    store.journal_append(6, b"ghi").unwrap();
    store.crash(Survivors::None);
    let store = store.reopen();
    assert_eq!(store.read("journal", 10).unwrap().as_deref(), Some(&b"abcdef"[..]));
    // A sync that failed is not made good by one that succeeds.
    store.journal_append(6, b"ghi").unwrap();
    store.fail(0, audit::store::memory::Fault::NotStored);
    assert!(store.journal_sync(9).is_err());
    store.journal_sync(9).unwrap();
    store.crash(Survivors::None);
    assert_eq!(store.read("journal", 10).unwrap().as_deref(), Some(&b"abcdef"[..]));
    assert!(store.journal_append(6, b"x").is_err(), "what was opened before the crash writes no more");
}

fn disk_log(dir: &Path) -> audit::Log {
    audit::Log::open(dir, common::origin(), common::key()).unwrap()
}

#[test]
fn one_writer_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let log = disk_log(dir.path());
    let second = audit::Log::open(dir.path(), common::origin(), common::key());
    assert_eq!(second.err().unwrap().code(), Code::Locked);
    drop(log);
    disk_log(dir.path());
}

#[test]
fn a_directory_that_goes_away_or_changes_is_noticed_at_the_next_sync() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 6] = [
        ("removed", |dir| std::fs::remove_dir_all(dir).unwrap()),
        ("renamed", |dir| std::fs::rename(dir, dir.with_extension("old")).unwrap()),
        ("replaced", |dir| {
            std::fs::rename(dir, dir.with_extension("old")).unwrap();
            std::fs::DirBuilder::new().mode(0o700).create(dir).unwrap();
        }),
        ("read-only", |dir| std::fs::set_permissions(dir, PermissionsExt::from_mode(0o500)).unwrap()),
        ("journal replaced", |dir| {
            std::fs::remove_file(dir.join("journal")).unwrap();
            std::fs::write(dir.join("journal"), b"").unwrap();
        }),
        ("journal shortened", |dir| {
            let file = std::fs::File::options().write(true).open(dir.join("journal")).unwrap();
            file.set_len(10).unwrap();
        }),
    ];
    for (name, change) in changes {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("log");
        let mut log = disk_log(&dir);
        common::grow(&mut log, 3).unwrap();
        change(&dir);
        let error = common::grow(&mut log, 1).unwrap_err();
        assert_eq!(error.code(), Code::AuditUnavailable, "{name}");
        assert_eq!(log.durable(), 3, "{name}");
        assert!(common::grow(&mut log, 1).is_err(), "{name}: lost stays lost");
    }
}

#[test]
fn a_read_only_directory_is_not_opened_even_by_the_superuser() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o500)).unwrap();
    assert_eq!(Disk::open(dir.path()).unwrap_err().code(), Code::ConfigIo);
}

#[test]
fn readers_follow_no_link_and_wait_on_no_fifo() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("real"), b"x").unwrap();
    symlink("real", dir.path().join("link")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path().join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let files = ReadDir::open(dir.path()).unwrap();
    assert!(files.read("real", 10).unwrap().is_some());
    for bad in ["link", "fifo", "."] {
        assert!(files.read(bad, 10).is_err(), "{bad}");
    }
    symlink(dir.path(), dir.path().join("dir")).unwrap();
    assert!(ReadDir::open(&dir.path().join("dir")).is_err());
    assert!(ReadDir::open(&dir.path().join("none")).is_err());
}

#[test]
fn a_crash_leaves_files_in_tmp_which_the_next_opening_removes() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("tmp")).unwrap();
    std::fs::write(dir.path().join("tmp/0"), b"half").unwrap();
    let mut log = disk_log(dir.path());
    common::grow(&mut log, 300).unwrap();
    log.publish().unwrap();
    drop(log);
    assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    let report = audit::verify::verify_dir(dir.path(), &common::vkeys()).unwrap();
    assert_eq!(report.damage(), None);
}

#[test]
fn the_same_entries_make_the_same_files_on_every_device() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Memory::new();
    let in_memory = common::open(&memory).unwrap();
    for mut log in [disk_log(dir.path()), in_memory] {
        for n in [1, 255, 1, 300] {
            common::grow(&mut log, n).unwrap();
            log.publish().unwrap();
        }
        common::grow(&mut log, 7).unwrap();
    }
    let files = ReadDir::open(dir.path()).unwrap();
    for (path, bytes) in memory.contents() {
        assert_eq!(files.read(&path, 1 << 24).unwrap().as_ref(), Some(&bytes), "{path}");
    }
}

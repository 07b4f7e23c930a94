//! A token handed over through the node: fetched once, by whom it is for, and whoever was in between is seen.

#[path = "common/mod.rs"]
mod common;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use caps::token::{Narrow, attenuate, delegate, forge};
use common::shell::Shell;
use common::world::Person;
use common::{MINUTE, SMALL, World, refused, until};
use libmem::{Code, LeaseOptions, Leased, Lifetime, Reason, Rights, SigningKey, Target, Token, WrapId, aio};
use policy::limits::{WRAP_TTL_MS_MAX, WRAPS_PER_WRAPPER_MAX};
use serde_json::Value;

/// A lease of `who` whose token may be delegated once.
fn lease(who: &Person) -> Leased {
    let options = LeaseOptions::new(SMALL, MINUTE).lifetime(Lifetime::Detached).max_hops(1);
    who.client.lease(options).unwrap()
}

/// Makes `from`'s token `to`'s, offline.
fn pass(token: &Token, from: &Person, to: &SigningKey) -> Token {
    delegate(token, &from.key, to.public(), &Narrow::default()).unwrap()
}

/// The provider's entries about a lease with this cause.
fn because<'a>(entries: &'a [Value], leased: &Leased, cause: &str) -> Vec<&'a Value> {
    let id = leased.lease.id.to_string();
    entries.iter().filter(|entry| entry["cause"] == cause && entry["lease"] == id[..]).collect()
}

#[test]
fn whom_it_is_for_fetches_it_once_and_uses_it() {
    let world = World::new();
    let (alice, bob) = (world.person(), world.person());
    let leased = lease(&alice);
    let bobs = pass(&leased.token, &alice, &bob.key);

    let wrapped = alice.client.wrap(&bobs, Some(bob.key.public()), 5 * MINUTE).unwrap();
    assert!(wrapped.expires_in <= MINUTE, "no longer than the token: {:?}", wrapped.expires_in);
    let row = alice.client.wrap_show(wrapped.id).unwrap();
    assert_eq!((row.by, row.to, row.lease), (alice.key.public(), Some(bob.key.public()), leased.lease.id));
    assert_eq!((row.fetched, row.refused), (None, 0));

    let fetched = bob.client.unwrap(wrapped.id).unwrap();
    assert!(fetched == bobs, "the very token");
    let region = bob.client.open_mapped(&fetched, Rights::READ_WRITE).unwrap();
    region.store_u64(0, 7).unwrap();
    drop(region);

    // Not even the one whom it was for gets it again.
    let again = bob.client.unwrap(wrapped.id).unwrap_err();
    assert_eq!(again.code(), Code::Denied);
    assert!(again.detail().contains(&bob.key.public().to_string()), "{again}");
    for client in [&alice.client, &world.admin] {
        let row = client.wrap_show(wrapped.id).unwrap();
        assert_eq!((row.fetched.unwrap().by, row.refused), (bob.key.public(), 1));
    }
    // Whom it is for learns nothing by that request, no more than a stranger.
    refused(bob.client.wrap_show(wrapped.id), Code::GrantUnknown);

    alice.client.release(leased.lease.id).unwrap();
    drop((alice, bob));
    let log = world.finish();
    let put = because(&log.provider, &leased, "wrap");
    let got = because(&log.provider, &leased, "unwrap");
    let again = because(&log.provider, &leased, "unwrap_again");
    assert_eq!((put.len(), got.len(), again.len()), (1, 1, 1));
    assert_eq!((&put[0]["event"], &put[0]["outcome"]), (&"lease.attenuate".into(), &"ok".into()));
    assert_eq!((&again[0]["event"], &again[0]["outcome"]), (&"lease.deny".into(), &"deny".into()));
    assert_eq!(again[0]["receiver"], got[0]["subject"]);
    for entry in [&got, &again] {
        assert_eq!(entry[0]["token_hmac"], put[0]["token_hmac"], "one token is told from another");
    }
    let text = serde_json::to_string(&log.provider).unwrap();
    assert!(!text.contains(&wrapped.id.to_string()), "who reads the log could have fetched it");
}

#[test]
fn a_thief_on_the_way_is_seen_by_everybody_whom_it_concerns() {
    let world = World::new();
    let (alice, bob, mallory) = (world.person(), world.person(), world.person());
    let leased = lease(&alice);
    let bobs = pass(&leased.token, &alice, &bob.key);
    let wrapped = alice.client.wrap(&bobs, None, MINUTE).unwrap();

    // She read the id on its way. The token is bound to bob's key, so it is of no use to her.
    let stolen = mallory.client.unwrap(wrapped.id).unwrap();
    refused(mallory.client.open_mapped(&stolen, Rights::READ), Code::TokenBound);
    let refusal = bob.client.unwrap(wrapped.id).unwrap_err();
    assert_eq!(refusal.code(), Code::Denied);
    assert!(refusal.detail().contains(&mallory.key.public().to_string()), "{refusal}");
    let fetched = alice.client.wrap_show(wrapped.id).unwrap().fetched.unwrap();
    assert_eq!(fetched.by, mallory.key.public());

    let (first, second) = (mallory.key.public().to_string(), bob.key.public().to_string());
    alice.client.release(leased.lease.id).unwrap();
    drop((alice, bob, mallory));
    let log = world.finish();
    let again = because(&log.provider, &leased, "unwrap_again");
    assert_eq!(again.len(), 1);
    assert_eq!((&again[0]["subject"], &again[0]["receiver"]), (&second.into(), &first.clone().into()));
    let got = because(&log.provider, &leased, "unwrap");
    assert_eq!(got[0]["subject"], first);
    // When she did, in the refusal, is just before it is on record in the entry of her own.
    assert!(again[0]["first_time"].as_str().unwrap() <= got[0]["time"].as_str().unwrap());
    assert!(
        again[0]["first_time"].as_str().unwrap()
            >= because(&log.provider, &leased, "wrap")[0]["time"].as_str().unwrap()
    );
}

#[test]
fn somebody_else_is_refused_as_for_an_id_that_never_was_and_takes_nothing() {
    let world = World::new();
    let (alice, bob, mallory) = (world.person(), world.person(), world.person());
    let leased = lease(&alice);
    let bobs = pass(&leased.token, &alice, &bob.key);
    let wrapped = alice.client.wrap(&bobs, Some(bob.key.public()), MINUTE).unwrap();

    let foreign = mallory.client.unwrap(wrapped.id).unwrap_err();
    let unknown = mallory.client.unwrap(WrapId::random()).unwrap_err();
    assert_eq!(foreign.code(), Code::GrantUnknown);
    assert_eq!(foreign, unknown, "nothing tells them apart");
    assert_eq!(mallory.client.wrap_show(wrapped.id).unwrap_err(), unknown);
    // Nor does the one who put it in get it back.
    refused(alice.client.unwrap(wrapped.id), Code::GrantUnknown);
    assert!(bob.client.unwrap(wrapped.id).unwrap() == bobs);
    // She learns neither that it was fetched.
    assert_eq!(mallory.client.unwrap(wrapped.id).unwrap_err(), unknown);
    assert_eq!(alice.client.wrap_show(wrapped.id).unwrap().refused, 3);

    let who = mallory.key.public().to_string();
    alice.client.release(leased.lease.id).unwrap();
    drop((alice, bob, mallory));
    let log = world.finish();
    let foreign = because(&log.provider, &leased, "unwrap_foreign");
    assert_eq!(foreign.iter().filter(|entry| entry["subject"] == who).count(), 2);
    assert_eq!(log.provider.iter().filter(|entry| entry["cause"] == "unwrap_unknown").count(), 1);
}

#[test]
fn of_many_at_one_moment_one_gets_it() {
    let world = World::new();
    let (alice, bob) = (world.person(), world.person());
    let leased = lease(&alice);
    for _ in 0..20 {
        let wrapped = alice.client.wrap(&leased.token, Some(bob.key.public()), MINUTE).unwrap();
        let clients: Vec<_> = (0..4).map(|_| world.connect(&bob.key)).collect();
        let together = std::sync::Barrier::new(clients.len());
        let got: usize = std::thread::scope(|scope| {
            let one = |client: &libmem::Client| {
                together.wait();
                match client.unwrap(wrapped.id) {
                    Ok(token) => usize::from(token == leased.token),
                    Err(error) => {
                        assert!([Code::Denied, Code::Busy].contains(&error.code()), "{error}");
                        0
                    }
                }
            };
            let tasks: Vec<_> = clients.iter().map(|client| scope.spawn(move || one(client))).collect();
            tasks.into_iter().map(|task| task.join().unwrap()).sum()
        });
        assert_eq!(got, 1);
    }
    alice.client.release(leased.lease.id).unwrap();
    drop((alice, bob));
    let log = world.finish();
    assert_eq!(because(&log.provider, &leased, "unwrap").len(), 20);
}

#[test]
fn it_ends_with_its_time_with_the_tokens_and_with_the_node() {
    let world = World::new();
    let (alice, bob) = (world.person(), world.person());
    let leased = lease(&alice);
    let soon = Duration::from_millis(200);
    let ids: Vec<_> = (0..2).map(|_| alice.client.wrap(&leased.token, None, soon).unwrap().id).collect();
    bob.client.unwrap(ids[0]).unwrap();
    for id in ids {
        until("the wrap's time is over", || {
            alice.client.wrap_show(id).is_err_and(|error| error.code() == Code::GrantUnknown).then_some(())
        });
        refused(bob.client.unwrap(id), Code::GrantUnknown);
    }

    // What is over, or dead, is not taken in.
    let end = caps::time::UnixMicros(1);
    let over = attenuate(&leased.token, &Narrow { expires: Some(end), ..Narrow::default() }).unwrap();
    refused(alice.client.wrap(&over, None, MINUTE), Code::TokenExpired);
    for span in [Duration::ZERO, Duration::from_millis(WRAP_TTL_MS_MAX) + Duration::from_micros(1)] {
        refused(alice.client.wrap(&leased.token, None, span), Code::Range);
    }
    let reason = Reason::new("a test ends it").unwrap();
    alice.client.revoke(Target::Lease(leased.lease.id), reason).unwrap();
    refused(alice.client.wrap(&leased.token, None, MINUTE), Code::TokenRevoked);

    // A node that starts again knows nothing of it.
    let leased = lease(&alice);
    let wrapped = alice.client.wrap(&leased.token, Some(bob.key.public()), MINUTE).unwrap();
    let keys = [&alice.key, &bob.key].map(|key| SigningKey::from_seed(&key.seed()));
    drop((alice, bob));
    let World { mut node, .. } = world;
    node.stop();
    node.restart();
    for key in keys {
        let client = libmem::Client::connect(&node.endpoint(), &key).unwrap();
        refused(client.unwrap(wrapped.id), Code::GrantUnknown);
        refused(client.wrap_show(wrapped.id), Code::GrantUnknown);
    }
    node.stop();
}

#[test]
fn only_who_has_held_a_good_token_puts_it_in() {
    let world = World::new();
    let (alice, bob, thief) = (world.person(), world.person(), world.person());
    let leased = lease(&alice);
    let bobs = pass(&leased.token, &alice, &bob.key);

    refused(thief.client.wrap(&leased.token, None, MINUTE), Code::TokenBound);
    refused(thief.client.wrap(&bobs, None, MINUTE), Code::TokenBound);
    refused(world.admin.wrap(&bobs, None, MINUTE), Code::TokenBound);
    // A copy that he made his own without being its holder.
    let honest = pass(&leased.token, &alice, &thief.key);
    let block = forge::blocks(honest.as_bytes()).unwrap().pop().unwrap();
    let seed = thief.key.seed();
    let forged = forge::append_raw(leased.token.as_bytes(), &block, Some(&seed), &[77; 32]).unwrap();
    let forged = Token::from_bytes(forged).unwrap();
    refused(thief.client.wrap(&forged, None, MINUTE), Code::TokenSignature);
    let rubbish = Token::from_bytes(vec![7; 4096]).unwrap();
    refused(thief.client.wrap(&rubbish, None, MINUTE), Code::TokenNoncanonical);
    // Its first holder, who gave it on, and the present one.
    for who in [&alice, &bob] {
        let wrapped = who.client.wrap(&bobs, Some(bob.key.public()), MINUTE).unwrap();
        assert!(bob.client.unwrap(wrapped.id).unwrap() == bobs);
    }
    let who = thief.key.public().to_string();
    alice.client.release(leased.lease.id).unwrap();
    drop((alice, bob, thief));
    let log = world.finish();
    let denied =
        |event: &str| log.provider.iter().filter(|e| e["event"] == event && e["subject"] == who).count();
    assert_eq!((denied("lease.deny"), denied("token.reject")), (2, 2));
}

#[test]
fn one_client_cannot_fill_the_table() {
    let world = World::new();
    let (alice, bob) = (world.person(), world.person());
    let (hers, his) = (lease(&alice), lease(&bob));
    for _ in 0..WRAPS_PER_WRAPPER_MAX {
        alice.client.wrap(&hers.token, None, MINUTE).unwrap();
    }
    refused(alice.client.wrap(&hers.token, None, MINUTE), Code::Quota);
    // With a key that she drew herself she has as much once more, and no third time.
    let delegate_of_hers = || {
        let key = SigningKey::generate();
        (world.connect(&key), pass(&hers.token, &alice, &key))
    };
    let (second, token) = delegate_of_hers();
    for _ in 0..WRAPS_PER_WRAPPER_MAX {
        second.wrap(&token, None, MINUTE).unwrap();
    }
    let (third, token) = delegate_of_hers();
    refused(third.wrap(&token, None, MINUTE), Code::Quota);
    // There is room for everybody else.
    let wrapped = bob.client.wrap(&his.token, None, MINUTE).unwrap();
    assert!(alice.client.unwrap(wrapped.id).unwrap() == his.token);
    alice.client.release(hers.lease.id).unwrap();
    bob.client.release(his.lease.id).unwrap();
    drop((alice, bob, second, third));
    world.finish();
}

#[test]
fn the_asynchronous_client_does_the_same() {
    let world = World::new();
    let alice = world.person();
    let leased = lease(&alice);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = aio::Client::connect(&world.node.endpoint(), &alice.key).await.unwrap();
        let wrapped = client.wrap(&leased.token, None, MINUTE).await.unwrap();
        assert!(client.unwrap(wrapped.id).await.unwrap() == leased.token);
        refused(client.unwrap(wrapped.id).await, Code::Denied);
        assert_eq!(client.wrap_show(wrapped.id).await.unwrap().fetched.unwrap().by, alice.key.public());
    });
    alice.client.release(leased.lease.id).unwrap();
    drop((alice, runtime));
    world.finish();
}

#[test]
fn on_the_command_line_a_file_goes_in_and_comes_out_once() {
    let world = World::new();
    let dir = world.node.path().to_owned();
    let shell = Shell::new(&dir);
    for name in ["alice", "bob"] {
        shell.bytes(&["id", "new", name]);
    }
    shell.bytes(&[
        "lease", "create", "--as", "alice", "--size", "64KiB", "--ttl", "5m", "--hops", "1", "--name",
        "frames",
    ]);
    shell.bytes(&["token", "delegate", "frames", "--as", "alice", "--to", "bob", "-o", "bob.token"]);

    let wrapped = shell.json(&["token", "wrap", "bob.token", "--as", "alice", "--to", "bob", "--ttl", "1m"]);
    let id = wrapped["wrap"]["id"].as_str().unwrap();
    assert_eq!(wrapped["wrap"]["expires_in_ms"], 60_000);
    let shown = shell.json(&["token", "wrap", "--show", id, "--as", "alice"]);
    assert_eq!((&shown["wrap"]["fetched"], &shown["wrap"]["refused"]), (&Value::Null, &0.into()));

    // A file that is there is not written to, and nothing is fetched for it.
    shell.fails(&["token", "unwrap", id, "--as", "bob", "-o", "bob.token"], 1, "E_EXISTS");
    shell.fails(&["token", "unwrap", id, "--as", "alice", "-o", "mine.token"], 1, "E_GRANT_UNKNOWN");
    assert!(!dir.join("mine.token").exists(), "no empty file is left");
    let printed = shell.bytes(&["token", "unwrap", id, "--as", "bob", "-o", "mine.token"]);
    assert!(String::from_utf8(printed).unwrap().contains("written to mine.token"));
    let (sent, got) = (dir.join("bob.token"), dir.join("mine.token"));
    assert_eq!(std::fs::read(&sent).unwrap(), std::fs::read(&got).unwrap());
    assert_eq!(std::fs::metadata(&got).unwrap().permissions().mode() & 0o777, 0o600);
    shell.bytes(&["get", "mine.token", "--as", "bob", "--len", "1"]);

    shell.fails(&["token", "unwrap", id, "--as", "bob", "-o", "again.token"], 3, "E_DENIED");
    assert!(!dir.join("again.token").exists());
    let shown = shell.json(&["token", "wrap", "--show", id, "--as", "alice"]);
    assert_eq!(shown["wrap"]["fetched"]["by"], shown["wrap"]["to"]);
    let text = String::from_utf8(shell.bytes(&["token", "wrap", "--show", id, "--as", "alice"])).unwrap();
    assert!(text.contains("by bob, at "), "{text}");
    // By hand, without a receiver.
    let text = String::from_utf8(shell.bytes(&["token", "wrap", "frames", "--as", "alice"])).unwrap();
    assert!(text.contains("token unwrap ") && text.contains("keep it secret"), "{text}");
    for wrong in
        [&["token", "wrap", "--as", "alice"][..], &["token", "wrap", "frames", "--show", id, "--as", "alice"]]
    {
        shell.fails(wrong, 2, "E_USAGE");
    }
    shell.fails(&["token", "wrap", "frames", "--ttl", "11m", "--as", "alice"], 1, "E_RANGE");
    shell.bytes(&["lease", "release", "frames", "--as", "alice"]);
    drop(shell);
    world.balances();
    world.finish();
}

//! Many clients at once, at random; then the books balance.

#[path = "common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{MINUTE, World, log, oom_kills};
use libmem::{Client, Code, LeaseOptions, Leased, Lifetime, Mediated, Reason, Region, Rights, Target};

#[test]
#[ignore = "a client process of the other tests"]
fn client_process() {
    common::player::play();
}

/// Client threads, each with a session and a key of its own.
const CLIENTS: usize = 32;
/// Operations of each.
const OPERATIONS: usize = 100;

/// A small generator: the same seed, the same story.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }
}

/// A lease and what its owner opened of it; the byte that must be in its first place.
struct Holding {
    leased: Leased,
    mark: u8,
    mapped: Vec<Region>,
    mediated: Vec<Mediated>,
}

/// Plays one client; returns how often each operation was done.
fn play(client: &Client, seed: u64) -> BTreeMap<&'static str, usize> {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut holdings: Vec<Holding> = Vec::new();
    let mut done = BTreeMap::new();
    for step in 0..OPERATIONS {
        let what = if holdings.is_empty() { 0 } else { dice.roll(8) };
        let chosen = dice.roll(holdings.len().max(1));
        let word = match what {
            0 | 1 if holdings.len() < 8 => {
                let bytes = 4096 << dice.roll(6);
                let options = LeaseOptions::new(bytes, MINUTE).lifetime(Lifetime::Detached);
                let leased = client.lease(options).unwrap();
                let (mark, mapped, mediated) = (0, Vec::new(), Vec::new());
                holdings.push(Holding { leased, mark, mapped, mediated });
                "create"
            }
            2 => {
                let holding = &mut holdings[chosen];
                let region = client.open_mapped(&holding.leased.token, Rights::READ_WRITE).unwrap();
                holding.mark = step as u8;
                region.write_at(0, &[holding.mark]).unwrap();
                holding.mapped.push(region);
                "map"
            }
            3 => {
                let holding = &mut holdings[chosen];
                let mediated = client.open_mediated(&holding.leased.token, Rights::READ_WRITE).unwrap();
                let mut byte = [0];
                mediated.read_at(0, &mut byte).unwrap();
                assert_eq!(byte[0], holding.mark);
                holding.mediated.push(mediated);
                "serve"
            }
            4 => {
                let holding = &mut holdings[chosen];
                holding.mapped.pop();
                holding.mediated.pop();
                "close"
            }
            5 => {
                let holding = &mut holdings[chosen];
                holding.leased = client.renew(holding.leased.lease.id, 2 * MINUTE).unwrap();
                "renew"
            }
            6 => {
                let holding = holdings.swap_remove(chosen);
                let id = holding.leased.lease.id;
                client.revoke(Target::Lease(id), Reason::new("crowd").unwrap()).unwrap();
                for region in &holding.mapped {
                    common::refused(region.read_at(0, &mut [0]), Code::Revoked);
                }
                "revoke"
            }
            _ => {
                let holding = holdings.swap_remove(chosen);
                client.release(holding.leased.lease.id).unwrap();
                for mediated in &holding.mediated {
                    common::refused(mediated.read_at(0, &mut [0]), Code::Revoked);
                }
                "release"
            }
        };
        *done.entry(word).or_insert(0) += 1;
    }
    for holding in holdings {
        client.release(holding.leased.lease.id).unwrap();
    }
    done
}

#[test]
fn thirty_two_clients_at_random_leave_nothing_behind() {
    let kills = oom_kills();
    let world = World::new();
    let people: Vec<_> = (0..CLIENTS).map(|_| world.person()).collect();
    let operations = AtomicUsize::new(0);
    let mut total: BTreeMap<&str, usize> = BTreeMap::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = people
            .iter()
            .enumerate()
            .map(|(seed, person)| {
                let operations = &operations;
                scope.spawn(move || {
                    let done = play(&person.client, seed as u64 + 1);
                    operations.fetch_add(done.values().sum(), Ordering::Relaxed);
                    done
                })
            })
            .collect();
        for thread in threads {
            for (word, count) in thread.join().unwrap() {
                *total.entry(word).or_insert(0) += count;
            }
        }
    });
    assert_eq!(operations.into_inner(), CLIENTS * OPERATIONS);
    assert_eq!(total.len(), 7, "every operation was done: {total:?}");
    for person in &people {
        assert_eq!(person.client.leases().filter(|row| row.as_ref().unwrap().cause.is_none()).count(), 0);
    }
    drop(people);
    world.balances();
    let log = world.finish();
    // Two more: the bystander's lease and the one that warmed the node.
    assert_eq!(log::of(&log.broker, "lease.grant").len(), total["create"] + 2);
    assert_eq!(log::of(&log.provider, "lease.claim").len(), total["create"] + 2);
    assert_eq!(log::of(&log.broker, "lease.renew").len(), total["renew"]);
    assert_eq!(oom_kills(), kills);
}

//! Many sessions of one user that present tokens nobody has seen, and somebody else who wants an answer.

use caps::key::SigningKey;
use caps::rights::Rights;
use caps::token::{Narrow, Token, attenuate};
use caps::wire::{Name, Reply, Request};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::bed::Bed;
use super::socket::{USERS, as_user, is_root};
use super::wire::{Got, Raw};

/// What one hostile session asks without waiting: less than its socket's buffer holds.
const REQUESTS: usize = 20;
/// How often the other asks while they wait.
const ROUNDS: usize = 40;
/// Batches of hostile requests, each with its rounds, before the test gives up: a test that is kept off the machine for
/// long finds that a batch is over when it comes back.
const BATCHES: usize = 4;

/// A token of one block more, which nobody has seen: each has a signature of its own.
fn fresh(token: &Token) -> Token {
    attenuate(token, &Narrow { rights: Some(Rights::READ), ..Narrow::default() }).unwrap()
}

fn check(token: &Token) -> Request {
    Request::TokenCheck { token: token.clone() }
}

/// Takes the answers that are there. How many.
fn answers(raw: &Raw) -> usize {
    let mut count = 0;
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    while poll(&mut [PollFd::new(&raw.socket, PollFlags::IN)], Some(&now)).unwrap() > 0 {
        let Got::Packet(_) = raw.receive() else { panic!("the node hung up") };
        count += 1;
    }
    count
}

/// Every second turn at checking signatures is the other user's, however many sessions the first has: with turns in the
/// order of asking, or none, every hostile session would be served once before each of its answers.
#[test]
fn a_user_with_many_sessions_of_fresh_tokens_holds_up_nobody_else() {
    if !is_root() {
        return println!("needs root, to be other users");
    }
    let sessions = 16 * std::thread::available_parallelism().unwrap().get();
    let mut bed = Bed::new(&format!("[node]\nallow_uids = [{}]\n", USERS[0]));
    let bob = SigningKey::generate();
    let (mut admin, _) = Raw::session(&bed.node.socket(), &bed.node.admin()).unwrap();
    let add = Request::PrincipalAdd { name: Name::new("bob").unwrap(), key: bob.public() };
    assert!(matches!(admin.ask(&add), Ok(Reply::Done)));
    let mut polite = Raw::session(&bed.node.socket(), &bob).unwrap().0;
    let (_, own) = polite.lease(4096);
    let (path, mallory) = (bed.node.socket(), &bed.mallory);
    let begin = || Raw::session(&path, mallory).unwrap().0;
    let mut hostile: Vec<_> = as_user(USERS[0], || (0..sessions).map(|_| begin()).collect());
    let seven = (0..6).fold(bed.token.clone(), |token, _| fresh(&token));

    let fair = (0..BATCHES).any(|_| {
        let requests: Vec<_> = (0..sessions * REQUESTS).map(|_| check(&fresh(&seven))).collect();
        let asked: Vec<_> = (0..ROUNDS).map(|_| check(&fresh(&own))).collect();
        let mut left = vec![REQUESTS; sessions];
        // Each asks once before any asks twice, so that all of them wait at any time.
        for (n, request) in requests.iter().enumerate() {
            hostile[n % sessions].post(request).unwrap();
        }
        let mut served = || {
            let mut count = 0;
            for (raw, left) in hostile.iter().zip(&mut left) {
                let answered = answers(raw);
                *left -= answered;
                count += answered;
            }
            (count, left.iter().all(|&left| left > 1))
        };
        let fair = asked.iter().any(|request| {
            served();
            assert!(matches!(polite.ask(request), Ok(Reply::Token(state)) if state.code.is_none()));
            let (meanwhile, all_wait) = served();
            all_wait && meanwhile < sessions / 2
        });
        // And they are answered, too, each in its turn.
        for (raw, left) in hostile.iter().zip(left) {
            for _ in 0..left {
                assert!(matches!(raw.answer(), Ok(Reply::Token(_))));
            }
        }
        fair
    });
    assert!(fair, "whoever else asks has a turn before all of them had theirs");
    bed.check_bystander();
    drop(hostile);
    bed.finish();
}

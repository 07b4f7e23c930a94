//! Many sessions of one user that present tokens whose signatures have to be checked, and somebody else who wants an
//! answer.

use caps::error::Code;
use caps::key::SigningKey;
use caps::limits::TOKEN_BLOCKS_MAX;
use caps::rights::Rights;
use caps::time::Micros;
use caps::token::{Narrow, Token, attenuate, seal};
use caps::wire::{Name, Reply, Request};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::bed::Bed;
use super::socket::{USERS, as_user, is_root};
use super::wire::{Got, Raw};

/// What one hostile session asks without waiting: less than its socket's buffer holds.
const REQUESTS: usize = 20;
/// How often the other asks while they wait.
const ROUNDS: usize = 40;
/// How often it must be answered before half of them are, while all of them wait: more often than happens by chance, when
/// they have only begun to ask, and not always, as this test may be kept off the machine while it counts.
const EARLY: usize = 5;
/// Batches of hostile requests, each with its rounds, before the test gives up: a test that is kept off the machine for
/// long finds that a batch is over when it comes back.
const BATCHES: usize = 4;

/// A sealed token of eight blocks, with a bit of its last signature changed: all the others are checked first, and as it
/// is refused it is not remembered. Nothing but that takes the node long.
fn forged(token: &Token) -> Token {
    let narrow = Narrow { rights: Some(Rights::READ), ..Narrow::default() };
    let whole = (1..TOKEN_BLOCKS_MAX).fold(token.clone(), |token, _| attenuate(&token, &narrow).unwrap());
    let mut bytes = seal(&whole).unwrap().as_bytes().to_vec();
    let signature = bytes.len() - 64;
    bytes[signature] ^= 1;
    Token::from_bytes(bytes).unwrap()
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
fn holds_up_nobody_else(request: impl Fn(Token) -> Request) {
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
    let theirs = request(forged(&bed.token));
    let own = Request::TokenCheck { token: forged(&own) };

    let mut early = 0;
    let fair = (0..BATCHES).any(|_| {
        let mut left = vec![REQUESTS; sessions];
        // Each asks once before any asks twice, so that all of them wait at any time.
        for n in 0..sessions * REQUESTS {
            hostile[n % sessions].post(&theirs).unwrap();
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
        let fair = (0..ROUNDS).filter(|_| {
            served();
            assert_eq!(polite.refusal(&own), Code::TokenSignature);
            let (meanwhile, all_wait) = served();
            all_wait && meanwhile < sessions / 2
        });
        early += fair.count();
        // And they are answered, too, each in its turn.
        for (raw, left) in hostile.iter().zip(left) {
            for _ in 0..left {
                assert_eq!(raw.answer().unwrap_err().code(), Code::TokenSignature);
            }
        }
        early >= EARLY
    });
    assert!(fair, "whoever else asks has a turn before all of them had theirs");
    bed.check_bystander();
    drop(hostile);
    bed.finish();
}

#[test]
fn a_user_with_many_sessions_of_tokens_to_verify_holds_up_nobody_else() {
    holds_up_nobody_else(|token| Request::TokenCheck { token });
}

/// What is to be wrapped is verified, too, and remembered by nothing.
#[test]
fn a_user_with_many_sessions_of_tokens_to_wrap_holds_up_nobody_else() {
    holds_up_nobody_else(|token| Request::Wrap { token, to: None, ttl: Micros(1_000_000) });
}

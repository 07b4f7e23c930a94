//! Inputs to start from, and the numbers of the events.

/// Inputs to start from: each reaches one end of a lease's life.
#[must_use]
pub fn event_seeds() -> Vec<Vec<u8>> {
    let claim = [CLAIM, 1, 2, 40, 0, 0]; // lease 1, 2 pages, 40 ms, detached
    let tied = [CLAIM, 1, 2, 40, 5, 0]; // and tied to session 2
    let pieces = [CLAIM, 1, 4, 40, 0, 2]; // 4 pages in segments of 2
    let built = [BUILT, 0, 1];
    let owner = [OPEN, 1, 2, 0, 40, 8, 0b0010, 0]; // session 2, no grant, the whole region, mapped
    let part = [OPEN, 1, 1, 2, 9, 1, 0b0001, 0]; // session 1, a grant, one page, mediated
    let limited = [OPEN, 1, 1, 0b01_0110, 40, 1, 0b0001, 0]; // the same, below two blocks that allow it once
    let receiver = [OPEN, 1, 1, 2, 40, 8, 0b0010, 0];
    let child = [OPEN, 1, 1, 2 + 0b100_0000, 40, 8, 0b0010, 0]; // the same by a token that was made of the grant's
    let hand_out = [HAND_OUT, 0, 0, 1];
    let theirs = [HAND_OUT, 1, 0, 1];
    let rotate = [PROGRESS, 0, 0, PROGRESS, 0, 0, SPEND, 0];
    let run = |acts: &[&[u8]]| [&[0][..], &acts.concat()].concat();
    vec![
        run(&[&claim, &built, &owner, &hand_out, &[TAKE_LEASE, 1], &[TAKEN, 0]]),
        run(&[&claim, &built, &owner, &hand_out, &receiver, &theirs, &[TAKE_GRANT, 1, 2, 30]]),
        run(&[&claim, &built, &part, &[TAKE_GRANT, 1, 2, 30], &part]),
        run(&[&tied, &built, &owner, &[SESSION_ENDED, 2], &[TAKEN, 0], &claim]),
        run(&[&claim, &[TAKE_LEASE, 1], &built, &[TAKEN, 0]]),
        run(&[&claim, &[BUILT, 0, 0], &claim, &built, &part, &[RENEW, 1, 5], &[WAIT, 9], &[TAKEN, 0]]),
        run(&[&claim, &built, &part, &[CLOSE, 0, 1], &[WAIT, 50], &part]),
        run(&[&pieces, &built, &owner, &hand_out, &receiver, &theirs, &[TAKE_GRANT, 1, 2, 30], &rotate]),
        run(&[&pieces, &built, &receiver, &hand_out, &[NARROW, 1, 2, 0b1, 0, 4, 30], &rotate, &[WAIT, 35]]),
        run(&[
            &pieces,
            &built,
            &receiver,
            &hand_out,
            &[NARROW, 1, 2, 0b11, 2, 2, 30, TAKE_LEASE, 1],
            &rotate,
        ]),
        run(&[&claim, &built, &limited, &[CLOSE, 0, 1], &limited]),
        run(&[&claim, &built, &owner, &hand_out, &child, &theirs, &[TAKE_MARK, 1, 5, 30], &rotate]),
        run(&[&pieces, &built, &owner, &hand_out, &part, &[RETIRE_ROOT, 1], &rotate, &owner]),
        run(&[&claim, &built, &owner, &hand_out, &[ROOT_EXPIRED, 1, RETIRE_ROOT, 0]]),
        run(&[
            &claim,
            &built,
            &owner,
            &hand_out,
            &receiver,
            &theirs,
            &[TAKE_OWNER, 1, 2, 30, 0],
            &rotate,
            &owner,
        ]),
    ]
}

pub(super) const CLAIM: u8 = 0;
pub(super) const BUILT: u8 = 1;
pub(super) const RENEW: u8 = 2;
pub(super) const OPEN: u8 = 3;
pub(super) const HAND_OUT: u8 = 4;
pub(super) const CLOSE: u8 = 5;
pub(super) const SESSION_ENDED: u8 = 6;
pub(super) const TAKE_LEASE: u8 = 7;
pub(super) const TAKE_GRANT: u8 = 8;
pub(super) const TAKEN: u8 = 9;
pub(super) const WAIT: u8 = 10;
pub(super) const JUMP: u8 = 11;
pub(super) const SLEEP: u8 = 12;
pub(super) const NARROW: u8 = 13;
pub(super) const PROGRESS: u8 = 14;
pub(super) const SPEND: u8 = 15;
pub(super) const TAKE_MARK: u8 = 16;
pub(super) const RETIRE_ROOT: u8 = 17;
pub(super) const ROOT_EXPIRED: u8 = 18;
pub(super) const TAKE_OWNER: u8 = 19;
pub(super) const KINDS: u8 = 20;

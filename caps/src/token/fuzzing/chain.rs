//! What people can make of a token between them: narrow it with our means or another's, hand it on, steal it, put blocks
//! of one into another, seal it, damage it. A fuzzer writes the story; what each token is worth is kept beside it by
//! means that fold nothing together.

use std::sync::LazyLock;

use super::super::{
    Mark, Narrow, Narrowing, Request, RootKey, RootKeys, Terms, Token, Usage, VerifiedToken, attenuate,
    delegate, forge, gate, seal,
};
use super::prove;
use crate::id::{ClusterEpoch, LeaseId, ProviderId, RegionId};
use crate::key::SigningKey;
use crate::range::ByteRange;
use crate::rights::{Operation, Rights};
use crate::time::UnixMicros;

/// Steps of one story: a token has 8 blocks at most, and what is done to a full one is tried too.
const STEPS_MAX: usize = 12;
const PEOPLE: u8 = 3;

/// Whether a token must be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Belief {
    /// Our own means made it of one that must be.
    Must,
    /// Another's did, so that the gate may refuse its form.
    May,
    /// Somebody signed what he may not, or nobody did.
    Never,
}

/// A token of the story, with every bound of every block and everybody who held it.
struct Made {
    bytes: Vec<u8>,
    belief: Belief,
    bounds: Vec<Narrowing>,
    holders: Vec<u8>,
    /// If its last block is a delegation, which another could try to repeat: the one that it was signed for, and what it
    /// is worth there.
    delegated: Option<(usize, Belief)>,
    /// A byte of it was changed, and perhaps one that no signature covers. Nothing is made of such a token: the library
    /// and our own tools write it anew without what they do not know, and what comes of that may be whole again.
    damaged: bool,
    /// What can be taken back of it, if it was believed.
    marks: Vec<Mark>,
}

/// The fuzz target: bytes become the steps of a story.
///
/// # Panics
/// If a token is believed that must not be, or the other way round; if it is another's than the one it was handed to;
/// if it allows what one of its blocks does not, or not what all of them do; or if taking back what it was made of would
/// leave it alive.
pub fn chain(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let mut all = vec![start()];
    judge(&all, 0);
    for step in 0..STEPS_MAX {
        let Some(kind) = bytes.next() else { return };
        let of = usize::from(bytes.number()) % all.len();
        let next = [step as u8 + 1; 32];
        let Some(made) = all[of].then(kind, of, &next, &mut bytes, &all) else { continue };
        all.push(made);
        let last = all.len() - 1;
        judge_child(&mut all, of, last);
    }
}

impl Made {
    /// What one step makes of this token, if it makes anything.
    fn then(
        &self,
        kind: u8,
        of: usize,
        next: &[u8; 32],
        bytes: &mut Bytes<'_>,
        all: &[Self],
    ) -> Option<Self> {
        let token = || Token::from_bytes(self.bytes.clone());
        match kind % 7 {
            _ if self.damaged => None,
            0 => {
                let narrow = bytes.narrow();
                let made = attenuate(&token().ok()?, &narrow).ok()?;
                Some(self.narrowed(&made, bound(&narrow, self.hops()), self.belief))
            }
            1 => {
                let by = bytes.narrowing();
                let made = forge::narrow_anyhow(&token().ok()?, &by).ok()?;
                let belief = if self.belief == Belief::Must { Belief::May } else { self.belief };
                Some(self.narrowed(&made, by, belief))
            }
            2 => {
                let (from, to, narrow) = (bytes.person(), bytes.person(), bytes.narrow());
                let made = delegate(&token().ok()?, &key(from), key(to).public(), &narrow).ok()?;
                assert_eq!(Some(&from), self.holders.last(), "only the holder hands it on");
                Some(self.handed(of, made.as_bytes(), to, bound(&narrow, self.hops() + 1), self.belief))
            }
            // The same by a tool that does not ask: signed by anybody, over any number of hops.
            3 => {
                let (from, to) = (bytes.person(), bytes.person());
                let block = delegation(from, to)?;
                let made = forge::append_raw(&self.bytes, &block, Some(&seed(from)), next).ok()?;
                let belief = match self.belief {
                    _ if self.holders.last() != Some(&from) => Belief::Never,
                    Belief::Must => Belief::May,
                    belief => belief,
                };
                Some(self.handed(of, &made, to, Narrowing::default(), belief))
            }
            // A delegation of another token, with the signature that it has there.
            4 => {
                let other = &all[usize::from(bytes.number()) % all.len()];
                let (place, worth) = other.delegated?;
                let made = forge::replay(&self.bytes, &other.bytes, next).ok()?;
                let belief = match worth {
                    _ if all[place].bytes != self.bytes => Belief::Never,
                    Belief::Must => Belief::May,
                    belief => belief,
                };
                let (to, by) = (*other.holders.last()?, *other.bounds.last()?);
                Some(Self { delegated: other.delegated, ..self.handed(of, &made, to, by, belief) })
            }
            5 => {
                let made = seal(&token().ok()?).ok()?;
                Some(Self { bytes: made.as_bytes().to_vec(), delegated: None, ..self.copy() })
            }
            _ => {
                let mut damaged = self.bytes.clone();
                let at = usize::from(bytes.number()) * 256 + usize::from(bytes.number());
                let length = damaged.len();
                damaged[at % length] ^= bytes.number().max(1);
                let child = Self { bytes: damaged, belief: Belief::Never, delegated: None, ..self.copy() };
                Some(Self { damaged: true, ..child })
            }
        }
    }

    fn copy(&self) -> Self {
        let Self { bytes, belief, bounds, holders, delegated, damaged, marks: _ } = self;
        Self {
            bytes: bytes.clone(),
            belief: *belief,
            bounds: bounds.clone(),
            holders: holders.clone(),
            delegated: *delegated,
            damaged: *damaged,
            marks: Vec::new(),
        }
    }

    fn hops(&self) -> u64 {
        self.holders.len() as u64 - 1
    }

    fn narrowed(&self, made: &Token, by: Narrowing, belief: Belief) -> Self {
        let mut child = Self { bytes: made.as_bytes().to_vec(), belief, delegated: None, ..self.copy() };
        child.bounds.push(by);
        child
    }

    fn handed(&self, of: usize, made: &[u8], to: u8, by: Narrowing, belief: Belief) -> Self {
        let mut child = Self { bytes: made.to_vec(), belief, delegated: Some((of, belief)), ..self.copy() };
        child.bounds.push(by);
        child.holders.push(to);
        child
    }

    /// Every bound is asked, one after the other.
    fn allows(&self, request: &Request) -> bool {
        let usage = |most: Option<u64>, count: fn(&Usage) -> u64| match (most, &request.usage) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(most), Some(usage)) => count(usage) <= most,
        };
        let within = |bound: &Narrowing| {
            bound.rights.is_none_or(|rights| rights.contains(Rights::of(request.operation)))
                && bound.start.is_none_or(|start| start <= request.range.start())
                && bound.end.is_none_or(|end| request.range.end() <= end)
                && bound.not_before.is_none_or(|begin| begin <= request.now.0)
                && bound.expires.is_none_or(|end| request.now.0 < end)
                && bound.hops.is_none_or(|most| self.hops() <= most)
                && usage(bound.opens, |usage| usage.opens)
                && usage(bound.bytes_per_second, |usage| usage.bytes_per_second)
                && usage(bound.bytes_total, |usage| usage.bytes_total)
        };
        let holder = self.holders.last().map(|&holder| key(holder).public());
        holder == Some(request.proven.holder()) && self.bounds.iter().all(within)
    }
}

/// Judges a new token, and that whatever kills the one it was made of kills it.
fn judge_child(all: &mut [Made], of: usize, last: usize) {
    if let Some(verified) = judge(all, last) {
        let marks = verified.marks().to_vec();
        assert!(all[of].marks.iter().all(|mark| marks.contains(mark)), "a child dies with its parent");
        all[last].marks = marks;
    }
}

fn judge(all: &[Made], of: usize) -> Option<VerifiedToken> {
    let made = &all[of];
    let verified = match gate(&made.bytes).and_then(|gated| gated.verify(&WORLD.keys)) {
        Ok(verified) => verified,
        Err(error) => {
            assert_ne!(made.belief, Belief::Must, "what our own means made is believed: {error}");
            return None;
        }
    };
    assert_ne!(made.belief, Belief::Never, "what nobody may sign is not believed");
    let holders: Vec<_> = made.holders.iter().map(|&person| key(person).public()).collect();
    let chain = verified.chain();
    let walked: Vec<_> =
        std::iter::once(chain.first_holder).chain(chain.hops.iter().map(|hop| hop.to)).collect();
    assert_eq!((walked, Some(&chain.holder)), (holders.clone(), holders.last()));
    for request in &WORLD.requests {
        assert_eq!(verified.authorize(request).is_ok(), made.allows(request), "{request:?}");
    }
    Some(verified)
}

const fn seed(person: u8) -> [u8; 32] {
    [person + 20; 32]
}

fn key(person: u8) -> SigningKey {
    SigningKey::from_seed(&seed(person))
}

/// What our own means write for `narrow`, after so many hops.
fn bound(narrow: &Narrow, hops: u64) -> Narrowing {
    Narrowing {
        rights: narrow.rights,
        start: narrow.range.map(ByteRange::start),
        end: narrow.range.map(ByteRange::end),
        not_before: narrow.not_before.map(|time| time.0),
        expires: narrow.expires.map(|time| time.0),
        hops: narrow.max_hops.map(|more| hops + u64::from(more)),
        opens: narrow.opens,
        bytes_per_second: narrow.bytes_per_second,
        bytes_total: narrow.bytes_total,
    }
}

/// The content of a delegation without bounds, from one person to another.
fn delegation(from: u8, to: u8) -> Option<Vec<u8>> {
    let terms = Terms { holder: key(from).public(), ..WORLD.terms };
    let own = forge::mint(&RootKey::from_seed(&[9; 32]), &terms, &[8; 32]).ok()?;
    let made = forge::delegate(&own, &key(from), key(to).public(), &Narrow::default(), &[7; 32]).ok()?;
    forge::blocks(made.as_bytes()).ok()?.pop()
}

struct World {
    keys: RootKeys,
    terms: Terms,
    requests: Vec<Request>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let keys = RootKeys::of(RootKey::from_seed(&[1; 32]).public()).expect("a root key is a key");
    let terms = Terms {
        lease: LeaseId([3; 16]),
        region: RegionId([4; 16]),
        grant: None,
        range: ByteRange::new(0, 16).expect("a range"),
        rights: Rights::READ_WRITE,
        holder: key(0).public(),
        not_before: UnixMicros(2),
        expires: UnixMicros(14),
        max_hops: 3,
        cluster: ClusterEpoch([5; 16]),
        provider: ProviderId([6; 16]),
    };
    let base = Request {
        operation: Operation::Read,
        range: ByteRange::new(4, 8).expect("a range"),
        now: UnixMicros(6),
        proven: prove(&key(0)),
        lease: terms.lease,
        region: terms.region,
        cluster: terms.cluster,
        provider: terms.provider,
        usage: Some(Usage { opens: 2, bytes_per_second: 2, bytes_total: 2 }),
    };
    let asked = [
        base,
        Request { operation: Operation::Write, ..base },
        Request { range: ByteRange::new(0, 16).expect("a range"), usage: None, ..base },
        Request { now: UnixMicros(3), ..base },
        Request { now: UnixMicros(12), usage: Some(Usage::default()), ..base },
    ];
    let by = |person| asked.map(|request| Request { proven: prove(&key(person)), ..request });
    World { keys, terms, requests: (0..PEOPLE).flat_map(by).collect() }
});

fn start() -> Made {
    let Terms { range, rights, not_before, expires, max_hops, .. } = WORLD.terms;
    let token = forge::mint(&RootKey::from_seed(&[1; 32]), &WORLD.terms, &[2; 32]).expect("sound terms");
    let authority = Narrowing {
        rights: Some(rights),
        start: Some(range.start()),
        end: Some(range.end()),
        not_before: Some(not_before.0),
        expires: Some(expires.0),
        hops: Some(u64::from(max_hops)),
        ..Narrowing::default()
    };
    Made {
        bytes: token.as_bytes().to_vec(),
        belief: Belief::Must,
        bounds: vec![authority],
        holders: vec![0],
        delegated: None,
        damaged: false,
        marks: Vec::new(),
    }
}

/// Stories to start from: handed on twice and sealed; stolen; a delegation put into another token, and into its own
/// parent once more; damaged.
#[must_use]
pub fn chain_seeds() -> Vec<Vec<u8>> {
    let hand = |of: u8, from: u8, to: u8| vec![2, of, from, to, 0];
    vec![
        [hand(0, 0, 1), hand(1, 1, 2), vec![5, 2]].concat(),
        [vec![0, 0, 0b1, 1], vec![1, 1, 0b110, 2, 9], hand(1, 0, 1)].concat(),
        [vec![3, 0, 1, 1], vec![3, 0, 0, 1], vec![3, 2, 1, 0]].concat(),
        [hand(0, 0, 1), vec![0, 0, 0b1, 1], vec![4, 2, 1], vec![4, 0, 1]].concat(),
        [hand(0, 0, 2), vec![6, 1, 1, 44, 1]].concat(),
    ]
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn number(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    fn person(&mut self) -> u8 {
        self.number() % PEOPLE
    }

    /// A byte says which dimensions, then one for each.
    fn narrow(&mut self) -> Narrow {
        let NarrowedBy { rights, start, end, not_before, expires, hops, opens, rate, total } =
            self.dimensions();
        let range = |(start, end)| ByteRange::new(start, end).ok();
        Narrow {
            rights,
            range: start.zip(end).and_then(range),
            not_before: not_before.map(UnixMicros),
            expires: expires.map(UnixMicros),
            max_hops: hops.map(|hops| hops as u8),
            opens,
            bytes_per_second: rate,
            bytes_total: total,
        }
    }

    fn narrowing(&mut self) -> Narrowing {
        let NarrowedBy { rights, start, end, not_before, expires, hops, opens, rate, total } =
            self.dimensions();
        Narrowing {
            rights,
            start,
            end,
            not_before,
            expires,
            hops,
            opens,
            bytes_per_second: rate,
            bytes_total: total,
        }
    }

    fn dimensions(&mut self) -> NarrowedBy {
        let which = self.number();
        let mut take = |bit: u8, most: u64| (which >> bit & 1 == 1).then(|| u64::from(self.number()) % most);
        NarrowedBy {
            rights: take(0, 4)
                .and_then(|bits| Rights::try_from(bits as u8).ok())
                .filter(|rights| !rights.is_empty()),
            start: take(1, 18),
            end: take(1, 18),
            not_before: take(2, 16),
            expires: take(3, 16),
            hops: take(4, 5),
            opens: take(5, 4),
            rate: take(6, 4),
            total: take(7, 4),
        }
    }
}

struct NarrowedBy {
    rights: Option<Rights>,
    start: Option<u64>,
    end: Option<u64>,
    not_before: Option<u64>,
    expires: Option<u64>,
    hops: Option<u64>,
    opens: Option<u64>,
    rate: Option<u64>,
    total: Option<u64>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn seeds_hold() {
        chain_seeds().iter().for_each(|seed| chain(seed));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
        #[test]
        fn any_story_holds(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            chain(&bytes);
        }
    }
}

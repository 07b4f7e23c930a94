//! Which provider gets a lease: a pure function of what is asked for and how the providers are, and why.
//!
//! First it leaves out who cannot have the lease, then it takes the one with the highest score. All of it is integer
//! arithmetic over the books and the last heartbeats, so every replica comes to the same provider; of two with the same
//! score it is the one whose name comes first.
//!
//! | figure, 0 to 1,000 | what it measures | weight |
//! |---|---|---|
//! | class | it names the lease's class: it is there for these | 12 |
//! | near | it stands where the lease should be | 6 |
//! | room | the share of its bytes that is free once the lease is in | 2 |
//! | calm | few reservations wait to be claimed there | 2 |
//! | idle | few sessions | 1 |
//!
//! A provider that has just refused a claim scores nothing, so that it has a lease only where no other could: what its
//! books and its heartbeats say of its room was not true.
//!
//! The weights put the figures in ranks: class before nearness, nearness before the other three together. `calm` is
//! there for a provider that has just come: it is emptier than all others and would be given every lease at once,
//! faster than it can make memory of them; so after [`CLAIMS_MAX`] that wait, one that is fuller is as good.

use caps::wire::Name;
use caps::wire::provider::{Considered, Placement, ProviderState, Verdict};
use caps::{Code, Error, Result};
use policy::limits::{PLACEMENT_NODES_MAX, SESSIONS_MAX};

/// The most that a figure comes to.
const FULL: u64 = 1_000;
/// Reservations that wait at a provider from which on it is not calm at all: a few times what it makes at once.
const CLAIMS_MAX: u64 = 32;

const CLASS_WEIGHT: u64 = 12;
const NEAR_WEIGHT: u64 = 6;
const ROOM_WEIGHT: u64 = 2;
const CALM_WEIGHT: u64 = 2;
const IDLE_WEIGHT: u64 = 1;

const _: () = assert!(NEAR_WEIGHT > ROOM_WEIGHT + CALM_WEIGHT + IDLE_WEIGHT, "near is before all figures");
const _: () =
    assert!(CLASS_WEIGHT > NEAR_WEIGHT + ROOM_WEIGHT + CALM_WEIGHT + IDLE_WEIGHT, "class is before near");

/// What is to be placed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask<'a> {
    /// Bytes, whole pages.
    pub(super) bytes: u64,
    pub(super) class: Option<&'a Name>,
    /// Where it should be.
    pub(super) near: Option<&'a Name>,
}

/// A provider as it is now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) name: &'a Name,
    pub(super) state: ProviderState,
    /// Nothing was heard of it for too long.
    pub(super) silent: bool,
    /// It refused a claim and was not heard since.
    pub(super) refused: bool,
    /// Bytes that it leases at most; never 0.
    pub(super) bytes: u64,
    pub(super) free_bytes: u64,
    pub(super) free_regions: u32,
    pub(super) sessions: u32,
    /// Reservations that wait to be claimed.
    pub(super) claims: u32,
    /// The only classes that it takes; none: all.
    pub(super) classes: &'a [Name],
    pub(super) locality: Option<&'a Name>,
}

impl Candidate<'_> {
    /// Why it cannot have the lease, if it cannot.
    fn refusal(&self, ask: &Ask<'_>) -> Option<Verdict> {
        let takes_class =
            self.classes.is_empty() || ask.class.is_some_and(|class| self.classes.contains(class));
        match self.state {
            ProviderState::Lost => Some(Verdict::Lost),
            ProviderState::Draining => Some(Verdict::Draining),
            ProviderState::Up if self.silent => Some(Verdict::Silent),
            ProviderState::Up if !takes_class => Some(Verdict::OtherClass),
            ProviderState::Up if self.free_regions == 0 => Some(Verdict::NoRegion),
            ProviderState::Up if self.free_bytes < ask.bytes => Some(Verdict::NoBytes),
            ProviderState::Up => None,
        }
    }

    /// How well the lease would be there; it has room for it.
    fn score(&self, ask: &Ask<'_>) -> u32 {
        if self.refused {
            return 0;
        }
        let either = |yes: bool| if yes { FULL } else { 0 };
        let class = either(ask.class.is_some_and(|class| self.classes.contains(class)));
        let near = either(ask.near.is_some() && ask.near == self.locality);
        let room = share(self.free_bytes.saturating_sub(ask.bytes), self.bytes);
        let calm = FULL - share(self.claims.into(), CLAIMS_MAX);
        let idle = FULL - share(self.sessions.into(), SESSIONS_MAX as u64);
        let score = CLASS_WEIGHT * class
            + NEAR_WEIGHT * near
            + ROOM_WEIGHT * room
            + CALM_WEIGHT * calm
            + IDLE_WEIGHT * idle;
        u32::try_from(score).unwrap_or(u32::MAX) // at most the sum of the weights times 1,000
    }

    fn considered(&self, verdict: Verdict, score: u32) -> Considered {
        Considered {
            node: self.name.clone(),
            verdict,
            free_bytes: self.free_bytes,
            free_regions: self.free_regions,
            sessions: self.sessions,
            claims: self.claims,
            score,
        }
    }
}

/// `part` of `whole` in thousandths, at most all of it.
fn share(part: u64, whole: u64) -> u64 {
    let thousandths = u128::from(part) * u128::from(FULL) / u128::from(whole.max(1));
    u64::try_from(thousandths).unwrap_or(FULL).min(FULL)
}

/// Places a lease: the index in `candidates` of the provider that gets it, and why.
///
/// # Errors
/// `E_NOMEM` if one that is up has not the bytes for it or takes no lease of its class; `E_BUSY` if those that are not lost
/// have no region left, drain or are silent; `E_PROVIDER_LOST` if none is left.
pub(super) fn place(ask: &Ask<'_>, candidates: &[Candidate<'_>]) -> Result<(usize, Placement)> {
    let mut ranked: Vec<(Verdict, u32, usize)> = candidates
        .iter()
        .enumerate()
        .map(|(at, candidate)| match candidate.refusal(ask) {
            Some(verdict) => (verdict, 0, at),
            None => (Verdict::Outscored, candidate.score(ask), at),
        })
        .collect();
    // Who can have it by score; the others after them, by how near they came.
    ranked.sort_by(|(a_verdict, a_score, a), (b_verdict, b_score, b)| {
        let scores = b_score.cmp(a_score);
        a_verdict.cmp(b_verdict).then(scores).then(candidates[*a].name.cmp(candidates[*b].name))
    });
    let Some(&(nearest, _, first)) = ranked.first() else { return Err(refused(Verdict::Lost)) };
    if nearest != Verdict::Outscored {
        return Err(refused(nearest));
    }
    ranked[0].0 = Verdict::Chosen;
    let shown = ranked.iter().take(PLACEMENT_NODES_MAX);
    let considered =
        shown.map(|&(verdict, score, at)| candidates[at].considered(verdict, score)).collect::<Vec<_>>();
    // A table has far fewer rows than 32 bits count.
    let others = (ranked.len() - considered.len()) as u32;
    Ok((first, Placement { node: candidates[first].name.clone(), considered, others }))
}

/// What the one who asks is told, by the provider that came nearest.
const fn refused(nearest: Verdict) -> Error {
    match nearest {
        Verdict::Chosen | Verdict::Outscored | Verdict::NoBytes => {
            Error::new(Code::NoMemory, "no provider has that many bytes left")
        }
        Verdict::NoRegion => Error::new(Code::Busy, "every provider's table of regions is full"),
        Verdict::OtherClass => Error::new(Code::NoMemory, "no provider takes leases of this class"),
        Verdict::Silent => Error::new(Code::Busy, "no provider that takes leases answers at present"),
        Verdict::Draining => Error::new(Code::Busy, "every provider is draining"),
        Verdict::Lost => Error::new(Code::ProviderLost, "there is no provider at present"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn ask() -> Ask<'static> {
        Ask { bytes: 4_096, class: None, near: None }
    }

    fn candidate(name: &Name) -> Candidate<'_> {
        Candidate {
            name,
            state: ProviderState::Up,
            silent: false,
            refused: false,
            bytes: 100_000,
            free_bytes: 50_000,
            free_regions: 5,
            sessions: 0,
            claims: 0,
            classes: &[],
            locality: None,
        }
    }

    fn chosen(ask: &Ask<'_>, candidates: &[Candidate<'_>]) -> String {
        let (at, placement) = place(ask, candidates).unwrap();
        assert_eq!(placement.node, *candidates[at].name);
        assert_eq!(
            (&placement.considered[0].node, placement.considered[0].verdict),
            (&placement.node, Verdict::Chosen)
        );
        placement.node.to_string()
    }

    #[test]
    fn each_filter_keeps_a_provider_out_and_says_so() {
        let (a, b) = (name("a"), name("b"));
        let classes = [name("batch")];
        let good = candidate(&a);
        let cases: [(Candidate<'_>, Verdict, Code); 6] = [
            (Candidate { free_bytes: 4_095, ..good }, Verdict::NoBytes, Code::NoMemory),
            (Candidate { free_regions: 0, ..good }, Verdict::NoRegion, Code::Busy),
            (Candidate { classes: &classes, ..good }, Verdict::OtherClass, Code::NoMemory),
            (Candidate { silent: true, ..good }, Verdict::Silent, Code::Busy),
            (Candidate { state: ProviderState::Draining, ..good }, Verdict::Draining, Code::Busy),
            (Candidate { state: ProviderState::Lost, ..good }, Verdict::Lost, Code::ProviderLost),
        ];
        for (out, verdict, code) in cases {
            // The other one is worse in everything and has it.
            let worse = Candidate { free_bytes: 4_096, sessions: 9_999, claims: 999, ..candidate(&b) };
            let (_, placement) = place(&ask(), &[out, worse]).unwrap();
            assert_eq!(placement.node, b, "{verdict:?}");
            assert_eq!(placement.considered[1].verdict, verdict);
            assert_eq!((placement.considered[1].score, placement.others), (0, 0));
            assert_eq!(place(&ask(), &[out]).unwrap_err().code(), code, "{verdict:?}");
        }
        assert_eq!(place(&ask(), &[]).unwrap_err().code(), Code::ProviderLost);
        assert_eq!(
            chosen(&ask(), &[Candidate { free_bytes: 4_096, free_regions: 1, ..good }]),
            "a",
            "the last byte"
        );
        let of_class = Ask { class: Some(&classes[0]), ..ask() };
        assert_eq!(chosen(&of_class, &[Candidate { classes: &classes, ..good }]), "a");
        let other = name("other");
        let refused =
            place(&Ask { class: Some(&other), ..ask() }, &[Candidate { classes: &classes, ..good }]);
        assert_eq!(refused.unwrap_err().code(), Code::NoMemory);
    }

    #[test]
    fn the_refusal_is_that_of_who_came_nearest() {
        let (a, b) = (name("a"), name("b"));
        let full = Candidate { free_bytes: 0, ..candidate(&a) };
        let lost = Candidate { state: ProviderState::Lost, ..candidate(&b) };
        let silent = Candidate { silent: true, ..candidate(&b) };
        for others in [lost, silent] {
            assert_eq!(place(&ask(), &[others, full]).unwrap_err().code(), Code::NoMemory);
        }
        assert_eq!(place(&ask(), &[lost, Candidate { name: &a, ..silent }]).unwrap_err().code(), Code::Busy);
    }

    #[test]
    fn each_figure_decides_between_equals() {
        let (a, b) = (name("a"), name("b"));
        let (plain, other) = (candidate(&a), candidate(&b));
        let (class, zone) = ([name("batch")], name("zone-1"));
        let wish = Ask { class: Some(&class[0]), near: Some(&zone), ..ask() };
        // Without a difference the first name has it, whichever stands first.
        assert_eq!(chosen(&wish, &[plain, other]), "a");
        assert_eq!(chosen(&wish, &[other, plain]), "a");
        for better in [
            Candidate { classes: &class, ..other },
            Candidate { locality: Some(&zone), ..other },
            Candidate { free_bytes: 51_000, ..other },
        ] {
            assert_eq!(chosen(&wish, &[plain, better]), "b", "{better:?}");
        }
        for worse in [Candidate { claims: 1, ..plain }, Candidate { sessions: 1_000, ..plain }] {
            assert_eq!(chosen(&wish, &[worse, other]), "b", "{worse:?}");
        }
    }

    #[test]
    fn class_is_before_nearness_and_nearness_before_the_rest() {
        let (a, b) = (name("a"), name("b"));
        let (class, zone) = ([name("batch")], name("zone-1"));
        let wish = Ask { class: Some(&class[0]), near: Some(&zone), ..ask() };
        let full = |name| Candidate { free_bytes: 4_096, claims: 99, sessions: u32::MAX, ..candidate(name) };
        let empty = |name| Candidate { free_bytes: 100_000, ..candidate(name) };
        let near = Candidate { locality: Some(&zone), ..full(&b) };
        assert_eq!(chosen(&wish, &[empty(&a), near]), "b");
        let of_class = Candidate { classes: &class, ..full(&a) };
        assert_eq!(chosen(&wish, &[of_class, Candidate { locality: Some(&zone), ..empty(&b) }]), "a");
        // Nobody asked for a place: no label is better than another.
        assert_eq!(chosen(&ask(), &[empty(&a), near]), "a");
    }

    #[test]
    fn a_provider_that_has_just_come_is_not_given_everything_at_once() {
        let (fresh, used) = (name("fresh"), name("used"));
        let busy = |claims| Candidate { free_bytes: 100_000, claims, ..candidate(&fresh) };
        let half = candidate(&used);
        assert_eq!(chosen(&ask(), &[busy(0), half]), "fresh");
        let turn = (0..CLAIMS_MAX as u32).find(|claims| chosen(&ask(), &[busy(*claims), half]) == "used");
        assert!(turn.is_some_and(|claims| claims > 1), "{turn:?}");
    }

    #[test]
    fn one_that_refused_a_claim_comes_after_all_that_did_not() {
        let (a, b) = (name("a"), name("b"));
        let classes = [name("batch")];
        let wish = Ask { class: Some(&classes[0]), ..ask() };
        let refused = Candidate { classes: &classes, refused: true, ..candidate(&a) };
        let full = Candidate { free_bytes: 4_096, claims: 99, sessions: u32::MAX, ..candidate(&b) };
        assert_eq!(chosen(&wish, &[refused, Candidate { free_bytes: 4_200, ..full }]), "b");
        assert_eq!(
            chosen(&wish, &[refused, Candidate { free_bytes: 0, ..full }]),
            "a",
            "rather than nowhere"
        );
    }

    #[test]
    fn the_explanation_is_bounded_and_has_the_nearest() {
        let names: Vec<Name> = (0..20).map(|n| name(&format!("n{n:02}"))).collect();
        let mut candidates: Vec<_> = names.iter().map(candidate).collect();
        for (at, candidate) in candidates.iter_mut().enumerate() {
            candidate.free_bytes += at as u64 * 1_000;
            if at > 16 {
                candidate.state = ProviderState::Lost;
            }
        }
        let (at, placement) = place(&ask(), &candidates).unwrap();
        assert_eq!((at, placement.considered.len(), placement.others), (16, PLACEMENT_NODES_MAX, 12));
        assert!(placement.considered.is_sorted_by_key(|one| std::cmp::Reverse(one.score)));
        let outscored = |one: &Considered| one.verdict == Verdict::Outscored && one.score > 0;
        assert!(placement.considered[1..].iter().all(outscored));
        assert_eq!(placement.considered[0].free_bytes, 66_000);
    }
}

//! What a changing request is told apart by, however its frames were cut and whatever handles its rights have now.

use caps::id::{LeaseId, SlotHandle};
use caps::wire::Request;
use caps::wire::remote::ask::Further;
use caps::wire::remote::{Ask, Span, Verb};
use caps::wire::request::Effect;
use sha2::{Digest, Sha256};

use crate::gate::answered::Identity;
use crate::gate::visitor::Visitor;

/// Whether doing a data request again is as good as answering it again, so that it has no fingerprint and its number must
/// be nobody else's. A changing one without a fingerprint is by a handle that has no lease, and is refused as such.
pub(super) const fn only_reads(ask: &Ask<'_>) -> bool {
    matches!(ask, Ask::Read(_) | Ask::Gather(_) | Ask::Stat(_))
}

impl Visitor {
    /// Of which lease a handle is by which this session has, or had, a right. Asked of the session as well: the provider
    /// forgets a right once another one has ended in its slot, and what was asked by it may be asked again after that.
    pub(super) fn lease_of(&self, handle: SlotHandle) -> Option<LeaseId> {
        let known = self.shared.provider.lease_of(self.opener.session, handle);
        known.or_else(|| self.rights.lease_of(handle))
    }
}

/// The fingerprint of a request, as far as it has come.
#[derive(Clone)]
pub(super) struct Fingerprint {
    /// What it asks for.
    terms: Sha256,
    /// CRC32C and count of its bytes: a hash would look at them for longer than the write does.
    crc: u32,
    bytes: u64,
    /// Which of several leases the last bytes were of.
    of: Option<u32>,
}

impl Fingerprint {
    /// Of a request inside `CONTROL`; `None` unless it leaves something that outlives the connection. What it leaves with
    /// the connection, such as a handle, is of no use on another one, so there it is done again.
    pub(super) fn of_control(request: &Request, body: &[u8]) -> Option<Self> {
        (request.effect() == Effect::Lasting).then(|| Self::new(Verb::Control).and_bytes(body))
    }

    /// Of a request's first frame. `None` for one that [`only_reads`], for `CONTROL`, and for one by a handle that has no
    /// lease, which will be refused. `lease_of` says of which lease a handle is.
    pub(super) fn of(ask: &Ask<'_>, lease_of: impl Fn(SlotHandle) -> Option<LeaseId>) -> Option<Self> {
        Some(match ask {
            Ask::Control(_) | Ask::Read(_) | Ask::Gather(_) | Ask::Stat(_) => return None,
            Ask::Write { span, data } => Self::new(Verb::Write).and_place(span, &lease_of)?.and_data(data),
            Ask::Scatter { spans, data } => {
                Self::new(Verb::Scatter).and_places(spans, &lease_of).and_data(data)
            }
            Ask::Cas(swap) => Self::new(Verb::Cas)
                .and_place(&swap.word, &lease_of)?
                .and(&swap.expected().to_le_bytes())
                .and(&swap.desired().to_le_bytes()),
            Ask::FetchAdd(add) => {
                Self::new(Verb::FetchAdd).and_place(&add.word, &lease_of)?.and(&add.addend().to_le_bytes())
            }
            Ask::Create(body) => Self::new(Verb::Create).and_bytes(body),
            Ask::Delete(body) => Self::new(Verb::Delete).and_bytes(body),
        })
    }

    /// The same with a further frame.
    pub(super) fn feed(&mut self, further: &Further<'_>, lease_of: impl Fn(SlotHandle) -> Option<LeaseId>) {
        let so_far = self.clone();
        *self = match further {
            Further::Write(data) => so_far.and_data(data),
            Further::Scatter { spans, data } => so_far.and_places(spans, &lease_of).and_data(data),
            // Which bytes are of which lease, however they were cut into pieces.
            Further::Create { pieces, data } => {
                let mut rest = *data;
                pieces.iter().fold(so_far, |so_far, piece| {
                    // The frame was judged: its pieces are as long as its bytes.
                    let (own, after) = rest.split_at(rest.len().min(piece.length() as usize));
                    rest = after;
                    so_far.and_data_of(piece.index(), own)
                })
            }
        };
    }

    /// What it comes to.
    pub(super) fn identity(&self) -> Identity {
        let whole = self.clone().and(&self.bytes.to_le_bytes()).and(&self.crc.to_le_bytes());
        Identity::of_digest(whole.terms.finalize().into())
    }

    fn new(verb: Verb) -> Self {
        Self { terms: Sha256::new(), crc: 0, bytes: 0, of: None }.and(&[verb as u8])
    }

    fn and(mut self, bytes: &[u8]) -> Self {
        self.terms.update(bytes);
        self
    }

    /// Bytes of any length, which are told apart from what follows them.
    fn and_bytes(self, bytes: &[u8]) -> Self {
        self.and(&(bytes.len() as u64).to_le_bytes()).and(bytes)
    }

    fn and_place(self, span: &Span, lease_of: &impl Fn(SlotHandle) -> Option<LeaseId>) -> Option<Self> {
        let lease = lease_of(span.handle())?;
        Some(self.and(&lease.0).and(&span.offset().to_le_bytes()).and(&span.length().to_le_bytes()))
    }

    /// Places of a batch. One by a handle without a lease is refused by itself, and known by the handle.
    fn and_places(self, spans: &[Span], lease_of: &impl Fn(SlotHandle) -> Option<LeaseId>) -> Self {
        spans.iter().fold(self, |so_far, span| {
            so_far.clone().and(&[1]).and_place(span, lease_of).unwrap_or_else(|| {
                let SlotHandle { slot, epoch } = span.handle();
                let handle = so_far.and(&[0]).and(&slot.to_le_bytes()).and(&epoch.to_le_bytes());
                handle.and(&span.offset().to_le_bytes()).and(&span.length().to_le_bytes())
            })
        })
    }

    fn and_data(mut self, data: &[u8]) -> Self {
        self.crc = crc32c::crc32c_append(self.crc, data);
        self.bytes += data.len() as u64;
        self
    }

    /// Bytes of one lease of several: where another one's begin counts, and not where pieces end.
    fn and_data_of(mut self, index: u32, data: &[u8]) -> Self {
        if data.is_empty() {
            return self;
        }
        if self.of.replace(index) != Some(index) {
            let begin = self.bytes.to_le_bytes();
            self = self.and(&index.to_le_bytes()).and(&begin);
        }
        self.and_data(data)
    }
}

#[cfg(test)]
mod tests {
    use caps::wire::remote::{Add, Piece, Swap};
    use proptest::prelude::*;

    use super::*;

    const OLD: SlotHandle = SlotHandle { slot: 1, epoch: 1 };
    const NEW: SlotHandle = SlotHandle { slot: 7, epoch: 9 };
    const OTHERS: SlotHandle = SlotHandle { slot: 2, epoch: 1 };
    const NOBODYS: SlotHandle = SlotHandle { slot: 3, epoch: 1 };

    /// Two handles are of one lease: the second was opened after a reconnect.
    fn lease_of(handle: SlotHandle) -> Option<LeaseId> {
        match handle {
            OLD | NEW => Some(LeaseId([1; 16])),
            OTHERS => Some(LeaseId([2; 16])),
            _ => None,
        }
    }

    fn identity(ask: &Ask<'_>) -> Option<Identity> {
        Fingerprint::of(ask, lease_of).map(|print| print.identity())
    }

    #[test]
    fn every_part_of_a_request_counts_but_the_handle() {
        let write = |handle, offset, data: &[u8]| {
            identity(&Ask::Write { span: &Span::new(handle, offset, data.len() as u64), data })
        };
        let swap = |handle, offset, expected, desired| {
            identity(&Ask::Cas(&Swap::new(handle, offset, expected, desired)))
        };
        let add = |handle, offset, addend| identity(&Ask::FetchAdd(&Add::new(handle, offset, addend)));
        assert_eq!(write(OLD, 8, b"one"), write(NEW, 8, b"one"));
        assert_eq!(swap(OLD, 8, 1, 2), swap(NEW, 8, 1, 2));
        assert_eq!(add(OLD, 8, 1), add(NEW, 8, 1));
        let all = [
            write(OLD, 8, b"one"),
            write(OTHERS, 8, b"one"),
            write(OLD, 9, b"one"),
            write(OLD, 8, b"two"),
            write(OLD, 8, b"on"),
            swap(OLD, 8, 1, 2),
            swap(OTHERS, 8, 1, 2),
            swap(OLD, 16, 1, 2),
            swap(OLD, 8, 2, 2),
            swap(OLD, 8, 1, 1),
            add(OLD, 8, 1),
            add(OTHERS, 8, 1),
            add(OLD, 16, 1),
            add(OLD, 8, 2),
            identity(&Ask::Create(b"one")),
            identity(&Ask::Create(b"two")),
            identity(&Ask::Delete(b"one")),
            Fingerprint::of_control(&Request::RootRotate, b"one").map(|print| print.identity()),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(one.is_some(), "{at} is a changing request");
            for (other, same) in all.iter().enumerate() {
                assert_eq!(one == same, at == other, "{at} and {other}");
            }
        }
    }

    #[test]
    fn who_only_reads_or_has_no_right_has_none() {
        let span = Span::new(OLD, 0, 8);
        assert_eq!(identity(&Ask::Read(&span)), None);
        assert_eq!(identity(&Ask::Stat(&span)), None);
        assert_eq!(identity(&Ask::Gather(&[span])), None);
        let add = Add::new(NOBODYS, 0, 1);
        assert_eq!(identity(&Ask::FetchAdd(&add)), None, "it will be refused");
        assert!(Fingerprint::of_control(&Request::Status, b"one").is_none());
        let closing = Request::Close { handle: OLD };
        assert!(Fingerprint::of_control(&closing, b"one").is_none(), "it goes with the connection");
    }

    /// A scatter of one item a span, fed in frames of so many items.
    fn scatter(items: &[(SlotHandle, u64, Vec<u8>)], frame: usize) -> Identity {
        let mut print: Option<Fingerprint> = None;
        for items in items.chunks(frame) {
            let spans: Vec<_> = items
                .iter()
                .map(|(handle, offset, data)| Span::new(*handle, *offset, data.len() as u64))
                .collect();
            let data: Vec<u8> = items.iter().flat_map(|(.., data)| data.clone()).collect();
            match &mut print {
                None => print = Fingerprint::of(&Ask::Scatter { spans: &spans, data: &data }, lease_of),
                Some(print) => print.feed(&Further::Scatter { spans: &spans, data: &data }, lease_of),
            }
        }
        print.unwrap().identity()
    }

    proptest! {
        /// However the bytes of a write are cut into frames, it is the same write.
        #[test]
        fn a_write_is_the_same_however_it_is_cut(
            data in prop::collection::vec(any::<u8>(), 2..400),
            cuts in prop::collection::vec(1_usize..50, 1..10),
        ) {
            let span = Span::new(OLD, 5, data.len() as u64);
            let whole = identity(&Ask::Write { span: &span, data: &data }).unwrap();
            let (mut rest, mut print) = (&data[..], None::<Fingerprint>);
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at(rest.len().min(*cut));
                match &mut print {
                    None => print = Fingerprint::of(&Ask::Write { span: &span, data: now }, lease_of),
                    Some(print) => print.feed(&Further::Write(now), lease_of),
                }
                rest = later;
                if rest.is_empty() { break; }
            }
            prop_assert_eq!(print.unwrap().identity(), whole);
        }

        /// The items of a scatter are told apart, and frames are not.
        #[test]
        fn a_scatter_is_the_same_however_it_is_cut(
            items in prop::collection::vec(
                (prop_oneof![Just(OLD), Just(OTHERS), Just(NOBODYS)], 0_u64..100, prop::collection::vec(any::<u8>(), 0..20)),
                1..20,
            ),
            (one, other) in (1_usize..20, 1_usize..20),
            (at, flip) in (any::<prop::sample::Index>(), any::<bool>()),
        ) {
            prop_assert_eq!(scatter(&items, one), scatter(&items, other));
            let mut changed = items.clone();
            let item = at.get_mut(&mut changed);
            if flip { item.1 += 1 } else { item.2.push(1) };
            prop_assert_ne!(scatter(&changed, one), scatter(&items, one));
        }

        /// Which byte is of which lease counts, and where the pieces end does not.
        #[test]
        fn first_bytes_are_the_same_however_they_are_cut(
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..6),
            (one, other) in (1_usize..30, 1_usize..30),
            moved in any::<prop::sample::Index>(),
        ) {
            let print = |values: &[Vec<u8>], piece: usize| {
                let mut print = Fingerprint::of(&Ask::Create(b"terms"), lease_of).unwrap();
                for (index, value) in values.iter().enumerate() {
                    for data in value.chunks(piece) {
                        let pieces = [Piece::new(index as u32, None, data.len() as u64)];
                        print.feed(&Further::Create { pieces: &pieces, data }, lease_of);
                    }
                }
                print.identity()
            };
            prop_assert_eq!(print(&values, one), print(&values, other));
            // The last byte of one value becomes the first of the next: the same bytes, of other leases.
            let from = moved.index(values.len());
            let mut changed = values.clone();
            changed.push(vec![]);
            if let Some(byte) = changed[from].pop() {
                changed[from + 1].insert(0, byte);
                prop_assert_ne!(print(&changed, one), print(&values, one));
            }
        }
    }
}

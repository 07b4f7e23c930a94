//! Tokens in the wrong hands: stolen, replayed, delegated by who may not, revoked above, of an earlier life. Each
//! attacker has a session and a key of its own, as registered as anybody.

use caps::error::{Code, Result};
use caps::key::SigningKey;
use caps::rights::Rights;
use caps::token::{Narrow, Token, attenuate, delegate, forge, seal};
use caps::wire::request::LeaseSpec;
use caps::wire::row::{LeaseRow, Lifetime, Revocation, Target};
use caps::wire::{FrameKind, Name, Reason, Reply, Request, frame};
use libmem::ShareOptions;

use super::bed::{Bed, Logged};
use super::node::Node;
use super::wire::{Raw, spec};

/// The secret that signs the block after a forged one.
const NEXT: [u8; 32] = [9; 32];

fn nothing() -> Narrow {
    Narrow::default()
}

/// A registered person.
struct Person {
    key: SigningKey,
    raw: Raw,
}

impl Person {
    fn new(node: &Node, name: &str) -> Self {
        let key = SigningKey::generate();
        let (mut admin, _) = Raw::session(&node.socket(), &node.admin()).unwrap();
        let add = Request::PrincipalAdd { name: Name::new(name).unwrap(), key: key.public() };
        assert!(matches!(admin.ask(&add), Ok(Reply::Done)));
        let (raw, _) = Raw::session(&node.socket(), &key).unwrap();
        Self { key, raw }
    }

    /// Leases a page that may be delegated.
    fn lease(&mut self) -> (LeaseRow, Token) {
        match self.raw.ask(&Request::LeaseCreate(LeaseSpec { max_hops: 3, ..spec(4096) })) {
            Ok(Reply::Leased { lease, token }) => (lease, token),
            other => panic!("{other:?}"),
        }
    }

    /// Shares a lease; the receiver may delegate on.
    fn share(&mut self, bed: &Bed, lease: &LeaseRow, to: &mut Self) -> (Target, Token) {
        let options = ShareOptions::new(to.key.public(), Rights::READ_WRITE).max_hops(2);
        let contract = options.contract(bed.welcome.cluster, lease).unwrap();
        let offer = Request::ShareOffer { contract, signature: contract.sign(&self.key) };
        assert!(matches!(self.raw.ask(&offer), Ok(Reply::Shared(_))));
        let (grant, signature) = (contract.grant, contract.sign(&to.key));
        match to.raw.ask(&Request::ShareAccept { grant, signature, lifetime: Lifetime::Detached }) {
            Ok(Reply::Accepted { token, .. }) => (Target::Grant(grant), token),
            other => panic!("{other:?}"),
        }
    }

    fn delegate(&self, token: &Token, to: &Self) -> Token {
        delegate(token, &self.key, to.key.public(), &nothing()).unwrap()
    }

    fn revoke(&mut self, target: Target) -> Result<Reply> {
        self.raw.ask(&Request::Revoke(Revocation { target, reason: Reason::default() }))
    }

    /// Opens a token, and closes it again; the code of a refusal.
    fn try_open(&mut self, token: &Token) -> Result<(), Code> {
        let opened = self.raw.open(token, Rights::READ).map_err(|error| error.code())?;
        self.raw.ask(&Request::Close { handle: opened.handle }).unwrap();
        Ok(())
    }

    /// A row: this person opens `bytes` again and again, is refused with `code`, and the session goes on.
    fn refused(&mut self, bed: &mut Bed, row: &str, code: Code, bytes: &[u8]) {
        let token = Token::from_bytes(bytes.to_vec()).unwrap();
        let raw = &mut self.raw;
        bed.row_with(row, code, Logged::Entry, 1_000, &mut |_| {
            raw.open(&token, Rights::READ).unwrap_err().code()
        });
        assert!(raw.ask(&Request::Status).is_ok(), "{row}: the session goes on");
    }
}

#[test]
fn b14_a_stolen_token_without_its_holders_key() {
    let mut bed = Bed::new("");
    let [mut owner, mut bob, mut thief] = ["owner", "bob", "thief"].map(|name| Person::new(&bed.node, name));
    let (_, token) = owner.lease();
    let bobs = owner.delegate(&token, &bob);
    assert_eq!((owner.try_open(&token), bob.try_open(&bobs)), (Ok(()), Ok(())), "each holder may");
    // As it was stolen, sealed, narrowed by the thief; the delegated one; and the owner, who is its holder no more.
    let narrow = Narrow { rights: Some(Rights::READ), ..nothing() };
    for (row, stolen) in [
        ("stolen", token.clone()),
        ("stolen and sealed", seal(&token).unwrap()),
        ("stolen and narrowed", attenuate(&token, &narrow).unwrap()),
        ("stolen on its way to bob", bobs.clone()),
    ] {
        thief.refused(&mut bed, &format!("B14 {row}"), Code::TokenBound, stolen.as_bytes());
    }
    bob.refused(&mut bed, "B14 the owner's token", Code::TokenBound, token.as_bytes());
    owner.refused(&mut bed, "B14 the receiver's token", Code::TokenBound, bobs.as_bytes());
    assert_eq!((owner.try_open(&token), bob.try_open(&bobs)), (Ok(()), Ok(())), "and still may");
    bed.finish();
}

#[test]
fn h3_h4_the_receivers_messages_on_another_connection() {
    let mut bed = Bed::new("");
    let [mut owner, bob] = ["owner", "bob"].map(|name| Person::new(&bed.node, name));
    let (_, token) = owner.lease();
    let bobs = owner.delegate(&token, &bob);
    let path = bed.node.socket();
    // All that bob says in a session, as somebody on its way would record it: hello, proof, open.
    let nonce = caps::pop::Nonce::random();
    let packet =
        |id, request: &Request| frame::encode(FrameKind::Request, caps::id::RequestId(id), request).unwrap();
    let hello = packet(1, &Request::Hello { holder: bob.key.public(), nonce });
    let session = Raw::connect(&path).unwrap();
    session.send(&hello).unwrap();
    let Ok(Reply::Challenge { node, nonce: server }) = session.answer() else { panic!("a challenge") };
    let transcript = caps::pop::Transcript { node, server, client: nonce, holder: bob.key.public() };
    let proof = packet(2, &Request::Prove { signature: transcript.sign(&bob.key) });
    session.send(&proof).unwrap();
    assert!(matches!(session.answer(), Ok(Reply::Welcome(_))), "for bob it opens the session");
    let open = Request::Open { token: bobs, rights: Rights::READ, path: caps::wire::request::Path::Mediated };
    let open = packet(3, &open);
    session.send(&open).unwrap();
    assert!(matches!(session.answer(), Ok(Reply::Opened(_))));
    bed.row("H3 a session again", Code::Possession, Logged::Gathered, |bed| {
        let raw = Raw::connect(&bed.node.socket()).unwrap();
        raw.send(&hello).unwrap();
        assert!(matches!(raw.answer(), Ok(Reply::Challenge { nonce, .. }) if nonce != server));
        let code = raw.code_of(&proof);
        assert!(raw.is_ended(), "what follows is not even read");
        code
    });
    // Without a proof of this connection's own, an open is nobody's.
    bed.row("H3 an open before the proof", Code::Protocol, Logged::Gathered, |bed| {
        Raw::connect(&bed.node.socket()).unwrap().code_of(&open)
    });
    // Two connections at once: the proof of one is none on the other.
    bed.row("H4 a proof of a session that lives", Code::Possession, Logged::Gathered, |bed| {
        let (mut one, mut other) =
            (Raw::connect(&bed.node.socket()).unwrap(), Raw::connect(&bed.node.socket()).unwrap());
        let signature = one.hello(bob.key.public()).unwrap().sign(&bob.key);
        other.hello(bob.key.public()).unwrap();
        other.refusal(&Request::Prove { signature })
    });
    assert!(session.send(&packet(4, &Request::Status)).is_ok() && session.answer().is_ok(), "bob's goes on");
    bed.finish();
}

#[test]
fn b6_b7_delegations_by_who_is_not_the_holder() {
    let mut bed = Bed::new("");
    let [mut owner, mut bob, mut thief] = ["owner", "bob", "thief"].map(|name| Person::new(&bed.node, name));
    let (_, token) = owner.lease();
    let narrow = Narrow { rights: Some(Rights::READ), ..nothing() };
    let bobs = delegate(&token, &owner.key, bob.key.public(), &narrow).unwrap();
    assert_eq!(bob.try_open(&bobs), Ok(()));
    let block = |token: &Token| forge::blocks(token.as_bytes()).unwrap().pop().unwrap();
    // What the owner would write to name the thief, and what bob would.
    let to_thief = block(&owner.delegate(&token, &thief));
    let (thiefs, owners) = (thief.key.seed(), owner.key.seed());
    for (row, parent, signer) in [
        ("a thief of the owner's token", &token, &thiefs),
        ("a thief of bob's token", &bobs, &thiefs),
        ("the owner, who gave it away", &bobs, &owners),
    ] {
        let forged = forge::append_raw(parent.as_bytes(), &to_thief, Some(signer), &NEXT).unwrap();
        thief.refused(&mut bed, &format!("delegated by {row}"), Code::TokenSignature, &forged);
    }
    let unsigned = forge::append_raw(bobs.as_bytes(), &to_thief, None, &NEXT).unwrap();
    thief.refused(&mut bed, "B7 a delegation that nobody signed", Code::TokenProfile, &unsigned);
    // Bob is the holder, and signs himself what the owner took away: a right, and the whole range.
    let fact = |name: u8, terms: &[u8]| {
        let predicate = [&[0x08, name], terms].concat();
        let fact = [&[0x0a, predicate.len() as u8], &predicate[..]].concat();
        [&[0x18, 0x05, 0x22, fact.len() as u8], &fact[..]].concat()
    };
    for (row, block) in [
        ("right(\"write\")", fact(4, &[0x12, 0x02, 0x18, 0x01])),
        ("time(0)", fact(5, &[0x12, 0x02, 0x10, 0x00])),
    ] {
        let forged = forge::append_raw(bobs.as_bytes(), &block, Some(&bob.key.seed()), &NEXT).unwrap();
        bob.refused(&mut bed, &format!("B7 bob states {row}"), Code::TokenProfile, &forged);
    }
    assert_eq!(
        bob.raw.open(&bobs, Rights::READ_WRITE).unwrap_err().code(),
        Code::Denied,
        "narrowed on its way"
    );
    // B6: the seal of one token under the blocks of another, and the secret of one under those of the other.
    let sealed = seal(&token).unwrap();
    let (seal, secret) = (68, 36);
    let end = |bytes: &[u8], length: usize| bytes[bytes.len() - length..].to_vec();
    let body = |bytes: &[u8], length: usize| bytes[..bytes.len() - length].to_vec();
    let extended = [body(bobs.as_bytes(), secret), end(sealed.as_bytes(), seal)].concat();
    bob.refused(&mut bed, "B6 sealed and extended", Code::TokenSignature, &extended);
    let opened = [body(sealed.as_bytes(), seal), end(bobs.as_bytes(), secret)].concat();
    owner.refused(&mut bed, "B6 unsealed", Code::TokenSignature, &opened);
    assert_eq!((owner.try_open(&token), bob.try_open(&bobs)), (Ok(()), Ok(())));
    bed.finish();
}

#[test]
fn a_delegation_replayed_to_another_token_or_position() {
    let mut bed = Bed::new("");
    let [mut owner, mut bob] = ["owner", "bob"].map(|name| Person::new(&bed.node, name));
    let ((_, first), (_, second)) = (owner.lease(), owner.lease());
    let bobs = owner.delegate(&first, &bob);
    assert_eq!(bob.try_open(&bobs), Ok(()));
    let replayed = |onto: &Token| forge::replay(onto.as_bytes(), bobs.as_bytes(), &NEXT).unwrap();
    bob.refused(&mut bed, "replayed to another lease", Code::TokenSignature, &replayed(&second));
    let narrowed = attenuate(&first, &Narrow { rights: Some(Rights::READ), ..nothing() }).unwrap();
    bob.refused(&mut bed, "replayed to another position", Code::TokenSignature, &replayed(&narrowed));
    // After itself: the owner is the holder no more.
    bob.refused(&mut bed, "replayed after itself", Code::TokenSignature, &replayed(&bobs));
    // To its own parent it is what the owner wrote, and says no more.
    let again = Token::from_bytes(replayed(&first)).unwrap();
    assert_eq!((bob.try_open(&bobs), bob.try_open(&again)), (Ok(()), Ok(())));
    bed.finish();
}

#[test]
fn b15_a_delegation_appended_again_after_its_grant_was_revoked() {
    let mut bed = Bed::new("");
    let [mut owner, mut bob, mut carol] = ["owner", "bob", "carol"].map(|name| Person::new(&bed.node, name));
    let (lease, token) = owner.lease();
    let (grant, bobs) = owner.share(&bed, &lease, &mut bob);
    let carols = bob.delegate(&bobs, &carol);
    assert_eq!((bob.try_open(&bobs), carol.try_open(&carols)), (Ok(()), Ok(())));
    let handle = carol.raw.open(&carols, Rights::READ).unwrap().handle;
    assert!(matches!(owner.revoke(grant), Ok(Reply::Receipt(_))));
    assert_eq!(carol.raw.read(handle, 0, 1).unwrap_err().code(), Code::Revoked, "what was open died");
    bob.refused(&mut bed, "B15 the grant", Code::TokenRevoked, bobs.as_bytes());
    carol.refused(&mut bed, "B15 below the grant", Code::TokenRevoked, carols.as_bytes());
    // Bob's signed block again, with a fresh block signature; and signed anew.
    let again = forge::replay(bobs.as_bytes(), carols.as_bytes(), &NEXT).unwrap();
    assert_ne!(again, carols.as_bytes());
    carol.refused(&mut bed, "B15 appended again", Code::TokenRevoked, &again);
    let anew = bob.delegate(&bobs, &carol);
    carol.refused(&mut bed, "B15 signed anew", Code::TokenRevoked, anew.as_bytes());
    // What lives above the grant lives on, and can be given anew.
    assert_eq!(owner.try_open(&token), Ok(()));
    let anew = owner.delegate(&token, &carol);
    assert_eq!(carol.try_open(&anew), Ok(()), "from a parent that lives");
    bed.finish();
}

#[test]
fn b15_i4_a_parent_revoked_while_its_children_are_opened() {
    let mut bed = Bed::new("");
    let [mut owner, mut bob, mut carol] = ["owner", "bob", "carol"].map(|name| Person::new(&bed.node, name));
    let mut last = None;
    for _ in 0..20 {
        let (lease, token) = owner.lease();
        let bobs = owner.delegate(&token, &bob);
        let carols = bob.delegate(&bobs, &carol);
        let opened = std::sync::Barrier::new(3);
        std::thread::scope(|scope| {
            for (person, token) in [(&mut bob, &bobs), (&mut carol, &carols)] {
                let opened = &opened;
                scope.spawn(move || {
                    person.try_open(token).unwrap();
                    opened.wait();
                    let code = loop {
                        match person.raw.open(token, Rights::READ) {
                            Ok(_) => {}
                            // It is taken back elsewhere too, or ended while it was being opened: the next one says.
                            Err(error) if [Code::Busy, Code::Revoked].contains(&error.code()) => {
                                std::thread::yield_now();
                            }
                            Err(error) => break error.code(),
                        }
                    };
                    assert_eq!(code, Code::TokenRevoked);
                });
            }
            opened.wait();
            assert!(matches!(owner.revoke(Target::Lease(lease.id)), Ok(Reply::Receipt(_))));
        });
        match owner.raw.ask(&Request::LeaseShow { lease: lease.id }) {
            Ok(Reply::Lease { memory: None, .. }) | Err(_) => {}
            Ok(Reply::Lease { memory: Some(memory), .. }) => assert_eq!(memory.opens, 0, "no orphan"),
            other => panic!("{other:?}"),
        }
        last = Some(carols);
    }
    carol.refused(&mut bed, "B15 a revoked parent", Code::TokenRevoked, last.unwrap().as_bytes());
    bed.finish();
}

#[test]
fn h4_h6_tokens_and_answers_of_an_earlier_life_and_of_another_node_of_the_name() {
    let mut node = Node::start("");
    let mut mallory = Person::new(&node, "mallory");
    let (_, token) = mallory.lease();
    let handle = mallory.raw.open(&token, Rights::READ).unwrap().handle;
    assert!(mallory.raw.read(handle, 0, 1).is_ok());
    let proof = Raw::connect(&node.socket()).unwrap().hello(mallory.key.public()).unwrap().sign(&mallory.key);

    // The same directory and keys, another life.
    node.again(|_| {});
    let mut later = Person::new(&node, "later");
    let (lease, fresh) = later.lease();
    assert_eq!(later.try_open(&fresh), Ok(()));
    for key in [&mallory.key, &later.key] {
        let (mut raw, _) = Raw::session(&node.socket(), key).unwrap();
        let code = raw.open(&token, Rights::READ).unwrap_err().code();
        // Whoever is not its holder learns nothing but that.
        assert_eq!(code, if key.public() == mallory.key.public() { Code::Epoch } else { Code::TokenBound });
        assert_eq!(
            raw.read(handle, 0, 1).unwrap_err().code(),
            Code::Revoked,
            "an open right of an earlier life"
        );
    }
    let mut raw = Raw::connect(&node.socket()).unwrap();
    raw.hello(mallory.key.public()).unwrap();
    assert_eq!(raw.refusal(&Request::Prove { signature: proof }), Code::Possession);

    // Destroyed and made again under the same name: another root key.
    node.again(|dir| {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
        }
    });
    let mut stranger = Person::new(&node, "later");
    for old in [&token, &fresh] {
        assert_eq!(stranger.try_open(old), Err(Code::TokenUnknownKey));
    }
    assert!(stranger.raw.ask(&Request::LeaseShow { lease: lease.id }).is_err());
    let (_, own) = stranger.lease();
    assert_eq!(stranger.try_open(&own), Ok(()));
    let entries = node.stop();
    assert!(
        entries.iter().any(|entry| entry.contains("\"code\":\"E_TOKEN_UNKNOWN_KEY\"")),
        "it is in the log"
    );
}

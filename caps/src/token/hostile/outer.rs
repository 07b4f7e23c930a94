//! What is wrong with the outer half: bytes that are no token, other encodings, signatures, keys and holders.

use super::datalog::{Block, FREE, LESS, TIME, Term, check, compared, fact, timed, variable};
use super::{Set, appended};
use crate::error::{Code, Result};
use crate::limits::{TOKEN_BLOCKS_MAX, TOKEN_BYTES_MAX, TOKEN_HOPS_MAX};
use crate::rights::Rights;
use crate::token::sample::{self, NEXT_SEED, ROOT_SEED, owned, person, seed};
use crate::token::{Narrow, RootKey, Token, forge, gate, seal};

fn last_block(token: &[u8]) -> Result<Vec<u8>> {
    Ok(forge::blocks(token)?.pop().unwrap_or_default())
}

/// `bytes` with the only `old` in it replaced.
fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let at = bytes.windows(old.len()).position(|window| window == old).expect("the bytes are there");
    [&bytes[..at], new, &bytes[at + old.len()..]].concat()
}

/// A narrowing block that passes the gate.
fn narrowing() -> Result<Vec<u8>> {
    let narrow = Narrow { rights: Some(Rights::READ), ..Narrow::default() };
    last_block(forge::attenuate(&owned()?, &narrow, &[9; 32])?.as_bytes())
}

/// A block that names person `to`.
fn delegation(from: u8, to: u8) -> Result<Vec<u8>> {
    let token = sample::delegated(from, |_| Ok(Narrow::default()))?;
    let child = forge::delegate(&token, &person(from), person(to).public(), &Narrow::default(), &[9; 32])?;
    last_block(child.as_bytes())
}

impl Set {
    pub(super) fn no_tokens(&mut self) -> Result<()> {
        use Code::{TokenMalformed, TokenTooBig};
        let token = owned()?;
        let bytes = token.as_bytes();
        self.add("nothing", TokenMalformed, Vec::new());
        self.add("one byte", TokenMalformed, vec![0xff]);
        self.add("4 KiB of 0xff", TokenMalformed, vec![0xff; 4096]);
        self.add("a byte too many", TokenTooBig, vec![0xff; TOKEN_BYTES_MAX + 1]);
        self.add("nearly a frame", TokenTooBig, vec![0; 127 << 10]);
        self.add("cut in a block", TokenMalformed, bytes[..bytes.len() / 2].to_vec());
        self.add("cut before its proof", TokenMalformed, bytes[..bytes.len() - 36].to_vec());
        self.add("cut by a byte", TokenMalformed, bytes[..bytes.len() - 1].to_vec());
        self.add("a length beyond the end", TokenMalformed, vec![0x12, 0x7f, 1]);
        self.add("a length of 2^31", TokenMalformed, vec![0x12, 0x80, 0x80, 0x80, 0x80, 0x08]);
        let huge = [0x12, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
        self.add("a length of 2^63", TokenMalformed, huge.to_vec());
        let mut nine = bytes.to_vec();
        for _ in 0..TOKEN_BLOCKS_MAX {
            nine = match forge::append_raw(&nine, &narrowing()?, None, &[9; 32]) {
                Ok(more) => more,
                // The forge reads nine blocks no more than the gate does: this is the ninth.
                Err(_) => break,
            };
        }
        self.add("nine blocks", TokenTooBig, nine);
        Ok(())
    }

    pub(super) fn other_encodings(&mut self) -> Result<()> {
        use Code::{TokenMalformed, TokenNoncanonical, TokenProfile, TokenVersion};
        let (token, block) = (owned()?, narrowing()?);
        let bytes = token.as_bytes();
        self.add("a byte after its end", TokenNoncanonical, [bytes, &[0]].concat());
        self.add("an unknown field", TokenNoncanonical, [bytes, &[0xf8, 0x01, 0x01]].concat());
        self.add("a tag in two bytes", TokenNoncanonical, [&[0x88, 0x00], &bytes[1..]].concat());
        let unknown = [&block[..], &[0xf8, 0x01, 0x01]].concat();
        self.add("an unknown field in a block", TokenNoncanonical, appended(&unknown)?);
        let long = [&[0x18, 0x83, 0x00], &block[2..]].concat();
        self.add("a version in two bytes", TokenNoncanonical, appended(&long)?);
        for (name, version) in [
            ("block version 2", 2),
            ("block version 6", 6),
            ("block version 7", 7),
            ("block version 2^32-1", u64::from(u32::MAX)),
        ] {
            self.append(name, TokenVersion, &Block { version: Some(version), ..Block::new() })?;
        }
        self.append("a block without a version", TokenVersion, &Block { version: None, ..Block::new() })?;
        for (name, symbol) in [
            ("a symbol with a NUL", &b"re\0ad"[..]),
            ("a symbol that is no text", b"\xff\xfe"),
            ("a symbol that reads backwards", "\u{202e}daer".as_bytes()),
            ("a symbol that ends a log line", b"a\nb"),
            ("a symbol of 65 bytes", &[b'a'; 65]),
        ] {
            self.append(name, TokenProfile, &Block { symbols: vec![symbol.to_vec()], ..Block::new() })?;
        }
        let named = |name| Block {
            checks: vec![check(vec![fact(name, variable(name))], Vec::new())],
            ..Block::new()
        };
        self.append("a symbol that no table has", TokenMalformed, &named(FREE + 1))?;
        let twice = Block { symbols: vec![b"lease".to_vec()], ..named(FREE) };
        self.append("a symbol that the table has", TokenMalformed, &twice)?;
        let unused = Block { symbols: vec![b"smuggled".to_vec()], ..named(FREE) };
        self.append("a symbol in a check of its own", TokenProfile, &unused)
    }

    pub(super) fn other_signatures(&mut self) -> Result<()> {
        use Code::{TokenAlgorithm, TokenSignature, TokenUnknownKey, TokenVersion};
        let (token, terms, root) = (owned()?, sample::terms()?, sample::root());
        let bytes = token.as_bytes();
        let stranger = forge::mint(&RootKey::from_seed(&[42; 32]), &terms, &NEXT_SEED)?;
        self.add("another root key", TokenUnknownKey, stranger.as_bytes().to_vec());
        let authority = forge::blocks(bytes)?.swap_remove(0);
        let claimed = forge::mint_raw(&[42; 32], Some(root.id()), &authority, &NEXT_SEED);
        self.add("another root key under the id of ours", TokenSignature, claimed);
        let nameless = forge::mint_raw(&ROOT_SEED, None, &authority, &NEXT_SEED);
        self.add("no root key id", TokenUnknownKey, nameless);

        let verified = gate(bytes)?.verify(&sample::keys()?)?;
        let signature = verified.revocation_ids()[0].0;
        self.add("a signature of zeros", TokenSignature, replaced(bytes, &signature, &[0; 64]));
        let mut unreduced = signature;
        // S + L: the same scalar, not reduced.
        let order = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mut carry = 0;
        for (byte, order) in unreduced[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + order + carry;
            (*byte, carry) = (sum as u8, sum >> 8);
        }
        self.add("a signature that is not reduced", TokenSignature, replaced(bytes, &signature, &unreduced));
        let next = crate::key::SigningKey::from_seed(&NEXT_SEED).public().0;
        self.add("a next key of small order", TokenSignature, replaced(bytes, &next, &[0; 32]));
        let (ed25519, p256) =
            ([&[0x08, 0x00, 0x12, 0x20], &next[..]], [&[0x08, 0x01, 0x12, 0x20], &next[..]]);
        let p256 = replaced(bytes, &ed25519.concat(), &p256.concat());
        self.add("a next key of P-256", TokenAlgorithm, p256);

        let child = forge::append_raw(bytes, &narrowing()?, None, &[8; 32])?;
        self.add_genuine("a proof of another block", replaced(&child, &[8; 32], &NEXT_SEED));
        let sealed = seal(&token)?;
        let (body, proof) = (&child[..child.len() - 36], &sealed.as_bytes()[sealed.as_bytes().len() - 68..]);
        self.add_genuine("a seal of another block", [body, proof].concat());
        let delegated = sample::delegated(1, |_| Ok(Narrow::default()))?;
        // Field 5, the signature's version, is the last of a block: 1 becomes 2.
        let bytes = delegated.as_bytes();
        let at = bytes.len() - 37;
        let mut versioned = bytes.to_vec();
        versioned[at] = 2;
        self.add("a signature version that is none", TokenVersion, versioned);
        Ok(())
    }

    pub(super) fn other_holders(&mut self) -> Result<()> {
        use Code::{TokenProfile, TokenSignature};
        let token = owned()?;
        let bytes = token.as_bytes();
        let block = delegation(0, 2)?;
        let thief = forge::append_raw(bytes, &block, Some(&seed(2)), &[9; 32])?;
        self.add("a thief who delegates to himself", TokenSignature, thief);
        self.add("a delegation without a signature", TokenProfile, appended(&block)?);
        let delegated = sample::delegated(1, |_| Ok(Narrow::default()))?;
        let other = forge::mint(&sample::root(), &sample::terms()?, &[77; 32])?;
        let other = forge::replay(other.as_bytes(), delegated.as_bytes(), &[9; 32])?;
        self.add_genuine("a delegation of another token", other);
        let later = forge::replay(&appended(&narrowing()?)?, delegated.as_bytes(), &[9; 32])?;
        self.add_genuine("a delegation at another position", later);
        let former = forge::append_raw(delegated.as_bytes(), &block, Some(&seed(0)), &[9; 32])?;
        self.add("a delegation by a former holder", TokenSignature, former);
        let mut two = Block { version: Some(5), symbols: vec![b"delegate".to_vec()], ..Block::default() };
        two.facts = [1, 2].map(|to| fact(1024, Term::Bytes(person(to).public().0.to_vec()))).to_vec();
        let two = forge::append_raw(bytes, &two.bytes(), Some(&seed(0)), &[9; 32])?;
        self.add("two next holders", TokenProfile, two);
        let mut weak = Block { version: Some(5), symbols: vec![b"delegate".to_vec()], ..Block::default() };
        weak.facts = vec![fact(1024, Term::Bytes(vec![0; 32]))];
        let weak = forge::append_raw(bytes, &weak.bytes(), Some(&seed(0)), &[9; 32])?;
        self.add("a next holder of small order", TokenSignature, weak);
        Ok(())
    }

    /// What takes longest to refuse.
    pub(super) fn costly_signatures(&mut self) -> Result<()> {
        use Code::{TokenProfile, TokenSignature};
        // Everything in the longest chain is read before the last check of its last block is found to be none.
        let seven = sample::delegated(TOKEN_HOPS_MAX - 1, |_| Ok(Narrow::default()))?;
        let mut filled = last_block(sample::longest()?.as_bytes())?;
        filled.extend(timed(compared(variable(TIME), Term::Date(5), LESS)).bytes().split_off(2));
        let holder = seed(TOKEN_HOPS_MAX - 1);
        let read = forge::append_raw(seven.as_bytes(), &filled, Some(&holder), &[9; 32])?;
        self.add("a long chain that ends outside the vocabulary", TokenProfile, read);
        let longest = sample::longest()?;
        // One bit of the scalar: the signature stays well formed, so that all of it is computed.
        let flipped = |token: &Token, from_end: usize| {
            let mut bytes = token.as_bytes().to_vec();
            let at = bytes.len() - from_end;
            bytes[at] ^= 1;
            bytes
        };
        self.add_genuine("a long chain with another last secret", flipped(&longest, 1));
        self.add_genuine("a long chain with a wrong seal", flipped(&seal(&longest)?, 32));
        let stranger = forge::blocks(longest.as_bytes())?.into_iter().enumerate().try_fold(
            Vec::new(),
            |token, (number, block)| match number {
                0 => Ok(forge::mint_raw(&[42; 32], Some(sample::root().id()), &block, &NEXT_SEED)),
                _ => forge::append_raw(&token, &block, Some(&seed(number as u8 - 1)), &[9; 32]),
            },
        )?;
        self.add("a long chain under another root key", TokenSignature, stranger);
        Ok(())
    }
}

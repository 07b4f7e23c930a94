//! A second verifier, written from `vectors/README.md` alone: no line of the crate's own is used here. It reads honest
//! tokens and does not defend itself against hostile ones; whatever it does not expect is a panic of the test.

mod datalog;
mod proto;

use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

pub(crate) use datalog::{Says, Terms};
use proto::{bytes, number, optional, repeated};

/// What a token says, block by block, and who vouches for it.
pub(crate) struct Token {
    pub(crate) root_id: u32,
    pub(crate) terms: Terms,
    pub(crate) blocks: Vec<Block>,
    pub(crate) sealed: bool,
    signed: Vec<Signed>,
    proof: Vec<u8>,
}

pub(crate) struct Block {
    pub(crate) says: Says,
    pub(crate) signature: Vec<u8>,
    pub(crate) delegation: Option<Delegation>,
}

pub(crate) struct Delegation {
    pub(crate) from: [u8; 32],
    pub(crate) to: [u8; 32],
    pub(crate) signature: Vec<u8>,
}

/// A block as the token holds it.
struct Signed {
    content: Vec<u8>,
    next: [u8; 32],
    signature: Vec<u8>,
    external: Option<(Vec<u8>, [u8; 32])>,
    version: u64,
}

/// Why a token is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disbelief {
    UnknownKey,
    Signature,
}

fn key(message: &[u8]) -> [u8; 32] {
    assert_eq!(number(message, 1), 0, "Ed25519");
    bytes(message, 2).try_into().expect("a key of 32 bytes")
}

impl Signed {
    fn read(message: &[u8]) -> Self {
        let external = optional(message, 4);
        Self {
            content: bytes(message, 1).to_vec(),
            next: key(bytes(message, 2)),
            signature: bytes(message, 3).to_vec(),
            external: external.map(|external| (bytes(external, 1).to_vec(), key(bytes(external, 2)))),
            version: repeated(message, 5).next().map_or(0, |_| number(message, 5)),
        }
    }
}

impl Token {
    /// `None` if the token names no root key.
    pub(crate) fn read(token: &[u8]) -> Option<Self> {
        repeated(token, 1).next()?;
        let signed: Vec<_> = std::iter::once(bytes(token, 2))
            .chain(repeated(token, 3).map(proto::Field::bytes))
            .map(Signed::read)
            .collect();
        let mut symbols = Vec::new();
        let terms = datalog::authority(&signed[0].content, &mut symbols);
        let blocks = signed.iter().enumerate().map(|(index, block)| {
            let (says, delegation) = match &block.external {
                None if index == 0 => (terms.check(), None),
                None => (datalog::narrowing(&block.content, &mut symbols), None),
                Some((signature, from)) => {
                    let (to, says) = datalog::delegation(&block.content);
                    (says, Some(Delegation { from: *from, to, signature: signature.clone() }))
                }
            };
            Block { says, signature: block.signature.clone(), delegation }
        });
        let blocks = blocks.collect();
        let proof = bytes(token, 4);
        let sealed = optional(proof, 1).is_none();
        let proof = bytes(proof, if sealed { 2 } else { 1 }).to_vec();
        Some(Self { root_id: number(token, 1) as u32, terms, blocks, sealed, signed, proof })
    }

    /// Every signature under one of `roots` (ids and keys), and the chain of holders.
    pub(crate) fn verify(&self, roots: &[(u32, [u8; 32])]) -> Result<(), Disbelief> {
        let root = roots.iter().find(|(id, _)| *id == self.root_id).ok_or(Disbelief::UnknownKey)?;
        let (mut signer, mut chained, mut holder) = (root.1, false, self.terms.holder);
        sound(&holder)?;
        for (index, block) in self.signed.iter().enumerate() {
            let before = index.checked_sub(1).map(|before| &self.signed[before].signature);
            if let (Some((signature, from)), Some(before)) = (&block.external, before) {
                let version = 1u32.to_le_bytes();
                let message = [
                    b"\0EXTERNAL\0\0VERSION\0",
                    &version[..],
                    b"\0PAYLOAD\0",
                    &block.content,
                    b"\0PREVSIG\0",
                    before,
                ];
                verify(from, &message.concat(), signature)?;
                if *from != holder {
                    return Err(Disbelief::Signature);
                }
                holder = self.blocks[index].delegation.as_ref().expect("it has an external signature").to;
                sound(&holder)?;
            }
            chained |= block.external.is_some();
            assert_eq!(block.version, u64::from(chained));
            sound(&block.next)?;
            verify(&signer, &block.message(chained, before), &block.signature)?;
            signer = block.next;
        }
        let last = self.signed.last().expect("an authority block");
        if self.sealed {
            let algorithm = 0u32.to_le_bytes();
            verify(
                &signer,
                &[&last.content, &algorithm[..], &last.next, &last.signature].concat(),
                &self.proof,
            )
        } else {
            let secret = self.proof[..].try_into().expect("a secret of 32 bytes");
            let own = SigningKey::from_bytes(secret).verifying_key().to_bytes() == signer;
            own.then_some(()).ok_or(Disbelief::Signature)
        }
    }

    /// Everybody who has held it, the last one at the end.
    pub(crate) fn holders(&self) -> Vec<[u8; 32]> {
        let after = self.blocks.iter().filter_map(|block| Some(block.delegation.as_ref()?.to));
        std::iter::once(self.terms.holder).chain(after).collect()
    }

    /// What must not have been revoked, up to block `last`.
    pub(crate) fn marks(&self, last: usize) -> Vec<[u8; 32]> {
        let blocks = &self.blocks[..=last];
        let ids = blocks.iter().flat_map(|block| {
            std::iter::once(&block.signature)
                .chain(block.delegation.as_ref().map(|delegation| &delegation.signature))
        });
        let holders = blocks.iter().filter_map(|block| Some(block.delegation.as_ref()?.to));
        ids.map(|id| mark("signature", id)).chain(holders.map(|holder| mark("delegate", &holder))).collect()
    }
}

impl Signed {
    fn message(&self, chained: bool, before: Option<&Vec<u8>>) -> Vec<u8> {
        let algorithm = 0u32.to_le_bytes();
        if !chained {
            return [&self.content, &algorithm[..], &self.next].concat();
        }
        let before = before.expect("an authority block is not signed by a third party");
        let version = 1u32.to_le_bytes();
        let mut message = [b"\0BLOCK\0\0VERSION\0", &version[..], b"\0PAYLOAD\0", &self.content].concat();
        message.extend(
            [b"\0ALGORITHM\0", &algorithm[..], b"\0NEXTKEY\0", &self.next, b"\0PREVSIG\0", before].concat(),
        );
        if let Some((signature, _)) = &self.external {
            message.extend([&b"\0EXTERNALSIG\0"[..], signature].concat());
        }
        message
    }
}

/// What a provider remembers of something that was revoked.
pub(crate) fn mark(kind: &str, what: &[u8]) -> [u8; 32] {
    Sha256::digest([b"leasehold-mark-v1\0", kind.as_bytes(), b"\0", what].concat()).into()
}

/// A key of full order in its one spelling.
fn sound(key: &[u8; 32]) -> Result<(), Disbelief> {
    let parsed = VerifyingKey::from_bytes(key).map_err(|_| Disbelief::Signature)?;
    (!parsed.is_weak()).then_some(()).ok_or(Disbelief::Signature)
}

/// Strictly: a reduced scalar, and no key of small order.
pub(crate) fn verify(key: &[u8; 32], message: &[u8], signature: &[u8]) -> Result<(), Disbelief> {
    let key = VerifyingKey::from_bytes(key).map_err(|_| Disbelief::Signature)?;
    let signature = Signature::from_slice(signature).map_err(|_| Disbelief::Signature)?;
    key.verify_strict(message, &signature).map_err(|_| Disbelief::Signature)
}

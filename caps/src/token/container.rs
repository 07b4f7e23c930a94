//! The outer half of a token: signed blocks and the proof, without a look inside the blocks.
//!
//! ```text
//! token      = 1 root key id, 2 authority: signed, 3 block: signed *, 4 proof
//! signed     = 1 block, 2 next key, 3 signature, 4 external (1 signature, 2 key)?, 5 signature version?
//! key        = 1 algorithm (0 = Ed25519), 2 bytes
//! proof      = 1 next secret | 2 final signature
//! ```
//! Only Ed25519 passes: P-256 signatures can be turned into others that verify as well, and a block's signature is
//! its revocation id.

use zeroize::Zeroizing;

use super::reader::{LENGTH, Reader, VARINT, Writer, malformed, noncanonical, unknown_field, wants};
use super::weak;
use crate::error::{Code, Error, Result};
use crate::limits::{TOKEN_BLOCKS_MAX, TOKEN_BYTES_MAX};

/// Signature version in which a block's signature covers the one before it; blocks with an external signature
/// must use it.
pub(super) const SIGNATURE_V1: u32 = 1;

/// What a block has around its content, at most: two signatures and two keys, a version, and their tags and lengths.
const BLOCK_EXTRA_BYTES_MAX: usize = 2 * 64 + 2 * 32 + 40;
/// What a token has beside its blocks, at most: the root key's id, and a signature or a secret.
const PROOF_BYTES_MAX: usize = 64 + 20;

/// A token, split at its signatures.
pub(super) struct Container<'a> {
    pub(super) root_key_id: Option<u32>,
    /// The authority block first; 1 to [`TOKEN_BLOCKS_MAX`].
    pub(super) blocks: Vec<SignedBlock<'a>>,
    pub(super) proof: Proof<'a>,
}

/// One block and what vouches for it.
#[derive(Clone, Copy)]
pub(super) struct SignedBlock<'a> {
    pub(super) block: &'a [u8],
    pub(super) next_key: &'a [u8; 32],
    pub(super) signature: &'a [u8; 64],
    pub(super) external: Option<External<'a>>,
    pub(super) version: u32,
}

/// The signature of a third party: here always the holder who delegates.
#[derive(Clone, Copy)]
pub(super) struct External<'a> {
    pub(super) signature: &'a [u8; 64],
    pub(super) key: &'a [u8; 32],
}

/// What a token ends with.
#[derive(Clone, Copy)]
pub(super) enum Proof<'a> {
    /// The secret that signs the next block: the token can be narrowed.
    NextSecret(&'a [u8; 32]),
    /// A signature over the last block: the token is sealed.
    Final(&'a [u8; 64]),
}

impl<'a> Container<'a> {
    /// Reads a token and demands its canonical encoding.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self> {
        if bytes.len() > TOKEN_BYTES_MAX {
            return Err(Error::new(Code::TokenTooBig, "the token is larger than 8 KiB"));
        }
        let mut reader = Reader::new(bytes);
        let (mut root_key_id, mut authority, mut proof) = (None, None, None);
        let mut later = Vec::new();
        while let Some((field, wire)) = reader.field()? {
            if proof.is_some() {
                return Err(noncanonical("bytes after the end of the token"));
            }
            match field {
                1 => {
                    wants(wire, VARINT)?;
                    root_key_id = Some(reader.varint32()?);
                }
                2 => {
                    wants(wire, LENGTH)?;
                    authority = Some(SignedBlock::read(reader.message()?)?);
                }
                3 => {
                    wants(wire, LENGTH)?;
                    if later.len() + 1 >= TOKEN_BLOCKS_MAX {
                        return Err(Error::new(Code::TokenTooBig, "the token has more than 8 blocks"));
                    }
                    later.push(SignedBlock::read(reader.message()?)?);
                }
                4 => {
                    wants(wire, LENGTH)?;
                    proof = Some(Proof::read(reader.message()?)?);
                }
                _ => return Err(unknown_field()),
            }
        }
        let authority = authority.ok_or(malformed("the authority block is missing"))?;
        let proof = proof.ok_or(malformed("the proof is missing"))?;
        if authority.external.is_some() {
            return Err(malformed("the authority block has an external signature"));
        }
        let mut blocks = Vec::with_capacity(1 + later.len());
        blocks.push(authority);
        blocks.append(&mut later);
        let container = Self { root_key_id, blocks, proof };
        if *container.to_bytes() != bytes {
            return Err(noncanonical("the token has another encoding, which is the canonical one"));
        }
        Ok(container)
    }

    /// The canonical encoding.
    pub(super) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let blocks: usize = self.blocks.iter().map(|block| block.block.len() + BLOCK_EXTRA_BYTES_MAX).sum();
        let mut writer = Writer::with_capacity(blocks + PROOF_BYTES_MAX);
        if let Some(id) = self.root_key_id {
            writer.varint(1, u64::from(id));
        }
        for (index, block) in self.blocks.iter().enumerate() {
            writer.message(if index == 0 { 2 } else { 3 }, |writer| block.write(writer));
        }
        writer.message(4, |writer| match self.proof {
            Proof::NextSecret(secret) => writer.bytes(1, secret),
            Proof::Final(signature) => writer.bytes(2, signature),
        });
        let bytes = writer.into_bytes();
        debug_assert!(
            bytes.len() <= blocks + PROOF_BYTES_MAX,
            "the buffer was never moved, which would leave a copy"
        );
        bytes
    }
}

impl<'a> SignedBlock<'a> {
    fn read(mut reader: Reader<'a>) -> Result<Self> {
        let (mut block, mut next_key, mut signature, mut external, mut version) =
            (None, None, None, None, None);
        while let Some((field, wire)) = reader.field()? {
            match field {
                1 => {
                    wants(wire, LENGTH)?;
                    block = Some(reader.bytes()?);
                }
                2 => {
                    wants(wire, LENGTH)?;
                    next_key = Some(read_key(reader.message()?)?);
                }
                3 => {
                    wants(wire, LENGTH)?;
                    signature = Some(signature_bytes(reader.bytes()?)?);
                }
                4 => {
                    wants(wire, LENGTH)?;
                    external = Some(External::read(reader.message()?)?);
                }
                5 => {
                    wants(wire, VARINT)?;
                    version = Some(reader.varint32()?);
                }
                _ => return Err(unknown_field()),
            }
        }
        let version = match version {
            None => 0,
            Some(0) => return Err(noncanonical("signature version 0 is written by leaving it out")),
            Some(SIGNATURE_V1) => SIGNATURE_V1,
            Some(_) => return Err(Error::new(Code::TokenVersion, "a signature version other than 0 and 1")),
        };
        if external.is_some() && version != SIGNATURE_V1 {
            return Err(Error::new(Code::TokenVersion, "an external signature needs signature version 1"));
        }
        Ok(Self {
            block: block.ok_or(malformed("a block has no content"))?,
            next_key: next_key.ok_or(malformed("a block has no next key"))?,
            signature: signature.ok_or(malformed("a block has no signature"))?,
            external,
            version,
        })
    }

    fn write(&self, writer: &mut Writer) {
        writer.bytes(1, self.block);
        writer.message(2, |writer| write_key(writer, self.next_key));
        writer.bytes(3, self.signature);
        if let Some(external) = &self.external {
            writer.message(4, |writer| {
                writer.bytes(1, external.signature);
                writer.message(2, |writer| write_key(writer, external.key));
            });
        }
        if self.version > 0 {
            writer.varint(5, u64::from(self.version));
        }
    }
}

impl<'a> External<'a> {
    fn read(mut reader: Reader<'a>) -> Result<Self> {
        let (mut signature, mut key) = (None, None);
        while let Some((field, wire)) = reader.field()? {
            wants(wire, LENGTH)?;
            match field {
                1 => signature = Some(signature_bytes(reader.bytes()?)?),
                2 => key = Some(read_key(reader.message()?)?),
                _ => return Err(unknown_field()),
            }
        }
        Ok(Self {
            signature: signature.ok_or(malformed("an external signature is missing"))?,
            key: key.ok_or(malformed("an external key is missing"))?,
        })
    }
}

impl<'a> Proof<'a> {
    fn read(mut reader: Reader<'a>) -> Result<Self> {
        let mut proof = None;
        while let Some((field, wire)) = reader.field()? {
            wants(wire, LENGTH)?;
            proof = Some(match field {
                1 => {
                    let secret = reader.bytes()?.try_into();
                    Self::NextSecret(secret.map_err(|_| malformed("the next secret is not 32 bytes"))?)
                }
                2 => Self::Final(signature_bytes(reader.bytes()?)?),
                _ => return Err(unknown_field()),
            });
        }
        proof.ok_or(malformed("the proof is empty"))
    }
}

fn read_key<'a>(mut reader: Reader<'a>) -> Result<&'a [u8; 32]> {
    let (mut algorithm, mut key) = (None, None);
    while let Some((field, wire)) = reader.field()? {
        match field {
            1 => {
                wants(wire, VARINT)?;
                algorithm = Some(reader.varint()?);
            }
            2 => {
                wants(wire, LENGTH)?;
                key = Some(reader.bytes()?);
            }
            _ => return Err(unknown_field()),
        }
    }
    if algorithm.ok_or(malformed("a key names no algorithm"))? != 0 {
        return Err(Error::new(Code::TokenAlgorithm, "a key is not an Ed25519 key"));
    }
    let key = key.ok_or(malformed("a key is empty"))?;
    let key = key.try_into().map_err(|_| malformed("an Ed25519 key is 32 bytes"))?;
    weak::refuse(key)?;
    Ok(key)
}

fn write_key(writer: &mut Writer, key: &[u8; 32]) {
    writer.varint(1, 0);
    writer.bytes(2, key);
}

fn signature_bytes(bytes: &[u8]) -> Result<&[u8; 64]> {
    bytes
        .try_into()
        .map_err(|_| Error::new(Code::TokenAlgorithm, "a signature is not 64 bytes, as Ed25519's are"))
}

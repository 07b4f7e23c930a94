//! The loops over plain memory that both sides of `bench access` run, and the raw view of a lease.

use std::hint::black_box;

use caps::error::Result;
use libmem::Region;

/// Reads every word.
#[inline(never)]
pub fn read_all(bytes: &[u8]) {
    let (words, _) = black_box(bytes).as_chunks::<8>();
    black_box(words.iter().fold(0, |sum, word| sum ^ u64::from_ne_bytes(*word)));
}

/// Writes every word.
#[inline(never)]
pub fn write_all(bytes: &mut [u8]) {
    let (words, _) = black_box(bytes).as_chunks_mut::<8>();
    for (index, word) in words.iter_mut().enumerate() {
        *word = (index as u64).to_ne_bytes();
    }
}

/// The bytes of an opened lease as a slice.
///
/// # Errors
/// `E_DENIED` if it is not mapped for writing.
pub fn slice(region: &mut Region) -> Result<&mut [u8]> {
    // SAFETY: a slice of leased memory needs that nobody else writes to it and that it is not taken back while it
    // lives. The benchmark has just leased this memory for an hour, shares it with nobody, opened it once, and
    // releases it after the slice is gone. Should the node of the benchmark die meanwhile, the access is SIGBUS,
    // which ends this process: the benchmark has failed then, and nothing is read that should not be.
    unsafe { region.mapping_mut().as_mut_slice() }
}

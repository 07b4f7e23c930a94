//! All assembly of the crate: the guarded routines, and what the signal handler must know about them.
//!
//! Both architectures keep one convention, so that the handler needs no table of instructions:
//!
//! | what | x86_64 | aarch64 |
//! |---|---|---|
//! | destination, source of a copy | `rdi`, `rsi` | `x0`, `x1` |
//! | bytes still to copy, exact whenever a load or a store can fault | `rcx` | `x3` |
//! | address of the [slot](super::table) whose memory may fault; no routine writes to it | `r8` | `x4` |
//!
//! No routine touches the stack, so at every instruction the return address is where a `ret` expects it, and
//! the handler may move the program counter to a landing pad without unwinding anything:
//!
//! ```text
//! copy ....... wide loads and stores ──fault──▶ copy_bytes    (find the border byte by byte)
//! copy_bytes . one byte at a time ─────fault──▶ copy_done     (return what is left)
//! load ... compare_exchange ───────────fault──▶ word_landing  (return "faulted")
//! ```
//!
//! A retried instruction does the right thing as well: a handler that has put fresh pages at the address may
//! leave the program counter where it is. Rotation relies on that.

use std::arch::global_asm;

#[cfg(not(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
compile_error!("libmem guards memory on 64-bit Linux, on x86_64 and aarch64 only");

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".pushsection .text.leasehold_guard,\"ax\",%progbits",
    ".p2align 6",
    // copy(rdi destination, rsi source, rdx string_min, rcx length, r8 slot) -> rax bytes left
    ".globl leasehold_guard_copy",
    ".hidden leasehold_guard_copy",
    ".type leasehold_guard_copy,@function",
    "leasehold_guard_copy:",
    ".cfi_startproc",
    "cmp rcx, rdx",
    "jae 5f",
    "cmp rcx, 64",
    "jb 3f",
    ".p2align 5",
    "2:",
    "movups xmm0, [rsi]",
    "movups xmm1, [rsi + 16]",
    "movups xmm2, [rsi + 32]",
    "movups xmm3, [rsi + 48]",
    "movups [rdi], xmm0",
    "movups [rdi + 16], xmm1",
    "movups [rdi + 32], xmm2",
    "movups [rdi + 48], xmm3",
    "add rsi, 64",
    "add rdi, 64",
    "sub rcx, 64",
    "cmp rcx, 64",
    "jae 2b",
    "3:",
    "cmp rcx, 16",
    "jb 4f",
    "movups xmm0, [rsi]",
    "movups [rdi], xmm0",
    "add rsi, 16",
    "add rdi, 16",
    "sub rcx, 16",
    "jmp 3b",
    "4:",
    "cmp rcx, 8",
    "jb leasehold_guard_copy_bytes",
    "mov rax, [rsi]",
    "mov [rdi], rax",
    "add rsi, 8",
    "add rdi, 8",
    "sub rcx, 8",
    "jmp leasehold_guard_copy_bytes",
    // The string instruction can be interrupted: rcx, rsi and rdi say how far it came.
    "5:",
    "rep movsb",
    ".globl leasehold_guard_copy_bytes",
    ".hidden leasehold_guard_copy_bytes",
    "leasehold_guard_copy_bytes:",
    "test rcx, rcx",
    "jz leasehold_guard_copy_done",
    "mov al, [rsi]",
    "mov [rdi], al",
    "inc rsi",
    "inc rdi",
    "dec rcx",
    "jmp leasehold_guard_copy_bytes",
    ".globl leasehold_guard_copy_done",
    ".hidden leasehold_guard_copy_done",
    "leasehold_guard_copy_done:",
    "mov rax, rcx",
    "ret",
    ".cfi_endproc",
    ".size leasehold_guard_copy, . - leasehold_guard_copy",
    // word(rdi address, rsi first, rdx second, rcx unused, r8 slot) -> rax value, rdx faulted
    ".p2align 4",
    ".globl leasehold_guard_load",
    ".hidden leasehold_guard_load",
    ".type leasehold_guard_load,@function",
    "leasehold_guard_load:",
    ".cfi_startproc",
    "mov rax, [rdi]",
    "xor edx, edx",
    "ret",
    ".cfi_endproc",
    ".globl leasehold_guard_store",
    ".hidden leasehold_guard_store",
    ".type leasehold_guard_store,@function",
    "leasehold_guard_store:",
    ".cfi_startproc",
    "xchg [rdi], rsi",
    "xor edx, edx",
    "ret",
    ".cfi_endproc",
    ".globl leasehold_guard_fetch_add",
    ".hidden leasehold_guard_fetch_add",
    ".type leasehold_guard_fetch_add,@function",
    "leasehold_guard_fetch_add:",
    ".cfi_startproc",
    "lock xadd [rdi], rsi",
    "mov rax, rsi",
    "xor edx, edx",
    "ret",
    ".cfi_endproc",
    ".globl leasehold_guard_compare_exchange",
    ".hidden leasehold_guard_compare_exchange",
    ".type leasehold_guard_compare_exchange,@function",
    "leasehold_guard_compare_exchange:",
    ".cfi_startproc",
    "mov rax, rsi",
    "lock cmpxchg [rdi], rdx",
    "mov edx, 0",
    "ret",
    ".cfi_endproc",
    ".globl leasehold_guard_word_landing",
    ".hidden leasehold_guard_word_landing",
    "leasehold_guard_word_landing:",
    ".cfi_startproc",
    "xor eax, eax",
    "mov edx, 1",
    "ret",
    ".cfi_endproc",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".pushsection .text.leasehold_guard,\"ax\",%progbits",
    ".p2align 6",
    // copy(x0 destination, x1 source, x2 unused, x3 length, x4 slot) -> x0 bytes left
    ".globl leasehold_guard_copy",
    ".hidden leasehold_guard_copy",
    ".type leasehold_guard_copy,@function",
    "leasehold_guard_copy:",
    ".cfi_startproc",
    "2:",
    "cmp x3, #64",
    "b.lo 3f",
    "ldp q0, q1, [x1]",
    "ldp q2, q3, [x1, #32]",
    "stp q0, q1, [x0]",
    "stp q2, q3, [x0, #32]",
    "add x1, x1, #64",
    "add x0, x0, #64",
    "sub x3, x3, #64",
    "b 2b",
    "3:",
    "cmp x3, #16",
    "b.lo 4f",
    "ldr q0, [x1]",
    "str q0, [x0]",
    "add x1, x1, #16",
    "add x0, x0, #16",
    "sub x3, x3, #16",
    "b 3b",
    "4:",
    "cmp x3, #8",
    "b.lo leasehold_guard_copy_bytes",
    "ldr x5, [x1]",
    "str x5, [x0]",
    "add x1, x1, #8",
    "add x0, x0, #8",
    "sub x3, x3, #8",
    ".globl leasehold_guard_copy_bytes",
    ".hidden leasehold_guard_copy_bytes",
    "leasehold_guard_copy_bytes:",
    "cbz x3, leasehold_guard_copy_done",
    "ldrb w5, [x1]",
    "strb w5, [x0]",
    "add x1, x1, #1",
    "add x0, x0, #1",
    "sub x3, x3, #1",
    "b leasehold_guard_copy_bytes",
    ".globl leasehold_guard_copy_done",
    ".hidden leasehold_guard_copy_done",
    "leasehold_guard_copy_done:",
    "mov x0, x3",
    "ret",
    ".cfi_endproc",
    ".size leasehold_guard_copy, . - leasehold_guard_copy",
    // word(x0 address, x1 first, x2 second, x3 unused, x4 slot) -> x0 value, x1 faulted
    ".p2align 4",
    ".globl leasehold_guard_load",
    ".hidden leasehold_guard_load",
    ".type leasehold_guard_load,@function",
    "leasehold_guard_load:",
    ".cfi_startproc",
    "ldar x0, [x0]",
    "mov x1, #0",
    "ret",
    ".cfi_endproc",
    ".globl leasehold_guard_store",
    ".hidden leasehold_guard_store",
    ".type leasehold_guard_store,@function",
    "leasehold_guard_store:",
    ".cfi_startproc",
    "stlr x1, [x0]",
    "mov x1, #0",
    "ret",
    ".cfi_endproc",
    // Exclusive pairs instead of the newer single instructions: every 64-bit ARM has them.
    ".globl leasehold_guard_fetch_add",
    ".hidden leasehold_guard_fetch_add",
    ".type leasehold_guard_fetch_add,@function",
    "leasehold_guard_fetch_add:",
    ".cfi_startproc",
    "2:",
    "ldaxr x9, [x0]",
    "add x10, x9, x1",
    "stlxr w11, x10, [x0]",
    "cbnz w11, 2b",
    "mov x0, x9",
    "mov x1, #0",
    "ret",
    ".cfi_endproc",
    ".globl leasehold_guard_compare_exchange",
    ".hidden leasehold_guard_compare_exchange",
    ".type leasehold_guard_compare_exchange,@function",
    "leasehold_guard_compare_exchange:",
    ".cfi_startproc",
    "2:",
    "ldaxr x9, [x0]",
    "cmp x9, x1",
    "b.ne 3f",
    "stlxr w11, x2, [x0]",
    "cbnz w11, 2b",
    "3:",
    "clrex",
    "mov x0, x9",
    "mov x1, #0",
    "ret",
    ".cfi_endproc",
    ".globl leasehold_guard_word_landing",
    ".hidden leasehold_guard_word_landing",
    "leasehold_guard_word_landing:",
    ".cfi_startproc",
    "mov x0, #0",
    "mov x1, #1",
    "ret",
    ".cfi_endproc",
    ".popsection",
);

/// What a guarded access of one word gives back: in `rax:rdx` or `x0:x1`.
#[repr(C)]
pub(super) struct Word {
    /// The word's value before the access; 0 after a fault, and nothing a caller may use after a store.
    pub(super) value: u64,
    /// 1 if the access faulted and did not happen, else 0.
    pub(super) faulted: u64,
}

unsafe extern "C" {
    fn leasehold_guard_copy(
        destination: *mut u8,
        source: *const u8,
        string_min: usize,
        length: usize,
        slot: usize,
    ) -> usize;
    fn leasehold_guard_copy_bytes();
    fn leasehold_guard_copy_done();
    fn leasehold_guard_load(address: *const u64, _: u64, _: u64, _: u64, slot: usize) -> Word;
    fn leasehold_guard_store(address: *mut u64, value: u64, _: u64, _: u64, slot: usize) -> Word;
    fn leasehold_guard_fetch_add(address: *mut u64, value: u64, _: u64, _: u64, slot: usize) -> Word;
    fn leasehold_guard_compare_exchange(
        address: *mut u64,
        current: u64,
        new: u64,
        _: u64,
        slot: usize,
    ) -> Word;
    fn leasehold_guard_word_landing();
}

/// Copies `length` bytes and returns how many were **not** copied: 0, or what was left at the first byte that
/// faulted. The bytes before that one are copied, all of them.
///
/// `string_min` is the length in bytes from which x86_64 uses its string instruction; aarch64 has no use for
/// it.
///
/// # Safety
/// `source` is readable and `destination` writable for `length` bytes, and they do not overlap; the part of
/// either that lies in the memory of the slot at address `slot` may be gone. Faults elsewhere are not
/// absorbed.
#[inline]
pub(super) unsafe fn copy(
    destination: *mut u8,
    source: *const u8,
    string_min: usize,
    length: usize,
    slot: usize,
) -> usize {
    // SAFETY: the caller's promise; the routine keeps the C calling convention and needs no stack.
    unsafe { leasehold_guard_copy(destination, source, string_min, length, slot) }
}

/// Loads a word, sequentially consistent.
///
/// # Safety
/// `address` is a multiple of 8 and readable, or lies in the memory of the slot at address `slot`.
#[inline]
pub(super) unsafe fn load(address: *const u64, slot: usize) -> Word {
    // SAFETY: the caller's promise.
    unsafe { leasehold_guard_load(address, 0, 0, 0, slot) }
}

/// Stores a word, sequentially consistent. The value given back means nothing.
///
/// # Safety
/// `address` is a multiple of 8 and writable, or lies in the writable memory of the slot at address `slot`.
#[inline]
pub(super) unsafe fn store(address: *mut u64, value: u64, slot: usize) -> Word {
    // SAFETY: the caller's promise.
    unsafe { leasehold_guard_store(address, value, 0, 0, slot) }
}

/// Adds to a word, wrapping, sequentially consistent.
///
/// # Safety
/// As [`store`].
#[inline]
pub(super) unsafe fn fetch_add(address: *mut u64, value: u64, slot: usize) -> Word {
    // SAFETY: the caller's promise.
    unsafe { leasehold_guard_fetch_add(address, value, 0, 0, slot) }
}

/// Stores `new` if the word is `current`, sequentially consistent. It took place if the value given back is
/// `current`.
///
/// # Safety
/// As [`store`].
#[inline]
pub(super) unsafe fn compare_exchange(address: *mut u64, current: u64, new: u64, slot: usize) -> Word {
    // SAFETY: the caller's promise.
    unsafe { leasehold_guard_compare_exchange(address, current, new, 0, slot) }
}

/// Where a fault at the program counter `pc` goes on, if `pc` lies in a guarded routine. Async-signal-safe.
pub(super) fn landing_pad(pc: usize) -> Option<usize> {
    let copy = leasehold_guard_copy as *const () as usize;
    let copy_bytes = leasehold_guard_copy_bytes as *const () as usize;
    let copy_done = leasehold_guard_copy_done as *const () as usize;
    // The word routines stand in one section, in the order of the assembly above.
    let words = leasehold_guard_load as *const () as usize;
    let word_landing = leasehold_guard_word_landing as *const () as usize;
    if (copy..copy_bytes).contains(&pc) {
        Some(copy_bytes)
    } else if (copy_bytes..copy_done).contains(&pc) {
        Some(copy_done)
    } else if (words..word_landing).contains(&pc) {
        Some(word_landing)
    } else {
        None
    }
}

/// The program counter and the slot register of an interrupted thread.
pub(super) struct Interrupted<'a>(&'a mut libc::mcontext_t);

impl<'a> Interrupted<'a> {
    /// Reads and changes the registers that the kernel restores when the handler returns.
    pub(super) const fn new(context: &'a mut libc::ucontext_t) -> Self {
        Self(&mut context.uc_mcontext)
    }
}

#[cfg(target_arch = "x86_64")]
impl Interrupted<'_> {
    /// The address of the interrupted instruction.
    pub(super) const fn pc(&self) -> usize {
        self.0.gregs[libc::REG_RIP as usize] as usize
    }

    /// Lets the thread go on at `pc`.
    pub(super) const fn set_pc(&mut self, pc: usize) {
        self.0.gregs[libc::REG_RIP as usize] = pc as i64;
    }

    /// The slot register: a slot's address only while the program counter is in a guarded routine.
    pub(super) const fn slot(&self) -> usize {
        self.0.gregs[libc::REG_R8 as usize] as usize
    }
}

#[cfg(target_arch = "aarch64")]
impl Interrupted<'_> {
    /// The address of the interrupted instruction.
    pub(super) const fn pc(&self) -> usize {
        self.0.pc as usize
    }

    /// Lets the thread go on at `pc`.
    pub(super) const fn set_pc(&mut self, pc: usize) {
        self.0.pc = pc as u64;
    }

    /// The slot register: a slot's address only while the program counter is in a guarded routine.
    pub(super) const fn slot(&self) -> usize {
        self.0.regs[4] as usize
    }
}

/// The length in bytes from which the processor's own string copy is at least as fast as the loop.
///
/// Measured on a Zen 5: at 1 KiB both take 12 ns, at 4 KiB the string copy needs 29 ns and the loop 45. A
/// processor that does not announce fast string copies never uses them.
#[cfg(target_arch = "x86_64")]
pub(super) fn string_min_bytes() -> usize {
    /// Where the two meet, in bytes.
    const STRING_MIN_BYTES: usize = 1024;
    // ERMS. The standard library asks the processor once and keeps the answer in an atomic.
    if std::arch::is_x86_feature_detected!("ermsb") { STRING_MIN_BYTES } else { usize::MAX }
}

/// aarch64 uses its loop for every length.
#[cfg(target_arch = "aarch64")]
pub(super) const fn string_min_bytes() -> usize {
    usize::MAX
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Copies with both strategies into the middle of a painted buffer, and looks at every byte of it.
    fn check(bytes: &[u8], source_shift: usize, destination_shift: usize) {
        const MARGIN: usize = 64;
        let mut source = vec![0u8; source_shift];
        source.extend_from_slice(bytes);
        for string_min in [0, usize::MAX] {
            let mut got = vec![0xa5u8; MARGIN * 2 + destination_shift + bytes.len()];
            let mut want = got.clone();
            let start = MARGIN + destination_shift;
            want[start..start + bytes.len()].copy_from_slice(bytes);
            // SAFETY: both ranges lie in buffers made above; slot 0 is no slot, so nothing would be absorbed.
            let left = unsafe {
                copy(
                    got.as_mut_ptr().add(start),
                    source.as_ptr().add(source_shift),
                    string_min,
                    bytes.len(),
                    0,
                )
            };
            assert_eq!(left, 0);
            assert_eq!(got, want, "length {}, string_min {string_min}", bytes.len());
        }
    }

    #[test]
    fn every_length_up_to_300_at_every_shift() {
        let bytes: Vec<u8> = (0..300u32).map(|i| (i * 7 + 3) as u8).collect();
        for length in 0..=300 {
            for shift in 0..16 {
                check(&bytes[..length], shift, 0);
                check(&bytes[..length], 0, shift);
                check(&bytes[..length], shift, 15 - shift);
            }
        }
    }

    proptest! {
        #[test]
        fn like_a_plain_copy(bytes in prop::collection::vec(any::<u8>(), 0..20_000), from in 0usize..64, to in 0usize..64) {
            check(&bytes, from, to);
        }
    }

    #[test]
    fn words() {
        let mut word = 5u64;
        let address = &raw mut word;
        // SAFETY: `address` is an aligned, live word; slot 0 absorbs nothing.
        unsafe {
            assert_eq!(load(address, 0).value, 5);
            assert_eq!(store(address, 9, 0).faulted, 0);
            let before = fetch_add(address, u64::MAX, 0);
            assert_eq!((before.value, before.faulted), (9, 0));
            let kept = compare_exchange(address, 7, 1, 0);
            assert_eq!((kept.value, kept.faulted), (8, 0));
            let swapped = compare_exchange(address, 8, 1, 0);
            assert_eq!((swapped.value, swapped.faulted), (8, 0));
            assert_eq!(load(address, 0).value, 1);
        }
    }

    #[test]
    fn only_the_routines_have_landing_pads() {
        assert!(landing_pad(leasehold_guard_copy as *const () as usize).is_some());
        assert!(landing_pad(leasehold_guard_compare_exchange as *const () as usize).is_some());
        for outside in [
            leasehold_guard_copy as *const () as usize - 1,
            leasehold_guard_copy_done as *const () as usize,
            leasehold_guard_word_landing as *const () as usize,
            0,
            usize::MAX,
            landing_pad as *const () as usize,
        ] {
            assert_eq!(landing_pad(outside), None);
        }
    }
}

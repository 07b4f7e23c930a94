//! One line of a list.

/// A system call that is allowed, or that kills.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its constant in `libc`, for people.
    pub name: &'static str,
    /// Its number on this architecture.
    pub number: libc::c_long,
    /// What its arguments must be, all of it. Nothing: whatever they are.
    pub arguments: &'static [Arg],
    /// Why it is on the list.
    pub reason: &'static str,
}

/// What one argument must be. The lower 32 bits are looked at: all the arguments in question are `int`s or flags below
/// 2^32, and the kernel ignores what is above them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// Argument N has this value.
    Is(u8, u32),
    /// Of the bits in the mask, argument N has exactly these.
    Has(u8, u32, u32),
    /// Argument N has none of these bits.
    Without(u8, u32),
    /// Argument N, of 64 bits, is zero: a null pointer.
    Null(u8),
}

/// A line: the call's constant in `libc`, its arguments, the reason.
macro_rules! rule {
    ($number:ident, [$($argument:expr),* $(,)?], $reason:literal) => {
        $crate::sandbox::Rule {
            name: stringify!($number),
            number: libc::$number,
            arguments: &[$($argument),*],
            reason: $reason,
        }
    };
}
pub(crate) use rule;

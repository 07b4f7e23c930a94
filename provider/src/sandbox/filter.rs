//! Lists become programs for the kernel, and the kernel takes them.

use std::collections::BTreeMap;

use caps::error::{Code, Error, Result};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::rule::{Arg, Rule};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;

/// A filter that answers calls on the list with `listed`, and all others with `others`. Calls of another architecture,
/// such as the 32-bit ones, end the process.
pub(super) fn compile(
    rules: impl IntoIterator<Item = Rule>,
    listed: SeccompAction,
    others: SeccompAction,
) -> Result<BpfProgram> {
    let mut table: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for rule in rules {
        let ways = table.entry(rule.number).or_default();
        if !rule.arguments.is_empty() {
            let conditions = rule.arguments.iter().map(condition).collect::<Result<_>>()?;
            ways.push(SeccompRule::new(conditions).map_err(refused)?);
        }
    }
    SeccompFilter::new(table, others, listed, ARCHITECTURE).and_then(BpfProgram::try_from).map_err(refused)
}

fn condition(argument: &Arg) -> Result<SeccompCondition> {
    let (index, length, operator, value) = match *argument {
        Arg::Is(index, value) => (index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value),
        Arg::Has(index, mask, value) => {
            (index, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask.into()), value)
        }
        Arg::Without(index, mask) => (index, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask.into()), 0),
        Arg::Null(index) => (index, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0),
    };
    SeccompCondition::new(index, length, operator, value.into()).map_err(refused)
}

fn refused(_: seccompiler::BackendError) -> Error {
    Error::new(Code::Internal, "a list of system calls does not compile")
}

/// Puts every thread of this process, and all it starts from now on, under a list. A call that is not on it ends the
/// process at once. There is no way back.
///
/// # Errors
/// `E_SYSTEM` where the kernel has no filters, `E_INTERNAL` if the list is none.
pub(crate) fn confine_this_process(rules: &[Rule]) -> Result<()> {
    let refused = |_| Error::new(Code::System, "the kernel takes no filter of system calls");
    // The flags of clone3 lie in memory, where no filter can look. Told that there is no such call, C libraries use
    // clone. Of two filters the stricter answer counts, so the list has to have it too.
    let clone3 = rules.iter().copied().filter(|rule| rule.number == libc::SYS_clone3);
    let missing = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let absent = compile(clone3, missing, SeccompAction::Allow)?;
    let listed = compile(rules.iter().copied(), SeccompAction::Allow, SeccompAction::KillProcess)?;
    seccompiler::apply_filter_all_threads(&absent).map_err(refused)?;
    seccompiler::apply_filter_all_threads(&listed).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::super::{factory, node, program};
    use super::*;

    #[test]
    fn every_list_compiles_and_says_why_each_call_is_on_it() {
        let dialling = [node::ALLOWED, node::DIALLING].concat();
        for list in [program::ALLOWED, program::DEADLY, node::ALLOWED, factory::ALLOWED, &dialling] {
            compile(list.iter().copied(), SeccompAction::Allow, SeccompAction::KillProcess).unwrap();
            for (at, rule) in list.iter().enumerate() {
                assert!(rule.reason.len() > 4, "{}", rule.name);
                let again = |other: &&Rule| other.number == rule.number && other.arguments == rule.arguments;
                assert_eq!(list.iter().filter(again).count(), 1, "{} stands twice", rule.name);
                let whole =
                    list.iter().position(|other| other.number == rule.number && other.arguments.is_empty());
                assert!(
                    whole.is_none_or(|whole| whole == at),
                    "{} is on the list without a condition too",
                    rule.name
                );
            }
        }
    }
}

//! Which rights may be mapped.

use caps::error::{Code, Error, Result};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::BootNanos;
use caps::wire::row::Tier;

use super::Config;
use super::event::OpenRequest;
use super::region::RegionRow;

/// Whether a right can be enforced by a mapping: it falls on segment borders, is not metered, and the tier allows it to
/// this process. What cannot be enforced is served by reads and writes.
///
/// Where not every page is pinned, nothing can be rotated, and mappings end with their region alone: only rights to the
/// whole of it that last as long as it are mapped there.
#[must_use = "a refusal must reach the client"]
pub(super) fn may_map(
    config: &Config,
    request: &OpenRequest,
    row: &RegionRow,
    range: ByteRange,
    deadline: BootNanos,
) -> Result<()> {
    let whole = range.start() == 0 && range.end() == row.bytes;
    let own_uid = request.uid.is_some_and(|uid| uid == config.uid || uid == 0);
    let tier_allows = match config.tier {
        Tier::Sealed => true,
        Tier::Sandboxed | Tier::Open => {
            own_uid || request.sandboxed || !request.rights.contains(Rights::WRITE)
        }
    };
    let rules = [
        (request.metered, "a token with a budget or a rate is counted by the provider"),
        (!row.on_borders(range), "a right that does not fall on segment borders is enforced by the provider"),
        (
            !row.pinned && !whole,
            "the memory is not wholly pinned: a right to a part of it is enforced by the provider",
        ),
        (
            !row.pinned && deadline < row.deadline,
            "the memory is not wholly pinned: a right that ends before it is enforced by the provider",
        ),
        (!tier_allows, "on this machine other users write through the provider; `leasehold doctor` says why"),
        (!request.rights.contains(Rights::READ), "a mapping can always be read; this right cannot"),
    ];
    match rules.into_iter().find(|(broken, _)| *broken) {
        Some((_, detail)) => Err(Error::new(Code::MediatedOnly, detail)),
        None => Ok(()),
    }
}

/// When a mapping ends whose token somebody narrowed so that it ends at `end`: on the last step before.
///
/// The end of a mapping among others is a rotation, which costs everybody who maps the segment. A holder can make as
/// many tokens as it likes, each with an end of its own; on the steps all of them end together.
///
/// # Errors
/// `E_MEDIATED_ONLY` if there is no step left before the end.
pub(super) fn end_of_mapping(now: BootNanos, end: BootNanos, step: u64) -> Result<BootNanos> {
    let last = BootNanos(end.0 - end.0 % step);
    if last <= now {
        return Err(Error::new(
            Code::MediatedOnly,
            "the token ends too soon for a mapping; a right as short is enforced by the provider",
        ));
    }
    Ok(last)
}

//! What one block of a token took away from what there was before it.

use serde::Serialize;

use super::terms::Effective;
use crate::range::ByteRange;
use crate::rights::Rights;

/// The difference that a block makes. Empty for a block that narrows nothing, and for the authority block.
///
/// What there was, without this, is what is left: see [`Took::leaves`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Took {
    /// Rights that are gone, as `rws`.
    #[serde(serialize_with = "text", skip_serializing_if = "is_empty")]
    pub rights: Rights,
    /// Bytes that are gone: first byte and one past the last, at most one piece at either end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bytes: Vec<[u64; 2]>,
    /// By how many microseconds it begins later.
    #[serde(skip_serializing_if = "is_zero")]
    pub begins_later: u64,
    /// By how many microseconds it ends earlier.
    #[serde(skip_serializing_if = "is_zero")]
    pub ends_earlier: u64,
    /// How many delegations fewer it allows in all. One that the block itself makes is used, not taken.
    #[serde(skip_serializing_if = "is_none")]
    pub hops: u8,
    /// How often it could be opened, and can be now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opens: Option<Lowered>,
    /// How many bytes a second could be moved, and can be now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<Lowered>,
    /// How many bytes could be moved in all, and can be now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<Lowered>,
}

/// A bound on use that a block made lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Lowered {
    /// What it was; absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// What it is.
    pub to: u64,
}

fn text<S: serde::Serializer>(rights: &Rights, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(rights)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_empty(rights: &Rights) -> bool {
    rights.is_empty()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(span: &u64) -> bool {
    *span == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_none(hops: &u8) -> bool {
    *hops == 0
}

impl Took {
    /// What lies between two neighbours of a walk over blocks. `after` is never wider than `before`.
    pub(super) fn between(before: &Effective, after: &Effective) -> Self {
        let bytes = match (before.range, after.range) {
            (None, _) => Vec::new(),
            (Some(was), None) => vec![[was.start(), was.end()]],
            (Some(was), Some(is)) => [[was.start(), is.start()], [is.end(), was.end()]]
                .into_iter()
                .filter(|[start, end]| start < end)
                .collect(),
        };
        let lowered =
            |from: Option<u64>, to: Option<u64>| to.filter(|_| from != to).map(|to| Lowered { from, to });
        Self {
            rights: before.rights.without(after.rights),
            bytes,
            begins_later: after.not_before.0 - before.not_before.0,
            ends_earlier: before.expires.0 - after.expires.0,
            hops: before.max_hops - after.max_hops,
            opens: lowered(before.opens, after.opens),
            bytes_per_second: lowered(before.bytes_per_second, after.bytes_per_second),
            bytes_total: lowered(before.bytes_total, after.bytes_total),
        }
    }

    /// `before` without what was taken. Delegations made so far stay as they are.
    #[must_use]
    pub fn leaves(&self, before: &Effective) -> Effective {
        let mut after = *before;
        after.rights = before.rights.without(self.rights);
        for [start, end] in &self.bytes {
            after.range = after.range.and_then(|range| {
                let (mut from, mut to) = (range.start(), range.end());
                if *start <= from {
                    from = *end;
                } else {
                    to = *start;
                }
                ByteRange::new(from, to).ok()
            });
        }
        after.not_before.0 += self.begins_later;
        after.expires.0 -= self.ends_earlier;
        after.max_hops -= self.hops;
        let now = |lowered: Option<Lowered>, was| lowered.map_or(was, |lowered| Some(lowered.to));
        after.opens = now(self.opens, before.opens);
        after.bytes_per_second = now(self.bytes_per_second, before.bytes_per_second);
        after.bytes_total = now(self.bytes_total, before.bytes_total);
        after
    }

    /// Whether the block took nothing.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

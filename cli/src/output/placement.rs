//! Where a lease is, and why: for people and for programs.

use caps::wire::provider::{Considered, Placement, ProviderRow, Verdict};
use serde_json::{Value, json};

use super::human;

/// The lines about it in a table of pairs.
pub(crate) fn pairs(placement: &Placement) -> Vec<(&'static str, String)> {
    let mut pairs = vec![("node", placement.node.to_string())];
    if placement.considered.len() <= 1 && placement.others == 0 {
        pairs.push(("why", "there was no other".to_owned()));
        return pairs;
    }
    for one in &placement.considered {
        match one.verdict {
            Verdict::Chosen => pairs.push(("why", format!("score {}: {}", one.score, figures(one)))),
            Verdict::Outscored => {
                pairs.push(("before", format!("{}, score {}: {}", one.node, one.score, figures(one))));
            }
            verdict => pairs.push(("not", format!("{}, {}", one.node, words(verdict)))),
        }
    }
    match (placement.others, placement.considered.is_empty()) {
        (0, _) => {}
        // Who leases is told no figures of providers, which are those of others' leases.
        (others, true) => {
            let of = others.saturating_add(1);
            pairs.push(("why", format!("chosen of {of}; the administrator is shown by which figures")));
        }
        (others, false) => pairs.push(("not", format!("{others} more"))),
    }
    pairs
}

fn figures(one: &Considered) -> String {
    let Considered { free_bytes, free_regions, sessions, claims, .. } = one;
    let free = human::bytes(*free_bytes);
    format!("{free} and {free_regions} regions free, {claims} claims waiting, {sessions} sessions")
}

const fn words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Chosen => "chosen",
        Verdict::Outscored => "outscored",
        Verdict::NoBytes => "which had not that many bytes left",
        Verdict::NoRegion => "which had no region left",
        Verdict::OtherClass => "which takes no leases of this class",
        Verdict::Silent => "which did not answer",
        Verdict::Draining => "which was draining",
        Verdict::Lost => "which was lost",
    }
}

/// The same for programs.
pub(crate) fn value(placement: &Placement) -> Value {
    let considered = placement.considered.iter().map(|one| {
        json!({
            "node": one.node,
            "verdict": one.verdict.name(),
            "free_bytes": one.free_bytes,
            "free_regions": one.free_regions,
            "sessions": one.sessions,
            "claims": one.claims,
            "score": one.score,
        })
    });
    json!({
        "node": placement.node,
        "considered": considered.collect::<Vec<_>>(),
        "others": placement.others,
    })
}

/// A provider in the node's status.
pub(crate) fn provider(row: &ProviderRow) -> Value {
    json!({
        "id": row.id.to_string(),
        "name": row.name,
        "address": row.address,
        "state": row.state.name(),
        "locality": row.locality,
        "classes": row.classes,
        "bytes": row.bytes,
        "regions": row.regions,
        "reserved_bytes": row.reserved_bytes,
        "committed_bytes": row.committed_bytes,
        "taken_regions": row.taken_regions,
        "silent_for_ms": row.silent_for.as_millis(),
        "sessions": row.load.sessions,
    })
}

#[cfg(test)]
mod tests {
    use caps::wire::Name;

    use super::*;

    #[test]
    fn every_node_is_named_with_what_came_of_it() {
        let considered = |node: &str, verdict, score| Considered {
            node: Name::new(node).unwrap(),
            verdict,
            free_bytes: 4096,
            free_regions: 2,
            sessions: 3,
            claims: 1,
            score,
        };
        let placement = Placement {
            node: Name::new("east").unwrap(),
            considered: vec![
                considered("east", Verdict::Chosen, 40),
                considered("west", Verdict::Outscored, 30),
                considered("south", Verdict::Draining, 0),
            ],
            others: 5,
        };
        let figures = "4KiB and 2 regions free, 1 claims waiting, 3 sessions";
        assert_eq!(
            pairs(&placement),
            [
                ("node", "east".to_owned()),
                ("why", format!("score 40: {figures}")),
                ("before", format!("west, score 30: {figures}")),
                ("not", "south, which was draining".to_owned()),
                ("not", "5 more".to_owned()),
            ]
        );
        let alone =
            Placement { considered: placement.considered[..1].to_vec(), others: 0, ..placement.clone() };
        assert_eq!(pairs(&alone)[1], ("why", "there was no other".to_owned()));
        let untold = Placement { considered: Vec::new(), others: 1, ..placement.clone() };
        assert_eq!(
            pairs(&untold)[1],
            ("why", "chosen of 2; the administrator is shown by which figures".to_owned())
        );
        let value = value(&placement);
        assert_eq!((&value["node"], &value["others"]), (&json!("east"), &json!(5)));
        assert_eq!(value["considered"][2]["verdict"], "draining");
    }
}

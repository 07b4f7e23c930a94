//! Rendezvous hashing: every client finds the same order of nodes for the same key, and a node that comes or goes moves nobody
//! else's.

use aws_lc_rs::digest::{SHA256, digest};

/// What the hash is of, first of all.
const CONTEXT: &[u8] = b"leasehold-rendezvous-v1";

/// How much `node` wants what `key` names: the most has it.
pub(super) fn weight(key: &[u8], node: &str) -> [u8; 32] {
    let mut text = CONTEXT.to_vec();
    // So that no other key and node have the same text.
    text.extend_from_slice(&(key.len() as u64).to_le_bytes());
    text.extend_from_slice(key);
    text.extend_from_slice(node.as_bytes());
    let mut weight = [0; 32];
    weight.copy_from_slice(digest(&SHA256, &text).as_ref());
    weight
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [&str; 5] = ["a:1", "b:1", "c:1", "d:1", "e:1"];

    fn best(key: u32, nodes: &[&'static str]) -> &'static str {
        nodes.iter().max_by_key(|node| weight(&key.to_le_bytes(), node)).unwrap()
    }

    #[test]
    fn every_node_has_its_share_and_the_loss_of_one_moves_its_own_alone() {
        let mut shares = [0; NODES.len()];
        for key in 0..1_000 {
            let chosen = best(key, &NODES);
            shares[NODES.iter().position(|node| *node == chosen).unwrap()] += 1;
            let mut turned = NODES;
            turned.reverse();
            assert_eq!(best(key, &turned), chosen, "the order of the list says nothing");
            if chosen != "c:1" {
                assert_eq!(best(key, &["a:1", "b:1", "d:1", "e:1"]), chosen);
            }
        }
        assert!(shares.iter().all(|share| (120..=280).contains(share)), "{shares:?}");
    }
}

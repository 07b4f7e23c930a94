//! The published vectors against a second verifier, which knows nothing but their `README.md`: what the files say is so
//! because it follows from the bytes, and not because this crate wrote it.

mod by_hand;

use std::collections::BTreeMap;

use by_hand::{Disbelief, Says, Token, mark, verify};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A file's cases under their names.
fn cases(file: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(file).unwrap();
    assert_eq!(file["format"], "leasehold-vectors-v2");
    file["cases"].as_array().unwrap().clone()
}

fn tokens() -> BTreeMap<String, (Value, Token)> {
    let read = |case: Value| {
        let token = Token::read(&unhex(&case["token"])).unwrap();
        (case["name"].as_str().unwrap().to_owned(), (case, token))
    };
    cases(include_str!("vectors/tokens.json")).into_iter().map(read).collect()
}

fn unhex(value: &Value) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    unhex(value).try_into().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn bits(rights: &Value) -> u8 {
    let letters = rights.as_str().unwrap().trim_matches('-');
    letters.chars().map(|letter| 1 << "rws".find(letter).unwrap()).sum()
}

/// The root keys of a file, by ids that are recomputed.
fn roots(file: &str) -> Vec<(u32, [u8; 32])> {
    let file: Value = serde_json::from_str(file).unwrap();
    let roots = file["roots"].as_array().unwrap().iter().map(|root| {
        let key: [u8; 32] = array(&root["public"]);
        let own = ed25519_dalek::SigningKey::from_bytes(&array(&root["seed"]));
        assert_eq!(own.verifying_key().to_bytes(), key);
        let digest = Sha256::digest([&b"leasehold-root-id-v1\0"[..], &key].concat());
        let id = u32::from_be_bytes(digest[..4].try_into().unwrap());
        assert_eq!(root["id"], id);
        (id, key)
    });
    roots.collect()
}

/// What is left after some blocks.
#[derive(Clone, Copy)]
struct Left {
    says: Says,
    hops: u64,
}

impl Left {
    fn narrowed(self, by: &Says, delegated: bool) -> Self {
        fn tighter<T: Copy>(a: Option<T>, b: Option<T>, choose: fn(T, T) -> T) -> Option<T> {
            a.zip(b).map(|(a, b)| choose(a, b)).or(a).or(b)
        }
        let was = self.says;
        let says = Says {
            rights: tighter(was.rights, by.rights, |a, b| a & b),
            start: tighter(was.start, by.start, u64::max),
            end: tighter(was.end, by.end, u64::min),
            not_before: tighter(was.not_before, by.not_before, u64::max),
            expires: tighter(was.expires, by.expires, u64::min),
            hops: tighter(was.hops, by.hops, u64::min),
            opens: tighter(was.opens, by.opens, u64::min),
            rate: tighter(was.rate, by.rate, u64::min),
            budget: tighter(was.budget, by.budget, u64::min),
        };
        Self { says, hops: self.hops + u64::from(delegated) }
    }

    fn range(&self) -> Option<[u64; 2]> {
        Some([self.says.start?, self.says.end?]).filter(|[start, end]| start < end)
    }

    fn of(token: &Token, blocks: usize) -> Self {
        let none = Self { says: Says::default(), hops: 0 };
        let blocks = token.blocks[..blocks].iter();
        blocks.fold(none, |left, block| left.narrowed(&block.says, block.delegation.is_some()))
    }

    /// As the file shows it.
    fn shown(&self) -> Value {
        let says = &self.says;
        let letters = ["r", "w", "s"].iter().enumerate();
        let letters = letters.filter(|(bit, _)| says.rights.unwrap() >> bit & 1 == 1);
        let rights: String = letters.map(|(_, letter)| *letter).collect();
        let mut shown = json!({
            "rights": if rights.is_empty() { "-" } else { &rights },
            "range": self.range(),
            "not_before": says.not_before,
            "expires": says.expires,
            "hops": self.hops,
            "hops_left": says.hops.unwrap().checked_sub(self.hops),
        });
        for (name, limit) in
            [("opens", says.opens), ("bytes_per_second", says.rate), ("bytes_total", says.budget)]
        {
            if let Some(limit) = limit {
                shown[name] = json!(limit);
            }
        }
        shown
    }
}

#[test]
fn golden_tokens_verify_and_say_what_the_file_says() {
    let roots = roots(include_str!("vectors/tokens.json"));
    let tokens = tokens();
    for (name, (case, token)) in &tokens {
        assert_eq!(token.verify(&roots), Ok(()), "{name}");
        assert_eq!(token.verify(&[]), Err(Disbelief::UnknownKey), "{name}");
        assert_eq!(case["root_id"], token.root_id, "{name}");
        assert_eq!(case["sealed"], token.sealed, "{name}");
        let terms = &case["terms"];
        assert_eq!(terms["lease"], hex(&token.terms.lease), "{name}");
        assert_eq!(terms["region"], hex(&token.terms.region), "{name}");
        assert_eq!(terms["grant"], json!(token.terms.grant.as_ref().map(|grant| hex(grant))), "{name}");
        assert_eq!(terms["cluster"], hex(&token.terms.cluster), "{name}");
        assert_eq!(terms["provider"], hex(&token.terms.provider), "{name}");
        assert_eq!(terms["holder"], hex(&token.terms.holder), "{name}");
        let first = &token.blocks[0].says;
        assert_eq!(Some(bits(&terms["rights"])), first.rights, "{name}");
        assert_eq!(terms["range"], json!([first.start, first.end]), "{name}");
        assert_eq!(terms["not_before"], json!(first.not_before), "{name}");
        assert_eq!(terms["expires"], json!(first.expires), "{name}");
        assert_eq!(terms["max_hops"], json!(first.hops), "{name}");
        let holders: Vec<_> = token.holders().iter().map(|holder| hex(holder)).collect();
        assert_eq!(case["holders"], json!(holders), "{name}");
        let blocks = case["blocks"].as_array().unwrap();
        assert_eq!(blocks.len(), token.blocks.len(), "{name}");
        for (index, (shown, block)) in blocks.iter().zip(&token.blocks).enumerate() {
            assert_eq!(shown["signature"], hex(&block.signature), "{name} {index}");
            let delegation = block.delegation.as_ref().map(|delegation| {
                json!({
                    "from": hex(&delegation.from),
                    "to": hex(&delegation.to),
                    "signature": hex(&delegation.signature),
                })
            });
            assert_eq!(shown["delegation"], json!(delegation), "{name} {index}");
            let kind = match (index, &delegation) {
                (0, _) => "authority",
                (_, None) => "attenuation",
                (_, Some(_)) => "delegation",
            };
            assert_eq!(shown["kind"], kind, "{name} {index}");
            if index > 0 {
                assert_eq!(narrows(&shown["narrows"]), block.says, "{name} {index}");
            }
            assert_eq!(shown["after"], Left::of(token, index + 1).shown(), "{name} {index}");
            let marks: Vec<_> = token.marks(index).iter().map(|mark| hex(mark)).collect();
            assert_eq!(shown["marks"], json!(marks), "{name} {index}");
        }
        let meters = token.blocks.iter().filter_map(|block| {
            let Says { opens, rate, budget, .. } = block.says;
            opens.or(rate).or(budget)?;
            let id = block.delegation.as_ref().map_or(&block.signature, |delegation| &delegation.signature);
            let key = hex(&mark("signature", id));
            Some(json!({ "key": key, "opens": opens, "bytes_per_second": rate, "bytes_total": budget }))
        });
        assert_eq!(case["meters"], Value::Array(meters.collect()), "{name}");
    }
    let hops = |name: &str| tokens[name].1.holders().len() - 1;
    assert_eq!((1..=7).map(|hop| hops(&format!("hops-{hop}"))).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
}

fn narrows(shown: &Value) -> Says {
    Says {
        rights: shown["rights"].as_u64().map(|bits| bits as u8),
        start: shown["start"].as_u64(),
        end: shown["end"].as_u64(),
        not_before: shown["not_before"].as_u64(),
        expires: shown["expires"].as_u64(),
        hops: shown["hops"].as_u64(),
        opens: shown["opens"].as_u64(),
        rate: shown["bytes_per_second"].as_u64(),
        budget: shown["bytes_total"].as_u64(),
    }
}

/// The first limit that a request falls outside of, with its code.
fn refusal(token: &Token, request: &Value) -> Option<(&'static str, &'static str)> {
    let left = Left::of(token, token.blocks.len());
    let now = request["now"].as_u64().unwrap();
    let asked: [u64; 2] = serde_json::from_value(request["range"].clone()).unwrap();
    let operation = ["read", "write", "share"].iter().position(|name| request["operation"] == *name).unwrap();
    let counted = |limit: Option<u64>, count: &str| match limit {
        None => true,
        Some(limit) => request["usage"][count].as_u64().is_some_and(|count| count <= limit),
    };
    let rules = [
        ("holder", "E_TOKEN_BOUND", unhex(&request["proven"]) == token.holders().pop().unwrap()),
        ("cluster", "E_EPOCH", unhex(&request["cluster"]) == token.terms.cluster),
        ("expires", "E_TOKEN_EXPIRED", now < left.says.expires.unwrap()),
        ("not_before", "E_TOKEN_NOT_YET", left.says.not_before.unwrap() <= now),
        ("hops", "E_DENIED", left.hops <= left.says.hops.unwrap()),
        ("lease", "E_DENIED", unhex(&request["lease"]) == token.terms.lease),
        ("region", "E_DENIED", unhex(&request["region"]) == token.terms.region),
        ("provider", "E_DENIED", unhex(&request["provider"]) == token.terms.provider),
        ("rights", "E_DENIED", left.says.rights.unwrap() >> operation & 1 == 1),
        ("range", "E_DENIED", left.range().is_some_and(|[start, end]| start <= asked[0] && asked[1] <= end)),
        ("opens", "E_DENIED", counted(left.says.opens, "opens")),
        ("rate", "E_DENIED", counted(left.says.rate, "bytes_per_second")),
        ("budget", "E_DENIED", counted(left.says.budget, "bytes_total")),
    ];
    rules.into_iter().find(|(_, _, holds)| !holds).map(|(limit, code, _)| (limit, code))
}

#[test]
fn requests_get_their_answers() {
    let tokens = tokens();
    let cases = cases(include_str!("vectors/requests.json"));
    let mut limits = BTreeMap::<_, u32>::new();
    for case in &cases {
        let name = &case["name"];
        let token = &tokens[case["token"].as_str().unwrap()].1;
        let refusal = refusal(token, case);
        assert_eq!(case["verdict"], refusal.map_or("allow", |(_, code)| code), "{name}");
        assert_eq!(case["limit"], json!(refusal.map(|(limit, _)| limit)), "{name}");
        *limits.entry(refusal.map(|(limit, _)| limit)).or_default() += 1;
    }
    assert_eq!(limits.len(), 14, "a yes, and a no by every limit: {limits:?}");
}

#[test]
fn revoking_kills_what_it_says() {
    let tokens = tokens();
    let killed = |marks: &[[u8; 32]]| {
        let dead = tokens.iter().filter(|(_, (_, token))| {
            token.marks(token.blocks.len() - 1).iter().any(|mark| marks.contains(mark))
        });
        json!(dead.map(|(name, _)| name).collect::<Vec<_>>())
    };
    let mut revoked = 0;
    for case in cases(include_str!("vectors/revocations.json")) {
        let marks = match case["revoke"].as_str().unwrap() {
            "holder" => vec![mark("delegate", &unhex(&case["holder"]))],
            _ => {
                let block = &tokens[case["token"].as_str().unwrap()].1.blocks
                    [case["block"].as_u64().unwrap() as usize];
                let delegation = block.delegation.as_ref().map(|delegation| &delegation.signature);
                let id = delegation.unwrap_or(&block.signature);
                assert_eq!(case["id"], hex(id));
                assert_eq!(case["kills_by_id_alone"], killed(&[mark("signature", id)]));
                let ids = std::iter::once(&block.signature).chain(delegation);
                ids.map(|id| mark("signature", id)).collect()
            }
        };
        assert_eq!(case["marks"], json!(marks.iter().map(|mark| hex(mark)).collect::<Vec<_>>()));
        assert_eq!(case["kills"], killed(&marks));
        revoked += case["kills"].as_array().unwrap().len();
    }
    assert!(revoked > 2 * tokens.len(), "every token dies by several");
}

#[test]
fn possession_is_a_signature_on_these_bytes() {
    let mut verdicts = BTreeMap::<_, u32>::new();
    for case in cases(include_str!("vectors/possession.json")) {
        let parts = ["node", "server_nonce", "client_nonce", "holder"].map(|name| unhex(&case[name]));
        let message = [&b"leasehold-pop-v1\0"[..], &parts.concat()].concat();
        assert_eq!((message.len(), &case["message"]), (129, &json!(hex(&message))), "{}", case["name"]);
        let proven = verify(&array(&case["holder"]), &message, &unhex(&case["signature"]));
        let verdict = proven.map_or("E_POSSESSION", |()| "ok");
        assert_eq!(case["verdict"], verdict, "{}", case["name"]);
        *verdicts.entry(verdict).or_default() += 1;
    }
    assert_eq!(verdicts, BTreeMap::from([("ok", 2), ("E_POSSESSION", 10)]));
}

#[test]
fn both_parties_sign_these_bytes() {
    let mut verdicts = BTreeMap::<_, u32>::new();
    for case in cases(include_str!("vectors/share.json")) {
        let contract = &case["contract"];
        let mut message = b"leasehold-share-v1\0".to_vec();
        for name in ["cluster", "grant", "lease", "region", "owner", "receiver"] {
            message.extend(unhex(&contract[name]));
        }
        message.push(bits(&contract["rights"]));
        for number in [&contract["range"][0], &contract["range"][1], &contract["ttl_us"]] {
            message.extend(number.as_u64().unwrap().to_be_bytes());
        }
        message.push(contract["max_hops"].as_u64().unwrap() as u8);
        let cosigner = contract.get("cosigner").filter(|key| !key.is_null());
        if let Some(key) = cosigner {
            message.push(1);
            message.extend(unhex(key));
        }
        assert_eq!(case["message"], hex(&message), "{}", case["name"]);
        assert_eq!(case["digest"], hex(&Sha256::digest(&message)), "{}", case["name"]);
        let signed = |party: &str, by: &str| verify(&array(&contract[party]), &message, &unhex(&case[by]));
        let agreed = signed("owner", "by_owner").and(signed("receiver", "by_receiver"));
        let agreed = agreed.is_ok() && contract["owner"] != contract["receiver"];
        let agreed = agreed
            && match cosigner {
                Some(key) => {
                    let apart = *key != contract["owner"] && *key != contract["receiver"];
                    apart && case["by_cosigner"].is_string() && signed("cosigner", "by_cosigner").is_ok()
                }
                None => case["by_cosigner"].is_null(),
            };
        let verdict = if agreed { "ok" } else { "E_CONTRACT_SIG" };
        assert_eq!(case["verdict"], verdict, "{}", case["name"]);
        *verdicts.entry(verdict).or_default() += 1;
    }
    assert_eq!(verdicts, BTreeMap::from([("ok", 6), ("E_CONTRACT_SIG", 21)]));
}

/// The second verifier has no gate, so that of the hostile tokens it can judge those that are tokens.
#[test]
fn hostile_tokens_that_are_tokens_have_a_wrong_key_signature_or_holder() {
    let file = include_str!("vectors/hostile.json");
    let roots = roots(file);
    let mut judged = 0;
    for case in cases(file) {
        let expected = match case["verdict"].as_str().unwrap() {
            "E_TOKEN_SIG" => Disbelief::Signature,
            "E_TOKEN_UNKNOWN_KEY" => Disbelief::UnknownKey,
            _ => continue,
        };
        let verdict = Token::read(&unhex(&case["token"]))
            .map_or(Err(Disbelief::UnknownKey), |token| token.verify(&roots));
        assert_eq!(verdict, Err(expected), "{}", case["name"]);
        judged += 1;
    }
    assert!(judged >= 19, "{judged}");
}

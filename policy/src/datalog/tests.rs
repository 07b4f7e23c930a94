use caps::id::PrincipalKey;
use caps::rights::Rights;
use caps::time::Micros;
use caps::wire::Name;
use proptest::prelude::*;

use super::*;
use crate::Severity;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn facts(kind: Kind) -> Facts {
    let mut facts = Facts::new(kind, PrincipalKey([7; 32]), Some(name("alice")), Some(1000));
    facts.bytes = Some(65_536);
    facts.ttl = Some(Micros(60_000_000));
    facts
}

fn ok(text: &str) -> Policy {
    Policy::parse(text, "p.dl").unwrap_or_else(|mistakes| panic!("{text}\n{mistakes:#?}"))
}

fn refused(text: &str) -> Vec<(u32, u32, String)> {
    let mistakes = Policy::parse(text, "p.dl").expect_err(text);
    assert!(
        mistakes
            .iter()
            .all(|mistake| mistake.code == Code::PolicySyntax && mistake.severity == Severity::Error)
    );
    mistakes.into_iter().map(|mistake| (mistake.line, mistake.column, mistake.message)).collect()
}

fn allowed(text: &str, facts: &Facts) -> bool {
    let policy = ok(text);
    let decision = policy.decide_uncached(facts).unwrap();
    assert_eq!(policy.decide(facts).unwrap(), decision);
    assert_eq!(policy.decide(facts).unwrap(), decision, "the remembered one");
    decision.allowed
}

#[test]
fn the_default_lets_the_registered_in_and_nobody_else() {
    let policy = ok(DEFAULT);
    assert_eq!(policy.lint(false), []);
    for kind in Kind::ALL {
        let mut facts = facts(kind);
        facts.receiver = Some((PrincipalKey([9; 32]), name("bob")));
        let yes = policy.decide(&facts).unwrap();
        assert!(yes.allowed, "{kind:?}");
        assert!(yes.rule.unwrap().text.contains(kind.name()));
        facts.name = None;
        let no = policy.decide(&facts).unwrap();
        assert!(!no.allowed, "{kind:?}");
        assert_eq!(no.clone().rule.unwrap().text.as_ref(), "deny if true");
        assert_eq!(no.into_result().unwrap_err().code(), Code::PolicyDenied);
    }
    assert!(!policy.decide(&facts(Kind::ShareIssue)).unwrap().allowed, "to an unregistered receiver");
}

/// The examples in the comments of the default file work as they stand there.
#[test]
fn the_examples_of_the_default_work() {
    let examples: String = DEFAULT
        .lines()
        .filter_map(|line| line.strip_prefix("//     "))
        .filter(|line| {
            ["role(", "operator(", "allow if request", "deny if request"].iter().any(|s| line.starts_with(s))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(examples.lines().count(), 11, "{examples}");
    let policy = ok(&(examples + DEFAULT));
    assert_eq!(policy.lint(false), []);
    let mut create = facts(Kind::LeaseCreate);
    assert!(policy.decide(&create).unwrap().allowed);
    create.bytes = Some((1 << 30) + 1);
    assert!(!policy.decide(&create).unwrap().allowed);
    let mut share = facts(Kind::ShareIssue);
    share.rights = Rights::READ_WRITE;
    share.receiver = Some((PrincipalKey([9; 32]), name("bob")));
    assert!(!policy.decide(&share).unwrap().allowed, "for writing, with nobody to co-sign");
    share.cosigner = Some((PrincipalKey([11; 32]), name("eve")));
    assert!(!policy.decide(&share).unwrap().allowed, "somebody else co-signs");
    share.cosigner = Some((PrincipalKey([11; 32]), name("security")));
    assert!(policy.decide(&share).unwrap().allowed);
    share.receiver = Some((PrincipalKey([9; 32]), name("mallory")));
    assert!(!policy.decide(&share).unwrap().allowed);
    (share.rights, share.cosigner) = (Rights::READ, None);
    assert!(policy.decide(&share).unwrap().allowed);
    let mut open = facts(Kind::LeaseOpen);
    for (hops, allowed) in [(1, true), (2, false)] {
        open.hops = Some(hops);
        assert_eq!(policy.decide(&open).unwrap().allowed, allowed, "delegated {hops} times");
    }
    let mut give = facts(Kind::QuotaGive);
    for (to, allowed) in [("server", true), ("mallory", false)] {
        give.receiver = Some((PrincipalKey([9; 32]), name(to)));
        assert_eq!(policy.decide(&give).unwrap().allowed, allowed, "to {to}");
    }
    give.receiver = None;
    assert!(!policy.decide(&give).unwrap().allowed, "to somebody who is not registered");
    let mut accept = facts(Kind::TransferAccept);
    assert!(policy.decide(&accept).unwrap().allowed);
    accept.class = Some(name("training"));
    assert!(!policy.decide(&accept).unwrap().allowed, "of that class for one alone");
    let mut transfer = facts(Kind::TransferOffer);
    transfer.receiver = Some((PrincipalKey([9; 32]), name("bob")));
    assert!(!policy.decide(&transfer).unwrap().allowed, "a lease goes to the archive or nowhere");
    assert!(ok(DEFAULT).decide(&transfer).unwrap().allowed);
}

#[test]
fn every_fact_can_be_asked_for() {
    let mut all = facts(Kind::ShareIssue);
    all.class = Some(name("training"));
    all.receiver = Some((PrincipalKey([9; 32]), name("bob")));
    all.rights = Rights::READ;
    all.cosigner = Some((PrincipalKey([11; 32]), name("security")));
    let key = |byte: &str| format!("hex:{}", byte.repeat(32));
    for (condition, expected) in [
        ("request(\"share.issue\")".into(), true),
        ("request(\"revoke\")".into(), false),
        ("principal($k, \"alice\")".into(), true),
        (format!("principal({}, $n)", key("07")), true),
        (format!("principal({}, $n)", key("08")), false),
        ("uid(1000)".into(), true),
        ("uid(0)".into(), false),
        ("size($b), $b <= 65536".into(), true),
        ("size($b), $b < 65536".into(), false),
        ("ttl($t), $t === 60000000".into(), true),
        ("class(\"training\")".into(), true),
        (format!("receiver({}, \"bob\")", key("09")), true),
        ("right(\"read\")".into(), true),
        (format!("cosigner({}, \"security\")", key("0b")), true),
        ("cosigner($k, \"bob\")".into(), false),
        ("right(\"write\")".into(), false),
        ("principal($k, $n), receiver($k, $m)".into(), false),
        ("principal($k, $n), {\"alice\", \"eve\"}.contains($n) && $n.starts_with(\"al\")".into(), true),
        ("principal($k, $n), $n.length() > 5 || !$n.ends_with(\"ce\")".into(), false),
        ("uid(0) or uid(1000)".into(), true),
    ] {
        assert_eq!(allowed(&format!("allow if {condition};"), &all), expected, "{condition}");
    }
    let bare = Facts::new(Kind::Revoke, PrincipalKey([7; 32]), None, Some(0));
    for absent in [
        "principal($a, $b)",
        "size($a)",
        "ttl($a)",
        "class($a)",
        "receiver($a, $b)",
        "right($a)",
        "cosigner($a, $b)",
    ] {
        assert!(!allowed(&format!("allow if {absent};"), &bare), "{absent}");
    }
}

#[test]
fn the_first_match_decides_and_the_rest_is_denied() {
    let text = "\n// one\nallow if uid(1), size($b);\n\ndeny if uid(1); allow if  // here\n  uid(2)\n;";
    let policy = ok(text);
    let ask = |uid, bytes| {
        let mut facts = Facts::new(Kind::Revoke, PrincipalKey([7; 32]), None, Some(uid));
        facts.bytes = bytes;
        let decision = policy.decide(&facts).unwrap();
        assert_eq!(decision.policy, policy.hash());
        (decision.allowed, decision.rule.map(|rule| (rule.index, rule.line, rule.text.to_string())))
    };
    assert_eq!(ask(1, Some(1)), (true, Some((0, 3, "allow if uid(1), size($b)".into()))));
    assert_eq!(ask(1, None), (false, Some((1, 5, "deny if uid(1)".into()))));
    assert_eq!(ask(2, None), (true, Some((2, 5, "allow if uid(2)".into()))));
    assert_eq!(ask(3, None), (false, None));
    assert_eq!(policy.rules().len(), 3);
    assert_eq!(
        ok("").hash().to_string(),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "sha256sum of the file"
    );
}

#[test]
fn own_facts_and_rules_make_roles() {
    let text = r#"
        role("alice", "ops"); role("bob", "dev");
        may($n) <- role($n, "ops");
        may($n) <- role($n, $r), {"lead"}.contains($r);
        allow if principal($k, $n), may($n);
        deny if true;
    "#;
    assert_eq!(ok(text).lint(false), []);
    let mut facts = facts(Kind::Revoke);
    assert!(allowed(text, &facts));
    facts.name = Some(name("bob"));
    assert!(!allowed(text, &facts));
}

#[test]
fn what_is_not_the_language_is_refused_with_its_place() {
    for (text, line, column) in [
        ("allow", 1, 1),
        ("allow if", 1, 1),
        ("deny if true;\nallow uid(1);", 2, 1),
        ("check if true;", 1, 1),
        ("reject if true;", 1, 1),
        ("allow if uid($u), $v == 1;", 1, 1),
        ("request(\"revoke\");", 1, 1),
        ("principal($k, $n) <- receiver($k, $n);", 1, 1),
        ("f($x);", 1, 3),
        ("f($x) <- g($y);", 1, 1),
        ("allow if f(2027-01-15T09:00:00Z);", 1, 1),
        ("allow if f(null);", 1, 1),
        ("allow if f([1]);", 1, 1),
        ("allow if f({\"a\": 1});", 1, 1),
        ("allow if f({p});", 1, 1),
        ("allow if uid($u), $u + 1 > 2;", 1, 1),
        ("allow if principal($k, $n), $n.matches(\"a\");", 1, 1),
        ("allow if uid($u), {1, 2}.any($x -> $x == $u);", 1, 1),
        ("allow if uid($u), $u.extern::f();", 1, 1),
        ("allow if uid($u) trusting authority;", 1, 1),
        (
            "allow if uid($u) trusting ed25519/0000000000000000000000000000000000000000000000000000000000000000;",
            1,
            1,
        ),
        ("allow if f(1), f(2), f(3), f(4), f(5), f(6);", 1, 1),
        ("f(1,2,3,4,5,6,7,8,9);", 1, 1),
        ("uid(1, 2) <- f(1);", 1, 1),
        ("allow if uid(1, 2);", 1, 1),
        ("f(1);\nf(1, 2);\nallow if f($x);", 1, 1),
        ("f($x) <- f($x);", 1, 1),
        ("f($x) <- g($x);\ng($x) <- f($x);", 1, 1),
        ("a($x)<-uid($x);b($x)<-a($x);c($x)<-b($x);d($x)<-c($x);\ne($x)<-d($x);", 2, 1),
    ] {
        let first = &refused(text)[0];
        assert!(first.0 == line && (first.1 == column || column == 1), "{text}: {first:?}");
    }
    let both = refused("allow if );\nf(null);\ndeny if true;\nallow of;\n");
    assert_eq!(both.iter().map(|mistake| mistake.0).collect::<Vec<_>>(), [1, 2, 4], "all at once");
}

#[test]
fn work_is_bounded_by_shape() {
    let facts = |count: usize| (0..count).map(|at| format!("f({at}, {});\n", at + 1)).collect::<String>();
    let join = "allow if f($a, $b), f($b, $c), f($c, $d);";
    assert!(Policy::parse(&format!("{}{join}", facts(24)), "p").is_ok());
    assert_eq!(refused(&format!("{}{join}", facts(64)))[0].0, 65, "262,144 combinations");
    let rule = "g($a, $c) <- f($a, $b), f($b, $c);";
    assert_eq!(refused(&format!("{}{rule}\nallow if g($a, $b);", facts(64)))[0].0, 65);
    assert_eq!(refused(&facts(65)).last().unwrap().2, "there are too many facts");
    let many = "deny if uid(1);\n".repeat(POLICY_STATEMENTS_MAX + 1);
    assert_eq!(refused(&many)[0].0 as usize, POLICY_STATEMENTS_MAX + 1);
    let or = format!("allow if {};", ["uid(1)"; POLICY_QUERIES_MAX + 1].join("\n or "));
    assert_eq!(refused(&or)[0].2, "there are too many alternatives");
}

/// The deepest and longest that is let through to the parser, on a stack a quarter of what a thread gets.
#[test]
fn the_parser_has_stack_to_spare() {
    let depth = POLICY_NESTING_MAX;
    let texts = [
        format!("allow if {}true{};", "(".repeat(depth), ")".repeat(depth)),
        format!("allow if {}true;", "!".repeat(depth)),
        format!("allow if {}true{};", "!(".repeat(depth), ")".repeat(depth)),
        format!("allow if {}1{};", "[".repeat(depth), "]".repeat(depth)),
        format!("allow if {}1{};", "{1:".repeat(depth), "}".repeat(depth)),
        format!("allow if {}1{};", "{\"a\":[".repeat(depth / 2), "]}".repeat(depth / 2)),
        format!("allow if true{};", "\n&& true".repeat((POLICY_TOKENS_MAX - 10) / 3)),
        format!("allow if true{};", "\n|| true".repeat((POLICY_TOKENS_MAX - 10) / 3)),
        format!("allow if 1{} == 1;", "\n.length()".repeat((POLICY_TOKENS_MAX - 10) / 4)),
        format!("allow if {}true;", "(".repeat(5_000)),
        format!("allow if {}true;", "!".repeat(10_000)),
    ];
    let thread = std::thread::Builder::new().stack_size(512 * 1024);
    let parse = move || {
        for text in texts {
            if let Ok(policy) = Policy::parse(&text, "p") {
                let _ = policy.lint(false);
                let _ = policy.decide(&facts(Kind::Revoke));
            }
        }
    };
    thread.spawn(parse).unwrap().join().unwrap();
}

#[test]
fn k7_bytes_that_are_no_text() {
    let mistakes = Policy::parse_bytes(b"deny if true;\n\xff", "p").unwrap_err();
    assert_eq!((mistakes[0].line, mistakes[0].column, mistakes[0].code), (2, 1, Code::PolicySyntax));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.dl");
    std::fs::write(&path, "x".repeat(1 << 20)).unwrap();
    let mistakes = Policy::load(&path).unwrap_err();
    assert_eq!((mistakes[0].line, mistakes[0].code), (1, Code::PolicySyntax));
    std::fs::write(&path, [0xff]).unwrap();
    assert_eq!(Policy::load(&path).unwrap_err()[0].code, Code::PolicySyntax);
    std::fs::write(&path, DEFAULT).unwrap();
    assert_eq!(Policy::load(&path).unwrap().hash(), ok(DEFAULT).hash());
    assert_eq!(Policy::load(dir.path()).unwrap_err()[0].code, Code::ConfigIo);
}

fn linted(text: &str) -> Vec<(Severity, u32)> {
    let found = ok(text).lint(false);
    assert!(found.iter().all(|mistake| mistake.code == Code::PolicyLint));
    found.into_iter().map(|mistake| (mistake.severity, mistake.line)).collect()
}

#[test]
fn k8_allow_all_must_be_meant() {
    use Severity::Error;
    for text in [
        "allow if true;",
        "allow if request($k);",
        "allow if uid($u), $u >= 0;",
        "allow if !false;",
        "deny if uid(0);\nallow if 1 < 2; deny if true;",
    ] {
        let found = linted(text);
        assert!(found.contains(&(Error, text.lines().count() as u32)), "{text}: {found:?}");
        let meant = ok(text).lint(true);
        assert!(meant.iter().all(|mistake| !mistake.message.contains("everybody")), "{meant:?}");
        let pragma = ok(&format!("// leasehold: allow_all = true\n{text}")).lint(false);
        assert!(pragma.iter().all(|mistake| !mistake.message.contains("everybody")), "{pragma:?}");
    }
    assert!(linted("// leasehold: allow_all = false\nallow if true;").contains(&(Error, 2)));
}

#[test]
fn k8_shadowed_statements() {
    use Severity::{Error, Warning};
    let all = "allow if principal($k, $n);\n";
    let end = "\ndeny if true;";
    for (text, expected) in [
        ("deny if true; allow if uid(1); deny if true;".into(), vec![(Warning, 1)]),
        ("allow if uid(1);\ndeny if uid(1), size($b), $b > 5;\ndeny if true;".into(), vec![(Error, 2)]),
        ("allow if uid($u), $u < 4;\ndeny if uid($v), $v < 4, class(\"x\");\ndeny if true;".into(), vec![(Error, 2)]),
        ("allow if uid($u), $u < 4;\ndeny if uid($v), $v < 5;\ndeny if true;".into(), vec![]),
        ("allow if uid(1);\ndeny if uid(2);\ndeny if true;".into(), vec![]),
        ("allow if uid(1), class(\"x\");\ndeny if uid(1);\ndeny if true;".into(), vec![]),
        (format!("{all}deny if size($b), $b > 5;{end}"), vec![(Warning, 2)]),
        (format!("{all}deny if request(\"revoke\");{end}"), vec![]),
        (format!("deny if size($b), $b > 5;\n{all}{end}"), vec![]),
        ("allow if principal($k, $n), receiver($k, $m);\ndeny if principal($a, $b), uid(1);\ndeny if true;".into(), vec![]),
        ("allow if principal(\n$k, $n);\ndeny if principal($a, $b), uid(1);\ndeny if true;".into(), vec![(Error, 3)]),
    ] {
        let found: Vec<_> = linted(&text);
        assert_eq!(found, expected, "{text}");
    }
    let stated = ok("allow if true;\ndeny if uid(1);\ndeny if true;").lint(true);
    assert!(stated.iter().any(|mistake| mistake.severity == Error && mistake.line == 2), "{stated:?}");
}

#[test]
fn k8_unknown_words_and_what_never_matches() {
    use Severity::{Error, Warning};
    for bad in [
        "role($n, \"ops\")",
        "request(\"lease.creat\")",
        "request($k), $k == \"lease.creat\"",
        "request($k), {\"revoke\", \"lease.creat\"}.contains($k)",
        "right(\"reed\")",
        "size(\"1\")",
        "uid(-1)",
        "principal(\"alice\", $n)",
        "principal($k, \"no name\")",
        "principal(hex:00, $n)",
    ] {
        assert_eq!(linted(&format!("deny if {bad};\ndeny if true;")), [(Error, 1)], "{bad}");
    }
    for fine in
        ["request($k), $k.starts_with(\"lease.\")", "request($k), $k != \"revoke\"", "uid($u), $u > 5"]
    {
        assert_eq!(linted(&format!("deny if {fine};\ndeny if true;")), [], "{fine}");
    }
    assert_eq!(linted("f(1);\ndeny if true;"), [(Warning, 1)]);
    assert_eq!(linted("deny if uid(1);"), [(Warning, 1)]);
    assert_eq!(linted("// nothing\n"), [(Warning, 1)]);
}

#[test]
fn a_rule_that_cannot_be_evaluated_is_an_error_and_no_answer() {
    use Severity::Error;
    let text = "deny if uid(7);\nallow if principal($k, $n), $n < 5;\ndeny if true;";
    assert_eq!(linted(text), [(Error, 2)]);
    let error = ok(text).decide(&facts(Kind::Revoke)).unwrap_err();
    assert_eq!(error.code(), Code::PolicyLint);
    let text = "f($n) <- principal($k, $n), $n.length() > \"a\";\nallow if f($n);\ndeny if true;";
    assert!(linted(text).iter().any(|found| found.0 == Error));
}

#[test]
fn numbers_that_do_not_fit_are_an_error_and_no_answer() {
    let policy = ok(DEFAULT);
    let mut facts = facts(Kind::LeaseCreate);
    facts.bytes = Some(i64::MAX as u64);
    assert!(policy.decide(&facts).unwrap().allowed);
    facts.bytes = Some(1 << 63);
    assert_eq!(policy.decide(&facts).unwrap_err().code(), Code::Range);
}

#[test]
fn a_limit_is_an_error_and_no_answer() {
    // 38 x 38 derived facts are within the combinations, and beyond the facts of one decision.
    let stated: String = (0..38).map(|at| format!("f({at});\n")).collect();
    let text = format!("{stated}g($a, $b) <- f($a), f($b);\nallow if g($a, $b);");
    let policy = ok(&text);
    assert_eq!(policy.decide(&facts(Kind::Revoke)).unwrap_err().code(), Code::TokenLimit);
    assert!(linted(&text).contains(&(Severity::Error, 39)), "and the lint says so before the first request");
    assert_eq!(
        policy.decide(&facts(Kind::Revoke)).unwrap_err().code(),
        Code::TokenLimit,
        "errors are not remembered"
    );
}

#[test]
fn the_memory_is_bounded_and_keeps_what_is_asked_for() {
    let policy = ok("allow if size($b), $b > 10; deny if true;");
    let mut asked = facts(Kind::LeaseCreate);
    for bytes in 0..POLICY_MEMO_MAX as u64 * 3 {
        asked.bytes = Some(bytes);
        policy.memo.put(asked.clone(), Decision { allowed: bytes > 10, rule: None, policy: policy.hash() });
        assert!(policy.memo.len() <= POLICY_MEMO_MAX);
        asked.bytes = Some(0);
        assert!(!policy.memo.get(&asked).expect("asked for all the time").allowed);
    }
    asked.bytes = Some(1);
    assert_eq!(policy.memo.get(&asked), None, "long ago");
    asked.bytes = Some(11);
    assert!(policy.decide(&asked).unwrap().allowed);
}

#[test]
fn decisions_are_shared_between_threads() {
    let policy = Arc::new(ok(DEFAULT));
    let threads: Vec<_> = (0..4)
        .map(|at| {
            let policy = Arc::clone(&policy);
            std::thread::spawn(move || {
                for bytes in 0..50 {
                    let mut facts = facts(Kind::LeaseCreate);
                    facts.bytes = Some(bytes % (at + 2));
                    assert!(policy.decide(&facts).unwrap().allowed);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

proptest! {
    /// A name is a value, whatever it looks like: it allows exactly what the rule about it says.
    #[test]
    fn names_cannot_speak_datalog(who in "[A-Za-z0-9_][A-Za-z0-9._-]{0,63}") {
        let policy = ok("allow if principal($k, \"alice\"); deny if true;");
        let mut facts = facts(Kind::Revoke);
        facts.name = Some(name(&who));
        facts.class = Some(name(&who));
        prop_assert_eq!(policy.decide(&facts).unwrap().allowed, who == "alice");
    }

    /// The engine and plain arithmetic agree.
    #[test]
    fn sizes_compare_as_numbers(bytes: u64, limit in 0..=i64::MAX) {
        let policy = ok(&format!("allow if size($b), $b <= {limit};"));
        let mut facts = facts(Kind::LeaseCreate);
        facts.bytes = Some(bytes);
        match policy.decide(&facts) {
            Ok(decision) => prop_assert_eq!(decision.allowed, bytes <= limit as u64),
            Err(error) => prop_assert!(error.code() == Code::Range && bytes > i64::MAX as u64),
        }
    }
}

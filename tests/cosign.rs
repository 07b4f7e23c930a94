//! A share that is only good when a third party, named in the contract, has signed it, too; and a policy that demands it.

#[path = "common/mod.rs"]
mod common;

use std::fs;
use std::path::Path;

use caps::share::{ShareContract, ShareFile, Signed};
use caps::wire::{Reply, Request};
use common::raw::Raw;
use common::shell::Shell;
use common::world::Person;
use common::{Ask, MINUTE, SMALL, Said, USERS, World, log, refused};
use libmem::{Code, LeaseOptions, Lifetime, Name, Reason, Rights, ShareOptions, SigningKey, Target, aio};
use serde_json::json;

#[test]
#[ignore = "a client process of the other tests"]
fn client_process() {
    common::player::play();
}

/// A node whose policy is the default one, after the example of a co-signature in its own comments.
fn strict() -> World {
    let default = include_str!("../policy/src/datalog/default.dl");
    let examples: String = default
        .lines()
        .filter_map(|line| line.strip_prefix("//     "))
        .filter(|line| {
            line.contains("share.issue") && (line.contains("cosigner") || line.ends_with("right(\"write\");"))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(examples.lines().count(), 2, "{examples}");
    let policy = tempfile::NamedTempFile::new().unwrap();
    fs::write(policy.path(), examples + default).unwrap();
    World::with(&format!("[policy]\nfile = {:?}\n", policy.path()))
}

/// A principal of this name.
fn named(world: &World, name: &str) -> SigningKey {
    let key = SigningKey::generate();
    world.admin.principal_add(Name::new(name).unwrap(), key.public()).unwrap();
    key
}

fn code_of(said: Said) -> String {
    match said {
        Said::Refused { code } => code,
        other => panic!("must be refused: {other:?}"),
    }
}

fn raw(world: &World, who: &Person) -> Raw {
    Raw::connect(world.node.endpoint().path().expect("a socket"), &who.key).unwrap()
}

/// Three processes, as root of three users: the owner's is gone when the third party signs.
#[test]
fn three_users_and_a_policy_that_demands_the_third() {
    let world = strict();
    let [alice, bob, eve] = [(); 3].map(|()| world.register());
    let security = named(&world, "security");
    let mut owner = world.actor(&alice, USERS[0]);
    let mut receiver = world.actor(&bob, USERS[1]);
    let mut third = world.actor(&security, USERS[2]);
    let (lease, token) = owner.lease(SMALL, MINUTE.as_millis() as u64, true);
    let memory = owner.open(&token, Rights::READ_WRITE, true);
    let write = Ask::Write { memory, offset: 8, bytes: b"signed by three".to_vec() };
    assert!(matches!(owner.ask(&write), Said::Done));

    // For reading nobody has to sign; for writing somebody, and that is not just anybody.
    let offer =
        |to: &SigningKey, rights| Ask::Offer { lease: lease.clone(), to: to.public(), rights, range: None };
    assert!(matches!(owner.ask(&offer(&eve, Rights::READ)), Said::Offered { .. }));
    assert_eq!(code_of(owner.ask(&offer(&bob, Rights::READ_WRITE))), "E_POLICY_DENIED");
    let with = |cosigner: &SigningKey| Ask::OfferCosigned {
        lease: lease.clone(),
        to: bob.public(),
        rights: Rights::READ_WRITE,
        cosigner: cosigner.public(),
    };
    assert_eq!(code_of(owner.ask(&with(&eve))), "E_POLICY_DENIED");
    let Said::Offered { grant } = owner.ask(&with(&security)) else { panic!("not offered") };

    // Nothing comes of it before.
    assert_eq!(code_of(receiver.ask(&Ask::Accept { grant, detached: true })), "E_SHARE_ORDER");
    owner.kill();
    drop(owner);
    assert!(matches!(third.ask(&Ask::Cosign { grant }), Said::Done));
    assert_eq!(code_of(third.ask(&Ask::Cosign { grant })), "E_SHARE_ORDER");
    let Said::Accepted { token } = receiver.ask(&Ask::Accept { grant, detached: true }) else {
        panic!("not accepted")
    };
    let memory = receiver.open(&token, Rights::READ_WRITE, true);
    assert_eq!(receiver.read(memory, 8, 15), b"signed by three");
    let written = receiver.ask(&Ask::Write { memory, offset: 8, bytes: b"S".to_vec() });
    assert!(matches!(written, Said::Done));
    // The third party signed, and has nothing of it.
    let open = Ask::Open { token, rights: Rights::READ, mapped: false };
    assert_eq!(code_of(third.ask(&open)), "E_TOKEN_BOUND");

    let owner = world.connect(&alice);
    owner.revoke(Target::Grant(grant), Reason::new("over").unwrap()).unwrap();
    let read = receiver.ask(&Ask::Read { memory, offset: 8, length: 1 });
    assert_eq!(code_of(read), "E_REVOKED");
    owner.release(lease.id).unwrap();
    drop((owner, receiver, third));
    world.balances();
    let log = world.finish();
    let mut steps: Vec<_> =
        log.broker.iter().filter(|entry| entry["grant"] == grant.to_string()[..]).collect();
    steps.sort_by_key(|entry| entry["seq"].as_str().unwrap().parse::<u64>().unwrap());
    let done: Vec<_> = steps
        .iter()
        .filter(|entry| entry["outcome"] == "ok")
        .map(|entry| (entry["event"].as_str().unwrap(), entry["cause"].as_str()))
        .collect();
    assert_eq!(
        done,
        [
            ("share.offer", None),
            ("share.offer", Some("cosigned")),
            ("share.issue", None),
            ("share.accept", None),
            ("share.open", None),
            ("share.end", Some("revoked")),
        ]
    );
    let who =
        |at: usize| steps.iter().filter(|entry| entry["outcome"] == "ok").nth(at).unwrap()["subject"].clone();
    assert_eq!((who(0), who(1)), (json!(alice.public().to_string()), json!(security.public().to_string())));
}

#[test]
fn only_the_third_can_sign_and_only_what_was_offered() {
    let world = World::new();
    let (alice, bob, carol, mallory) = (world.person(), world.person(), world.person(), world.person());
    let leased = alice.lease(SMALL);
    let cluster = alice.client.welcome().cluster;
    let options =
        |third: &Person| ShareOptions::new(bob.key.public(), Rights::READ).cosigner(third.key.public());
    // The third is neither of the two: the library does not sign it, and the node does not take it.
    for third in [&alice, &bob] {
        refused(alice.client.share_offer(&leased.lease, &options(third), &alice.key), Code::Range);
    }
    let good = options(&carol).contract(cluster, &leased.lease).unwrap();
    let mut hand = raw(&world, &alice);
    for third in [&alice, &bob] {
        let contract = ShareContract { cosigner: Some(third.key.public()), ..good };
        refused(
            hand.ask(&Request::ShareOffer { contract, signature: contract.sign(&alice.key) }),
            Code::Range,
        );
    }
    let nobody = ShareContract { cosigner: Some(SigningKey::generate().public()), ..good };
    let offer = Request::ShareOffer { contract: nobody, signature: nobody.sign(&alice.key) };
    refused(hand.ask(&offer), Code::PrincipalUnknown);
    // The owner's signature is over the name of the third as well.
    let plain = ShareContract { cosigner: None, ..good };
    for (contract, signed) in [(good, plain), (plain, good)] {
        let offer = Request::ShareOffer { contract, signature: signed.sign(&alice.key) };
        refused(hand.ask(&offer), Code::ContractSignature);
    }

    let grant = alice.client.share_offer(&leased.lease, &options(&carol), &alice.key).unwrap();
    assert_eq!(
        grant.cosigner.as_ref().map(|third| (third.key, third.signed)),
        Some((carol.key.public(), false))
    );
    refused(mallory.client.share_show(grant.id), Code::GrantUnknown);
    let proposal = carol.client.share_show(grant.id).unwrap();
    assert_eq!((proposal.by_cosigner, carol.client.shares().count()), (None, 1));
    let contract = proposal.contract;
    let cosign = |signature| Request::ShareCosign { grant: grant.id, signature };
    let by_carol = contract.sign(&carol.key);
    refused(raw(&world, &mallory).ask(&cosign(by_carol)), Code::GrantUnknown);
    refused(raw(&world, &bob).ask(&cosign(by_carol)), Code::Denied);
    refused(hand.ask(&cosign(by_carol)), Code::Denied);
    let mut hers = raw(&world, &carol);
    let other = ShareContract { rights: Rights::READ_WRITE, ..contract };
    let bare = ShareContract { cosigner: None, ..contract };
    for wrong in
        [other.sign(&carol.key), bare.sign(&carol.key), contract.sign(&alice.key), contract.sign(&bob.key)]
    {
        refused(hers.ask(&cosign(wrong)), Code::ContractSignature);
    }
    // All of which changed nothing.
    refused(bob.client.share_accept(&contract, Lifetime::Detached, &bob.key), Code::ShareOrder);
    assert!(matches!(hers.ask(&cosign(by_carol)), Ok(Reply::Shared(_))));
    refused(hers.ask(&cosign(by_carol)), Code::ShareOrder);
    let accepted = bob.client.share_accept(&contract, Lifetime::Detached, &bob.key).unwrap();
    let pair = accepted.pair.unwrap();
    assert_eq!((pair.by_cosigner, *pair.verify().unwrap().contract()), (Some(by_carol), contract));

    // Withdrawn, and ended with its lease: it cannot be signed any more.
    let reason = || Reason::new("over").unwrap();
    let withdrawn = alice.client.share_offer(&leased.lease, &options(&carol), &alice.key).unwrap().id;
    let contract = carol.client.share_show(withdrawn).unwrap().contract;
    assert!(carol.client.revoke(Target::Grant(withdrawn), reason()).is_err(), "it is not hers to take back");
    alice.client.revoke(Target::Grant(withdrawn), reason()).unwrap();
    refused(carol.client.share_cosign(&contract, &carol.key), Code::ShareOrder);
    let waiting = alice.client.share_offer(&leased.lease, &options(&carol), &alice.key).unwrap().id;
    let contract = carol.client.share_show(waiting).unwrap().contract;
    alice.client.release(leased.lease.id).unwrap();
    refused(carol.client.share_cosign(&contract, &carol.key), Code::ShareOrder);

    drop((alice, bob, carol, mallory, hand, hers));
    world.balances();
    world.finish();
}

/// What the asynchronous client says of co-signing, checking a token and taking one back.
#[test]
fn the_asynchronous_client_signs_checks_and_takes_back() {
    let world = World::new();
    let (alice, bob, carol) = (world.person(), world.person(), world.person());
    let leased = alice.client.lease(LeaseOptions::new(SMALL, MINUTE).lifetime(Lifetime::Detached)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let connect =
            async |who: &Person| aio::Client::connect(&world.node.endpoint(), &who.key).await.unwrap();
        let (owner, receiver, third) = (connect(&alice).await, connect(&bob).await, connect(&carol).await);
        let options = ShareOptions::new(bob.key.public(), Rights::READ).cosigner(carol.key.public());
        let grant = owner.share_offer(&leased.lease, &options, &alice.key).await.unwrap().id;
        let contract = third.share_show(grant).await.unwrap().contract;
        refused(owner.share_cosign(&contract, &alice.key).await, Code::Denied);
        let row = third.share_cosign(&contract, &carol.key).await.unwrap();
        assert!(row.cosigner.unwrap().signed);
        refused(third.share_cosign(&contract, &carol.key).await, Code::ShareOrder);
        let accepted = receiver.share_accept(&contract, Lifetime::Detached, &bob.key).await.unwrap();

        // A check opens nothing, and answers those only whom the token concerns.
        let token = &accepted.token;
        let state = receiver.token_check(token).await.unwrap();
        assert_eq!((state.code, state.block), (None, None));
        assert!(state.expires_in.0 > 0 && state.expires_in.0 <= MINUTE.as_micros() as u64);
        assert_eq!(owner.token_check(token).await.unwrap().code, None);
        refused(third.token_check(token).await, Code::TokenBound);
        let open = receiver.open_mediated(token, Rights::READ).await.unwrap();
        open.read_at(0, &mut [0; 8]).await.unwrap();

        // Taken back: by whom it concerns, a block that it has, and then it is dead on every path.
        let reason = || Reason::new("over").unwrap();
        refused(third.revoke_token(token, 0, reason()).await, Code::Denied);
        refused(owner.revoke_token(token, 9, reason()).await, Code::Range);
        let receipt = owner.revoke_token(token, 0, reason()).await.unwrap();
        receipt.verify(world.node.issuer()).unwrap();
        assert!(open.read_at(0, &mut [0; 8]).await.is_err());
        refused(receiver.open_mediated(token, Rights::READ).await.map(drop), Code::TokenRevoked);
        let state = receiver.token_check(token).await.unwrap();
        assert_eq!((state.code, state.block), (Some(Code::TokenRevoked), Some(0)));
    });
    drop(runtime);
    alice.client.release(leased.lease.id).unwrap();
    drop((alice, bob, carol));
    world.balances();
    world.finish();
}

#[test]
fn the_commands_show_it_sign_it_and_check_it_without_a_node() {
    let mut world = strict();
    let shell = Shell::new(world.node.path());
    for name in ["ann", "ben", "security"] {
        shell.json(&["id", "new", name]);
    }
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let print = |args: &[&str]| String::from_utf8(shell.bytes(args)).unwrap();
    let lease =
        shell.json(&["lease", "create", "--as", "ann", "--size", "64KiB", "--ttl", "1m", "--name", "desk"]);
    let offer = ["share", "offer", "desk", "--as", "ann", "--to", "ben", "--rights", "rw"];
    shell.fails(&offer, 3, "E_POLICY_DENIED");
    shell.fails(&[&offer[..], &["--cosigner", "ben"]].concat(), 1, "E_RANGE");
    let offered = shell.json(&[&offer[..], &["--cosigner", "security"]].concat());
    let share = &offered["share"];
    let grant = text(&share["id"]);
    assert_eq!((&share["state"], &share["cosigner"]["name"]), (&json!("offered"), &json!("security")));
    assert_eq!(share["cosigner"]["signed"], false);
    let printed = print(&["share", "list", "--as", "security"]);
    assert!(printed.contains("offered: waits for security"), "{printed}");

    let dir = world.node.path().to_owned();
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let shown = shell.json(&["share", "show", &grant, "--as", "ben", "-o", &file("offer")]);
    assert_eq!((&shown["complete"], &shown["signed"]["by_cosigner"]), (&json!(false), &json!(null)));
    shell.fails(&["share", "verify", &file("offer")], 1, "E_SHARE_ORDER");
    let printed = print(&["share", "accept", "--as", "ben", &grant, "--dry-run"]);
    assert!(printed.contains("co-signed") && printed.contains("not yet"), "{printed}");
    shell.fails(&["share", "accept", "--as", "ben"], 1, "E_GRANT_UNKNOWN");
    shell.fails(&["share", "cosign", &grant, "--as", "ben"], 3, "E_DENIED");

    // It is shown before it is signed, and what is signed is what was seen.
    let dry = shell.json(&["share", "cosign", &grant, "--as", "security", "--dry-run"]);
    assert_eq!((&dry["cosigned"], &dry["contract"]["cosigner"]), (&json!(false), &share["cosigner"]["key"]));
    let digest = text(&dry["digest"]);
    let other = digest.replace(char::is_numeric, "a");
    shell.fails(&["share", "cosign", &grant, "--as", "security", "--if", &other], 5, "E_CONTRACT_SIG");
    let printed = print(&["share", "cosign", &grant, "--as", "security", "--if", &digest]);
    let (before, after) = printed.split_once("\nco-signed\n").unwrap();
    assert!(before.starts_with("co-signing exactly this:") && before.contains(&digest), "{printed}");
    assert!(after.contains("issued") && after.contains("share accept"), "{printed}");
    shell.fails(&["share", "cosign", &grant, "--as", "security"], 1, "E_SHARE_ORDER");
    let accepted = shell.json(&["share", "accept", "--as", "ben", "--if", &digest]);
    let pair = file("pair");
    let shown = shell.json(&["share", "show", &grant, "--as", "security", "-o", &pair]);
    assert_eq!((&shown["complete"], &shown["signed"]), (&json!(true), &accepted["signed"]));

    // The pair can be had after the end, too, as long as the row can be seen.
    shell.json(&["revoke", "grant", &grant, "--as", "ann"]);
    let ended = shell.json(&["share", "show", &grant, "--as", "ann"]);
    assert_eq!((&ended["share"]["state"], &ended["signed"]), (&json!("ended"), &shown["signed"]));
    shell.json(&["lease", "release", lease["lease"]["id"].as_str().unwrap(), "--as", "ann"]);
    world.balances();
    let (audit, [ann, ben, third]) =
        (world.node.audit(), ["ann", "ben", "security"].map(|name| world.node.key(name)));
    world.node.stop();

    let (audit_text, vkeys) = (audit.to_str().unwrap(), audit.join("vkeys"));
    let with_log = |path: &str| {
        ["share", "verify", path, "--log", audit_text, "--vkey", vkeys.to_str().unwrap()].map(str::to_owned)
    };
    let printed = print(&["share", "verify", &pair]);
    assert!(printed.contains("co-signed by") && printed.contains(&third.public().to_string()), "{printed}");
    let args = with_log(&pair);
    let verified = shell.json(&args.each_ref().map(String::as_str));
    let log = log::read(&audit);
    let entry = |index: &serde_json::Value| &log.broker[usize::try_from(index.as_u64().unwrap()).unwrap()];
    assert_eq!(entry(&verified["entries"][0])["cause"], json!(null));
    let cosigned = entry(&verified["cosign_entry"]);
    assert_eq!((&cosigned["event"], &cosigned["cause"]), (&json!("share.offer"), &json!("cosigned")));
    assert_eq!(cosigned["subject"], third.public().to_string());

    // Whatever is changed is found out: a signature left out or put in another's place, and the name taken off.
    let good = Signed::try_from(&read(&pair)).unwrap();
    let unnamed = ShareContract { cosigner: None, ..good.contract };
    let write = |signed: Signed| {
        let path = file("forged");
        fs::write(&path, serde_json::to_string(&ShareFile::from(&signed)).unwrap()).unwrap();
        path
    };
    for bad in [
        Signed { by_cosigner: None, ..good },
        Signed { by_cosigner: Some(good.by_owner), ..good },
        Signed { by_cosigner: Some(unnamed.sign(&third)), ..good },
        Signed { contract: unnamed, ..good },
        Signed { contract: unnamed, by_cosigner: None, ..good },
    ] {
        shell.fails(&["share", "verify", &write(bad)], 5, "E_CONTRACT_SIG");
    }
    // One that the two made without the third, however well it is signed, is not the one in the log.
    let without = Signed {
        contract: unnamed,
        by_owner: unnamed.sign(&ann),
        by_receiver: Some(unnamed.sign(&ben)),
        by_cosigner: None,
    };
    let path = write(without);
    shell.json(&["share", "verify", &path]);
    let args = with_log(&path);
    shell.fails(&args.each_ref().map(String::as_str), 5, "E_PROOF");
}

fn read(path: &str) -> ShareFile {
    serde_json::from_slice(&fs::read(Path::new(path)).unwrap()).unwrap()
}

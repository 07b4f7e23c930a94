//! Requests and their answers. Each answer is written here by hand and not taken from the code.

use caps::id::{ClusterEpoch, LeaseId, ProviderId, RegionId};
use caps::rights::Operation;
use caps::time::UnixMicros;
use caps::token::{Limit, Request, Usage};
use serde_json::{Value, json};

use super::file;
use crate::support::*;

pub(super) fn document() -> Value {
    let about = "requests on the tokens of tokens.json, and the answer of the node that serves the memory";
    file(about, json!({}), cases())
}

fn case(name: &str, token: &str, request: &Request, answer: Option<Limit>) -> Value {
    json!({
        "name": name,
        "token": token,
        "operation": request.operation,
        "range": [request.range.start(), request.range.end()],
        "now": request.now.0,
        "proven": request.proven.holder().to_string(),
        "lease": request.lease.to_string(),
        "region": request.region.to_string(),
        "cluster": request.cluster.to_string(),
        "provider": request.provider.to_string(),
        "usage": request.usage,
        "verdict": answer.map_or("allow", |limit| limit.code().text()),
        "limit": answer,
    })
}

/// A request of person `number`.
fn by(number: u8) -> Request {
    Request { proven: proven(number), ..request() }
}

fn using(opens: u64, bytes_per_second: u64, bytes_total: u64) -> Request {
    Request { usage: Some(Usage { opens, bytes_per_second, bytes_total }), ..request() }
}

fn at(now: u64) -> Request {
    Request { now: UnixMicros(now), ..request() }
}

fn bytes(start: u64, end: u64) -> Request {
    Request { range: range(start, end), ..request() }
}

fn doing(operation: Operation) -> Request {
    Request { operation, ..request() }
}

fn cases() -> Vec<Value> {
    let mut cases = Vec::new();
    let mut ask = |name: &str, token: &str, request: Request, answer: Option<Limit>| {
        cases.push(case(name, token, &request, answer));
    };
    let uncounted = Request { usage: None, ..request() };

    ask("read", "minted", request(), None);
    ask("write", "minted", doing(Operation::Write), None);
    ask("share", "minted", doing(Operation::Share), None);
    ask("all bytes", "minted", bytes(4_096, 65_536), None);
    ask("the first byte", "minted", bytes(4_096, 4_097), None);
    ask("the last byte", "minted", bytes(65_535, 65_536), None);
    ask("a byte before", "minted", bytes(4_095, 4_097), Some(Limit::Range));
    ask("a byte after", "minted", bytes(65_535, 65_537), Some(Limit::Range));
    ask("elsewhere", "minted", bytes(1 << 40, (1 << 40) + 1), Some(Limit::Range));
    ask("as it begins", "minted", at(BEGIN), None);
    ask("before it begins", "minted", at(BEGIN - 1), Some(Limit::NotBefore));
    ask("in its last microsecond", "minted", at(END - 1), None);
    ask("as it ends", "minted", at(END), Some(Limit::Expires));
    ask("at the end of time", "minted", at(u64::MAX), Some(Limit::Expires));
    ask("nobody counts, nothing is limited", "minted", uncounted, None);
    ask("another key was proven", "minted", by(1), Some(Limit::Holder));
    let cluster = ClusterEpoch([9; 16]);
    ask("another life of the cluster", "minted", Request { cluster, ..request() }, Some(Limit::Cluster));
    ask("another lease", "minted", Request { lease: LeaseId([9; 16]), ..request() }, Some(Limit::Lease));
    ask("another region", "minted", Request { region: RegionId([9; 16]), ..request() }, Some(Limit::Region));
    let provider = ProviderId([9; 16]);
    ask("another provider", "minted", Request { provider, ..request() }, Some(Limit::Provider));
    let all = Request {
        proven: proven(1),
        cluster,
        now: UnixMicros(END),
        lease: LeaseId([9; 16]),
        region: RegionId([9; 16]),
        provider,
        range: range(0, 1),
        usage: None,
        ..request()
    };
    ask("all is wrong, the holder comes first", "minted", all, Some(Limit::Holder));
    ask("then the cluster", "minted", Request { proven: proven(0), ..all }, Some(Limit::Cluster));
    let mine = Request { proven: proven(0), cluster: request().cluster, ..all };
    ask("then the time", "minted", mine, Some(Limit::Expires));
    ask("then the lease", "minted", Request { now: request().now, ..mine }, Some(Limit::Lease));

    ask("read what is left", "narrowed", request(), None);
    ask("write what was taken", "narrowed", doing(Operation::Write), Some(Limit::Rights));
    ask("share what was taken", "narrowed", doing(Operation::Share), Some(Limit::Rights));
    ask("sealing takes nothing", "narrowed-sealed", request(), None);
    ask("a later block that names more", "says-more", doing(Operation::Write), Some(Limit::Rights));
    ask("nor does it take", "says-more", request(), None);
    ask("no byte is left", "no-byte-left", bytes(8_192, 8_193), Some(Limit::Range));
    ask("no right is left", "no-right-left", request(), Some(Limit::Rights));

    let inside = Request { now: UnixMicros(BEGIN + 5), ..request() };
    ask("within every limit", "narrowed-in-every-dimension", inside, None);
    ask("shares too", "narrowed-in-every-dimension", Request { operation: Operation::Share, ..inside }, None);
    let write = Request { operation: Operation::Write, ..inside };
    ask("writes not", "narrowed-in-every-dimension", write, Some(Limit::Rights));
    let late = Request { now: UnixMicros(END - 5), ..inside };
    ask("ends earlier", "narrowed-in-every-dimension", late, Some(Limit::Expires));
    let early = Request { now: UnixMicros(BEGIN + 4), ..inside };
    ask("begins later", "narrowed-in-every-dimension", early, Some(Limit::NotBefore));
    let outside = Request { range: range(16_383, 16_385), ..inside };
    ask("has fewer bytes", "narrowed-in-every-dimension", outside, Some(Limit::Range));

    ask("the delegate", "delegated", by(1), None);
    ask("who delegated, with what was delegated", "delegated", by(0), Some(Limit::Holder));
    ask("the delegate, by the second copy", "delegated-again", by(1), None);
    ask("the second delegate", "delegated-twice", Request { range: range(8_192, 16_384), ..by(2) }, None);
    ask("the first one no longer", "delegated-twice", by(1), Some(Limit::Holder));
    ask("sealed", "sealed", by(2), None);
    ask(
        "sealed, and another right",
        "sealed",
        Request { operation: Operation::Share, ..by(2) },
        Some(Limit::Rights),
    );
    ask("delegated too often", "delegated-too-often", by(1), Some(Limit::Hops));
    ask("may hold what it may not hand on", "not-to-be-delegated", request(), None);

    ask("the third open of three", "opens", using(3, 0, 0), None);
    ask("the fourth", "opens", using(4, 0, 0), Some(Limit::Opens));
    ask("opens that nobody counts", "opens", uncounted, Some(Limit::Opens));
    ask("bytes do not count as opens", "opens", using(1, u64::MAX, u64::MAX), None);
    ask("as fast as it may", "rate", using(1, 1 << 20, 0), None);
    ask("a byte a second faster", "rate", using(1, (1 << 20) + 1, 0), Some(Limit::Rate));
    ask("a rate that nobody measures", "rate", uncounted, Some(Limit::Rate));
    ask("all of the budget", "budget", using(1, 0, 1 << 16), None);
    ask("a byte more", "budget", using(1, 0, (1 << 16) + 1), Some(Limit::Budget));
    ask("the numbers of a session that has not begun", "budget", using(0, 0, 0), None);
    let spent = |usage| Request { usage, ..by(1) };
    ask("the smaller budget", "budget-within-a-budget", spent(using(2, 0, 1 << 12).usage), None);
    let more = spent(using(2, 0, (1 << 12) + 1).usage);
    ask("past the smaller budget", "budget-within-a-budget", more, Some(Limit::Budget));
    let third = spent(using(3, 0, 1 << 13).usage);
    ask("opens come before the budget", "budget-within-a-budget", third, Some(Limit::Opens));
    ask("not one open", "nothing-to-open", using(1, 0, 0), Some(Limit::Opens));

    ask("by a grant", "minted-for-a-grant", request(), None);
    ask("not more than the grant", "minted-for-a-grant", doing(Operation::Write), Some(Limit::Rights));
    ask("of the second root", "second-root", request(), None);

    for hop in 1..=7 {
        let token = format!("hops-{hop}");
        let last = |after: u64| Request { now: UnixMicros(END - u64::from(hop) - 1 + after), ..by(hop) };
        ask(&format!("after {hop} hops"), &token, by(hop), None);
        ask(&format!("after {hop} hops, in its last microsecond"), &token, last(0), None);
        ask(&format!("after {hop} hops, as it ends"), &token, last(1), Some(Limit::Expires));
        ask(&format!("after {hop} hops, by the one before"), &token, by(hop - 1), Some(Limit::Holder));
    }
    ask("after 7 hops, sealed", "hops-7-sealed", by(7), None);
    cases
}

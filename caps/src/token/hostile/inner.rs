//! What is wrong with a block's Datalog: claims, work without bounds, and what is nearly a narrowing.

use super::Set;
use super::datalog::{
    ADD, ALL, Block, CONTAINS, EQUAL, FREE, GREATER, LESS, LESS_OR_EQUAL, MATCHES, OPERATION, Op, Predicate,
    READ, RIGHT, Rule, TEAM, TIME, Term, USER, WRITE, check, compared, fact, timed, variable,
};
use crate::error::{Code, Result};
use crate::token::forge;
use crate::token::sample::{self, NEXT_SEED, ROOT_SEED, owned, person, seed};

impl Set {
    pub(super) fn other_datalog(&mut self) -> Result<()> {
        use Code::TokenProfile;
        let right = || fact(RIGHT, Term::Symbol(WRITE));
        self.append("a right", TokenProfile, &Block { facts: vec![right()], ..Block::new() })?;
        let signed = Block { version: Some(5), facts: vec![right()], ..Block::default() }.bytes();
        let signed = forge::append_raw(owned()?.as_bytes(), &signed, Some(&seed(0)), &[9; 32])?;
        self.add("a right that the holder signs", TokenProfile, signed);
        let body = vec![fact(OPERATION, variable(USER))];
        let derived = Rule { head: fact(RIGHT, variable(USER)), ..Rule::query(body, Vec::new()) };
        self.append("a rule", TokenProfile, &Block { rules: vec![derived.clone()], ..Block::new() })?;
        let trusting = Rule { trusts_previous: true, ..derived };
        self.append("a rule that trusts", TokenProfile, &Block { rules: vec![trusting], ..Block::new() })?;
        self.append("a scope", TokenProfile, &Block { trusts_previous: true, ..Block::new() })?;
        let keys = vec![person(0).public().0];
        self.append("a public key", TokenProfile, &Block { keys, ..Block::new() })?;
        let context = Some(vec![b'x'; 3_000]);
        self.append("a context", TokenProfile, &Block { context, ..Block::new() })?;
        let nonsense =
            forge::mint_raw(&ROOT_SEED, Some(sample::root().id()), &Block::new().bytes(), &NEXT_SEED);
        self.add("an authority block that grants nothing", TokenProfile, nonsense);
        // A head with a variable that nothing binds makes the library print, and panic if it cannot.
        let mut printing = timed(compared(variable(TIME), Term::Integer(5), LESS));
        printing.checks[0][0].head.1.push(variable(READ));
        self.append("a head with a free variable", TokenProfile, &printing)?;
        // Operators without operands make the library's printer panic.
        self.append("a stack that runs dry", TokenProfile, &timed(vec![Op::Binary(LESS_OR_EQUAL); 2]))
    }

    pub(super) fn costly_datalog(&mut self) -> Result<()> {
        use Code::{TokenProfile, TokenTooBig};
        let facts = |count: u64| (0..count).map(|n| fact(TEAM, Term::Integer(n))).collect::<Vec<_>>();
        let names = [READ, WRITE, USER, OPERATION, RIGHT];
        let join = |ways: usize| {
            let body = names[..ways].iter().map(|name| fact(TEAM, variable(*name))).collect();
            let mut sum = vec![Op::Value(variable(names[0]))];
            for name in &names[1..ways] {
                sum.extend([Op::Value(variable(*name)), Op::Binary(ADD)]);
            }
            sum.extend([Op::Value(Term::Integer(0)), Op::Binary(LESS)]);
            check(body, sum)
        };
        let joined = |count, ways| Block { facts: facts(count), checks: vec![join(ways)], ..Block::new() };
        self.append("a join of 4 over 60 facts", TokenProfile, &joined(60, 4))?;
        self.append("a join of 5 over 40 facts", TokenProfile, &joined(40, 5))?;
        self.append("a join of 5 without facts", TokenProfile, &joined(0, 5))?;
        let product = Rule {
            head: Predicate(USER, names[..3].iter().map(|name| variable(*name)).collect()),
            ..Rule::query(names[..3].iter().map(|name| fact(TEAM, variable(*name))).collect(), Vec::new())
        };
        let product = Block { facts: facts(150), rules: vec![product], ..Block::new() };
        self.append("a cross product", TokenProfile, &product)?;
        let list = Term::Array((0..10).map(Term::Integer).collect());
        let nested = (0..6).fold(vec![Op::Value(Term::Integer(1))], |inner, level| {
            vec![Op::Value(list.clone()), Op::Closure(READ + level, inner), Op::Binary(ALL)]
        });
        self.append("nested closures", TokenProfile, &timed(nested.clone()))?;
        let nested = Block { version: Some(6), ..timed(nested) };
        self.append("nested closures in their version", Code::TokenVersion, &nested)?;
        let text = |count: usize| {
            let mut sum = vec![Op::Value(Term::Symbol(READ))];
            for _ in 0..count {
                sum.extend([Op::Value(Term::Symbol(READ)), Op::Binary(ADD)]);
            }
            sum.extend([Op::Value(Term::Symbol(READ)), Op::Binary(EQUAL)]);
            timed(sum)
        };
        self.append("strings that grow", TokenProfile, &text(100))?;
        self.append("strings that grow to 350 MiB", TokenProfile, &text(600))?;
        let pattern = b"((\\pL{50}){50}){5}".to_vec();
        let matches = compared(variable(OPERATION), Term::Symbol(FREE), MATCHES);
        let regex = check(vec![fact(OPERATION, variable(OPERATION))], matches);
        self.append(
            "a regular expression",
            TokenProfile,
            &Block { symbols: vec![pattern], checks: vec![regex.clone()], ..Block::new() },
        )?;
        let plain = Block { symbols: vec![b"read1".to_vec()], checks: vec![regex], ..Block::new() };
        self.append("a regular expression of letters", TokenProfile, &plain)?;
        for (name, code, count) in [
            ("33 symbols", TokenProfile, 33),
            ("500 symbols", TokenProfile, 500),
            ("20,000 symbols", TokenTooBig, 20_000),
        ] {
            let symbols = (0..count).map(|n| format!("s{n}").into_bytes()).collect();
            self.append(name, code, &Block { symbols, ..Block::new() })?;
        }
        for (name, code, count) in [
            ("17 facts", TokenProfile, 17),
            ("1,001 facts", TokenProfile, 1_001),
            ("50,000 facts", TokenTooBig, 50_000),
        ] {
            let facts = vec![Predicate(READ, Vec::new()); count];
            self.append(name, code, &Block { facts, ..Block::new() })?;
        }
        let deep = |wrap: fn(Vec<Term>) -> Term| {
            let nested = (0..90).fold(Term::Integer(1), |inner, _| wrap(vec![inner]));
            timed(compared(nested, variable(TIME), CONTAINS))
        };
        self.append("90 sets in each other", TokenProfile, &deep(Term::Set))?;
        self.append("90 arrays in each other", TokenProfile, &deep(Term::Array))?;
        let wide = Term::Set(vec![Term::Symbol(READ); 9]);
        self.append("a set of 9", TokenProfile, &timed(compared(wide, variable(TIME), CONTAINS)))
    }

    pub(super) fn near_misses(&mut self) -> Result<()> {
        use Code::TokenProfile;
        let number = Term::Integer;
        let time = || variable(TIME);
        for (name, block) in [
            ("a check that is always true", timed(compared(number(1), number(2), LESS))),
            ("a check that asks nothing", timed(Vec::new())),
            ("a bound from the wrong side", timed(compared(time(), number(5), GREATER))),
            ("a bound that is one off", timed(compared(time(), number(5), LESS_OR_EQUAL))),
            ("a negative bound", timed(compared(time(), number(u64::MAX), LESS))),
            ("a bound that is a date", timed(compared(time(), Term::Date(5), LESS))),
            ("a bound on itself", timed(compared(time(), time(), LESS))),
            (
                "a sum that overflows",
                timed(vec![
                    Op::Value(number(i64::MAX as u64)),
                    Op::Value(number(1)),
                    Op::Binary(ADD),
                    Op::Value(number(0)),
                    Op::Binary(GREATER),
                ]),
            ),
            ("17 operations", timed(vec![Op::Value(number(1)); 17])),
        ] {
            self.append(name, TokenProfile, &block)?;
        }
        let expired = check(vec![fact(TIME, time())], compared(time(), number(5), LESS));
        let nine = Block { checks: vec![expired.clone(); 9], ..Block::new() };
        self.append("nine checks", TokenProfile, &nine)?;
        let seventeen = Block { checks: vec![expired.clone(); 17], ..Block::new() };
        self.append("17 checks", TokenProfile, &seventeen)?;
        let either = Block { checks: vec![[expired.clone(), expired].concat()], ..Block::new() };
        self.append("a check with two queries", TokenProfile, &either)?;
        self.append("a block that says nothing", TokenProfile, &Block::new())
    }
}

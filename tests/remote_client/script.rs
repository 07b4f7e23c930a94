//! The example session of `docs/protocol.md`, as the other end of a connection: it answers what the page says, to who
//! says what the page says.

use std::collections::VecDeque;
use std::io::{Error, ErrorKind, Read, Result, Write};

const PAGE: &str = include_str!("../../docs/protocol.md");

/// The bytes of a block, without what is said of them.
pub(crate) fn block(name: &str) -> Vec<u8> {
    let begin = format!("<!-- generated: {name} -->\n```text\n");
    let (_, rest) = PAGE.split_once(&begin).unwrap_or_else(|| panic!("no block {name}"));
    let (block, _) = rest.split_once("```").unwrap();
    let digits: String = block.lines().map(|line| line.split('#').next().unwrap()).collect();
    let digits: Vec<u8> = digits.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    data_encoding::HEXLOWER.decode(&digits).unwrap()
}

/// One line of a block, by its number.
pub(crate) fn line(name: &str, at: usize, length: usize) -> Vec<u8> {
    block(name)[at..at + length].to_vec()
}

/// A node that knows one conversation.
pub(crate) struct Script {
    turns: VecDeque<Turn>,
}

struct Turn {
    name: &'static str,
    /// What the client has still to say.
    expects: VecDeque<u8>,
    answers: VecDeque<u8>,
}

impl Script {
    /// Pairs of blocks: what the client says, and what it is told.
    pub(crate) fn new(turns: &[(&'static str, &str)]) -> Self {
        let turn = |&(name, answer): &(&'static str, &str)| Turn {
            name,
            expects: block(name).into(),
            answers: block(answer).into(),
        };
        Self { turns: turns.iter().map(turn).collect() }
    }

    /// Whether everything was said.
    pub(crate) fn is_over(&self) -> bool {
        self.turns.iter().all(|turn| turn.expects.is_empty() && turn.answers.is_empty())
    }

    fn turn(&mut self) -> Result<&mut Turn> {
        while self.turns.front().is_some_and(|turn| turn.expects.is_empty() && turn.answers.is_empty()) {
            self.turns.pop_front();
        }
        self.turns.front_mut().ok_or(Error::from(ErrorKind::UnexpectedEof))
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let turn = self.turn()?;
        for (count, byte) in bytes.iter().enumerate() {
            let left = turn.expects.len();
            assert_eq!(
                Some(*byte),
                turn.expects.pop_front(),
                "{}: byte {count}, {left} before the end",
                turn.name
            );
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Read for Script {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let turn = self.turn()?;
        assert!(turn.expects.is_empty(), "{}: an answer is awaited before all was asked", turn.name);
        // By little, as a network may: whoever takes a part for the whole fails here.
        turn.answers.read(&mut buffer[..1])
    }
}

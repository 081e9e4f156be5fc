//! What happened: a hash of all of it, and the last of it as text.

use super::random::Random;
use std::collections::VecDeque;
use std::fmt;

/// How much text is kept.
const TAIL: usize = 80;

/// The record of a history.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    tail: VecDeque<String>,
}

/// A hash of bytes that is the same on every machine and in every build (FNV-1a).
pub(super) fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, byte| (h ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A hash whose bits all depend on all of the input's.
pub(super) fn mix(value: u64) -> u64 {
    Random::new(value).next()
}

impl Trace {
    pub(super) fn new() -> Self {
        Trace { hash: 0, tail: VecDeque::new() }
    }

    /// Takes note in numbers.
    pub(super) fn count(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.hash = mix(self.hash ^ number);
        }
    }

    /// Takes note in words; `now` in microseconds.
    pub(super) fn say(&mut self, now: u64, what: fmt::Arguments<'_>) {
        let line = format!("{:>6}.{:03} ms  {what}", now / 1000, now % 1000);
        self.count(&[digest(line.as_bytes())]);
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn into_tail(self) -> Vec<String> {
        self.tail.into()
    }
}

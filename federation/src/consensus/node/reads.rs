//! Reads that wait: first for a quorum to confirm the leader, then for the state to come that far.
//!
//! Raft drops a read request silently when there is no leader or the leader has not committed in its term, so every
//! round has a number of its own, is asked again after some ticks, and is given up after many.

use super::Token;
use std::collections::BTreeMap;

/// Ticks after which a round is asked again.
const RETRY_TICKS: u64 = 8;
/// Ticks after which a round is given up.
const EXPIRE_TICKS: u64 = 200;

#[derive(Debug)]
struct Round {
    tokens: Vec<(Token, u64)>,
    asked: u64,
}

/// The reads in flight.
#[derive(Debug)]
pub(super) struct Reads {
    server: u64,
    next: u64,
    now: u64,
    rounds: BTreeMap<u64, Round>,
    /// Confirmed, by the index that they wait for.
    confirmed: BTreeMap<u64, Vec<Token>>,
}

impl Reads {
    /// `first` must differ in every run of a server: a leader that still holds a number answers it as of then.
    pub(super) fn new(server: u64, first: u64) -> Self {
        Reads { server, next: first, now: 0, rounds: BTreeMap::new(), confirmed: BTreeMap::new() }
    }

    /// Opens a round and gives the context to ask with.
    pub(super) fn open(&mut self, tokens: Vec<Token>) -> Vec<u8> {
        let tokens = tokens.into_iter().map(|t| (t, self.now)).collect();
        self.round(tokens)
    }

    fn round(&mut self, tokens: Vec<(Token, u64)>) -> Vec<u8> {
        self.next = self.next.wrapping_add(1);
        self.rounds.insert(self.next, Round { tokens, asked: self.now });
        [self.server.to_be_bytes(), self.next.to_be_bytes()].concat()
    }

    /// Counts a tick; gives the reads that expired, and the context of a round to ask again.
    pub(super) fn tick(&mut self) -> (Vec<Token>, Option<Vec<u8>>) {
        self.now += 1;
        let now = self.now;
        let due: Vec<u64> =
            self.rounds.iter().filter(|(_, r)| now - r.asked >= RETRY_TICKS).map(|(n, _)| *n).collect();
        let tokens = due.iter().filter_map(|n| self.rounds.remove(n)).flat_map(|r| r.tokens);
        let (expired, again): (Vec<_>, Vec<_>) = tokens.partition(|(_, since)| now - since >= EXPIRE_TICKS);
        let again = if again.is_empty() { None } else { Some(self.round(again)) };
        (expired.into_iter().map(|(t, _)| t).collect(), again)
    }

    /// A quorum confirmed the round of this context.
    pub(super) fn confirm(&mut self, context: &[u8], index: u64) {
        let Some((server, number)) = context.split_first_chunk::<8>() else { return };
        let Ok(number) = <[u8; 8]>::try_from(number) else { return };
        if u64::from_be_bytes(*server) != self.server {
            return;
        }
        if let Some(round) = self.rounds.remove(&u64::from_be_bytes(number)) {
            self.confirmed.entry(index).or_default().extend(round.tokens.into_iter().map(|(t, _)| t));
        }
    }

    /// The confirmed reads that the state at `applied` answers, with the index each was confirmed at.
    pub(super) fn ready(&mut self, applied: u64) -> Vec<(Token, u64)> {
        let later = self.confirmed.split_off(&(applied + 1));
        let ready = std::mem::replace(&mut self.confirmed, later);
        ready.into_iter().flat_map(|(index, tokens)| tokens.into_iter().map(move |t| (t, index))).collect()
    }
}

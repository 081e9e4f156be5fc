//! Clients among the events: they begin, send, wait, hear and send again.

use super::{Event, HEALED, QUIET, SERVERS, World};
use crate::sim::check::Seen;
use crate::sim::client::{Body, Reaction, Said};
use crate::sim::machine::Op;
use crate::sim::server::Ticket;
use sealane_core::command::Command;
use sealane_core::time::Millis;
use sealane_proto::Wire;

/// A request on its way.
pub(super) struct Request {
    ticket: Ticket,
    server: u64,
    body: Body,
}

impl World {
    /// A client begins something, or has waited long enough for this attempt.
    pub(super) fn client(&mut self, client: usize, number: u64, attempt: u64) {
        let (now, known) = (self.now, self.known);
        let Some(this) = self.clients.get_mut(client) else { return };
        if this.pending.is_none() && number == 0 {
            if now >= QUIET {
                return;
            }
            if let Err(error) = this.begin(now) {
                return self.broken("servers-go-on", format!("a client could not go on: {error}"));
            }
        }
        let Some(pending) = &mut this.pending else { return };
        let current = pending.number == number && pending.attempt == attempt;
        if number != 0 && !current {
            return;
        }
        if pending.attempt > 0 {
            self.counts.retries += 1;
            // Whoever did not answer is not asked again at once.
            if self.random.permille(700) {
                this.server = self.random.pick(&SERVERS);
            }
        }
        pending.attempt += 1;
        let ticket = Ticket { client, number: pending.number, floor: known };
        let (body, attempt, number) = (pending.body.clone(), pending.attempt, pending.number);
        // A reader asks everywhere, the others where they believe the leader.
        let server = if matches!(body, Body::Read) { self.random.pick(&SERVERS) } else { this.server };
        for delay in self.network.carry_client(&mut self.random) {
            let request = Request { ticket, server, body: body.clone() };
            self.after(delay, Event::Request(Box::new(request)));
        }
        let patience = self.random.between(300_000, 900_000);
        self.after(patience, Event::Client { client, number, attempt });
    }

    /// A request arrives at a server, which stamps its own time on it.
    pub(super) fn request(&mut self, request: Request) {
        let Request { ticket, server: id, body } = request;
        let at = Millis(1_000 + self.now / 1000 + id * 7);
        let Some(server) = self.servers.get_mut(&id) else { return };
        let said = match body {
            Body::Command(principal, action) => {
                server.propose(ticket, Command { min_version: 1, at, principal, action }.encode())
            }
            Body::Read => {
                server.read(ticket);
                None
            }
        };
        if let Some(said) = said {
            self.reply(ticket, said, 0);
        }
        self.rouse(id);
    }

    /// A server's answer leaves for its client.
    pub(super) fn reply(&mut self, ticket: Ticket, said: Said, cost: u64) {
        for delay in self.network.carry_client(&mut self.random) {
            self.after(cost + delay, Event::Answer(ticket, Box::new(said.clone())));
        }
    }

    /// An answer arrives at its client.
    pub(super) fn answer(&mut self, ticket: Ticket, said: &Said) {
        let Some(client) = self.clients.get_mut(ticket.client) else { return };
        let Some(pending) = client.pending.as_ref().filter(|p| p.number == ticket.number) else { return };
        let (op, attempt, number) = (pending.op, pending.attempt, pending.number);
        let reaction = client.hear(said);
        let next = match reaction {
            Reaction::Done(index) => {
                self.done(op, ticket, index, matches!(said, Said::Read(_)));
                0
            }
            Reaction::GivenUp => 0,
            Reaction::Again => {
                let pause = self.random.between(5_000, 60_000);
                return self.after(pause, Event::Client { client: ticket.client, number, attempt });
            }
            Reaction::Wrong(what) => return self.broken("acknowledged-never-lost", what),
        };
        // In calm weather what is to be shown needs few commands, and every client has to have its turn.
        let calm = self.now >= HEALED;
        let pause = if calm { self.random.between(200_000, 800_000) } else { self.random.around(50_000) };
        self.after(pause, Event::Client { client: ticket.client, number: next, attempt: 0 });
    }

    fn done(&mut self, op: Op, ticket: Ticket, index: u64, read: bool) {
        self.trace.count(&[ticket.client as u64, ticket.number, index]);
        self.known = self.known.max(index);
        if read {
            self.counts.reads += 1;
            self.see(&Seen::Read { server_state: index, floor: ticket.floor });
        } else {
            self.counts.acknowledged += 1;
            self.see(&Seen::Acknowledged { op, index });
        }
    }
}

//! Faults among the events, and the end of them.

use super::{Event, HEALED, SERVERS, World};
use crate::sim::nemesis::Trouble;
use crate::sim::profile::Weather;
use sealane_core::identity::ServerId;

impl World {
    /// Something goes wrong, and the next time is set.
    pub(super) fn trouble(&mut self) {
        if self.now >= HEALED {
            return;
        }
        let trouble = Trouble::draw(&self.profile, &mut self.random);
        self.trace.say(self.now, format_args!("{trouble:?}"));
        match trouble {
            Trouble::PowerCut => SERVERS.into_iter().for_each(|id| self.crash(id, "in a power cut")),
            Trouble::Crash(id) => self.crash(id, "between rounds"),
            Trouble::Fuse(id, effects) => {
                if let Some(server) = self.servers.get(&id).filter(|s| s.station.is_some()) {
                    server.disk.set_fuse(effects);
                }
            }
            Trouble::Isolate(id) => self.cut(|from, to| from == id || to == id),
            Trouble::OneWay(one, other) => self.cut(|from, to| (from, to) == (one, other)),
            Trouble::Deaf(id) => self.cut(|_, to| to == id),
            Trouble::Pause(id, time) => {
                let until = self.now + time;
                if let Some(server) = self.servers.get_mut(&id).filter(|s| s.station.is_some()) {
                    server.paused_until = until;
                }
            }
            Trouble::SlowDisk(id, takes) => {
                if let Some(server) = self.servers.get_mut(&id) {
                    server.sync_takes = takes;
                }
            }
            Trouble::Transfer(to) => self.transfer(to),
        }
        let next = self.random.around(self.profile.faults_every);
        self.after(next, Event::Trouble);
    }

    fn cut(&mut self, which: impl Fn(u64, u64) -> bool) {
        for from in SERVERS {
            SERVERS.into_iter().filter(|to| which(from, *to)).for_each(|to| self.network.cut(from, to));
        }
        let time = self.random.around(1_500_000);
        self.after(time, Event::Mend);
    }

    fn transfer(&mut self, to: u64) {
        let leader = self.servers.values().find(|s| s.seen.0 && s.station.is_some());
        let Some((id, station)) = leader.and_then(|s| Some((s.id, s.station.as_ref()?))) else { return };
        station.transfer(ServerId(to));
        self.rouse(id);
    }

    /// A process ends without notice; another starts some time later.
    pub(super) fn crash(&mut self, id: u64, when: &str) {
        let Some(server) = self.servers.get_mut(&id).filter(|s| s.station.is_some()) else { return };
        self.trace.say(self.now, format_args!("server {id} crashes {when}"));
        self.counts.crashes += 1;
        server.crash(&mut self.random);
        let away = self.random.between(1_000, self.profile.away + 2_000);
        self.after(away, Event::Restart(id));
    }

    /// Everything works from now on.
    pub(super) fn heal(&mut self) {
        self.trace.say(self.now, format_args!("all faults are over"));
        self.network.heal();
        self.network.weather = Weather::FAIR;
        let now = self.now;
        for id in SERVERS {
            if let Some(server) = self.servers.get_mut(&id) {
                server.disk.no_fuse();
                server.sync_takes = 100;
                server.paused_until = server.paused_until.min(now);
                server.busy_until = server.busy_until.min(now);
            }
            self.start(id);
            self.rouse(id);
        }
    }
}

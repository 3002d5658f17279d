//! What is counted, shown and rebuilt: the state is a projection of the ledger, a snapshot only saves reading all of it.

use super::counter::{Kind, NONE};
use super::organisation::Organisation;
use super::rule::{Level, Share};
use super::span::NEVER;
use creto_enablement_common::{Result, Usage};

/// What a record of the ledger says was used.
#[derive(Clone, Copy, Debug)]
pub struct ReplayRecord<'a> {
    /// Organisation first.
    pub path: &'a [&'a str],
    /// What was used.
    pub usage: Usage<'a>,
    /// When, in microseconds since the epoch.
    pub at: u64,
    /// Which act: counted once however often it is met.
    pub act: [u8; 16],
}

/// One counter, as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// The organisation.
    pub organisation: String,
    /// The floor.
    pub level: Level,
    /// Whose.
    pub name: String,
    /// Of what.
    pub meter: String,
    /// Over what time, as it was written.
    pub window: String,
    /// What it allows now, with boosts.
    pub limit: u64,
    /// What is used and held.
    pub used: u64,
    /// When it starts again, in microseconds since the epoch; none where it never does.
    pub resets_at: Option<u64>,
    /// Extra units that hold now.
    pub boost: u64,
}

impl Organisation {
    /// Counts what a record says was used, at its own time. Time must not go back from record to record by more than a window.
    pub(super) fn replay(&mut self, record: &ReplayRecord<'_>) -> Result<()> {
        let chain = self.chain(record.path)?;
        for (meter, amount) in record.usage {
            let head = self.line_for(chain, meter)?;
            for number in self.counters_of(head) {
                self.replay_one(number, *amount, record.at);
            }
        }
        Ok(())
    }

    fn replay_one(&mut self, number: u32, amount: u64, at: u64) {
        let Some(installed) = self.rule(self.line(number)).cloned() else { return };
        // What is held is held by nobody after a crash; what is shared is counted by its authority.
        if installed.kind() == Kind::Held || installed.rule.share == Share::Store {
            return;
        }
        let line = self.line(number);
        if installed.kind() == Kind::Window && line.due > 0 {
            let end = self.window_end(line);
            let start = if end == NEVER { 0 } else { installed.rule.span.window(end - 1).0 };
            if at < start {
                return;
            }
        }
        self.add(number, amount, at);
    }

    /// Every counter, as of `now`.
    pub(super) fn counters(&mut self, organisation: &str, now: u64, into: &mut Vec<Counter>) {
        self.recall_all();
        for number in 0..self.lines.len() as u32 {
            let Some(installed) = self.rule(self.line(number)).filter(|i| i.live).cloned() else { continue };
            if self.line(number).due <= now {
                self.roll(number, &installed, now);
            }
            let line = self.line(number);
            let base = if installed.kind() == Kind::Rate { installed.rule.burst } else { installed.rule.limit };
            let limit = self.limit(line, now);
            let resets_at = match installed.kind() {
                Kind::Window => Some(self.window_end(line)).filter(|end| *end != NEVER),
                _ => None,
            };
            into.push(Counter {
                organisation: organisation.to_owned(),
                level: self.names.level(line.node),
                name: self.names.text(line.node).to_owned(),
                meter: installed.rule.meter.clone(),
                window: installed.rule.window.clone(),
                limit,
                used: self.used(line, now),
                resets_at,
                boost: limit - base,
            });
        }
    }

    /// The meters of a chain and their lines.
    pub(super) fn lines_of(&self, chain: u32) -> Vec<(String, u32)> {
        self.meters.iter().filter_map(|meter| Some((meter.to_string(), self.find_line(chain, meter).filter(|l| *l != NONE)?))).collect()
    }
}

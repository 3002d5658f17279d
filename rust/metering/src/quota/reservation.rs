//! Reservations: what is held between the decision and the end of an act.

use super::counter::Kind;
use super::organisation::Organisation;
use super::span::NEVER;
use creto_enablement_common::{Error, ErrorKind, Result, Usage};
use std::collections::VecDeque;

const SLOT_BITS: u32 = 24;
const TURN_BITS: u32 = 20;

/// What one meter holds.
#[derive(Clone, Copy, Debug)]
struct Share {
    head: u32,
    amount: u64,
    counters: u8,
}

/// One reservation.
#[derive(Debug, Default)]
struct Hold {
    turn: u32,
    open: bool,
    expired: bool,
    /// True where some counter counts only while it is held.
    returns: bool,
    chain: u32,
    until: u64,
    shares: Vec<Share>,
    /// (line, where in its time the units were taken) of every counter, share by share.
    counters: Vec<(u32, u64)>,
}

/// The reservations of one organisation; slots are used again, and a number says for which turn of its slot it was given.
#[derive(Debug, Default)]
pub struct Holds {
    slots: Vec<Hold>,
    free: Vec<u32>,
    /// In the order in which they expire: all live equally long.
    queue: VecDeque<(u64, u32, u32)>,
}

/// A slot and its turn, in the low bits of a reservation's number.
pub const fn split(id: u64) -> (u32, u32, u32) {
    let slot = (id & ((1 << SLOT_BITS) - 1)) as u32;
    let turn = ((id >> SLOT_BITS) & ((1 << TURN_BITS) - 1)) as u32;
    (slot, turn, (id >> (SLOT_BITS + TURN_BITS)) as u32)
}

const fn join(slot: u32, turn: u32, organisation: u32) -> u64 {
    slot as u64 | ((turn as u64) << SLOT_BITS) | ((organisation as u64) << (SLOT_BITS + TURN_BITS))
}

const fn next_turn(turn: u32) -> u32 {
    (turn + 1) & ((1 << TURN_BITS) - 1)
}

impl Organisation {
    /// Takes what there is room for, and notes it, so that it can be settled; expires at `until`.
    pub(super) fn hold(&mut self, organisation: u32, chain: u32, uses: &[(u32, u64)], now: u64, until: u64) -> Result<u64> {
        let slot = match self.holds.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(self.holds.slots.len()).ok().filter(|slot| *slot < 1 << SLOT_BITS);
                let Some(slot) = slot else {
                    return Err(Error::invalid("16 million reservations are open in this organisation: commit or release them"));
                };
                self.holds.slots.push(Hold::default());
                slot
            }
        };
        // Taken out while the counters are charged, with the memory of its lists.
        let mut hold = self.holds.slots.get_mut(slot as usize).map(std::mem::take).unwrap_or_default();
        (hold.open, hold.expired, hold.returns, hold.chain, hold.until) = (true, false, false, chain, until);
        hold.shares.clear();
        hold.counters.clear();
        for (head, amount) in uses {
            let before = hold.counters.len();
            let _: Result<(), ()> = self.each(*head, |org, number| {
                org.add(number, *amount, now);
                let line = org.line(number);
                hold.returns |= line.kind == Kind::Held;
                hold.counters.push((number, org.mark(line)));
                Ok(())
            });
            hold.shares.push(Share { head: *head, amount: *amount, counters: (hold.counters.len() - before) as u8 });
        }
        let turn = hold.turn;
        let Some(place) = self.holds.slots.get_mut(slot as usize) else { return Err(Error::invalid("no room for another reservation")) };
        *place = hold;
        if until != NEVER {
            self.holds.queue.push_back((until, slot, turn));
            // What was settled long ago need not wait for its time to leave the queue.
            while let Some((_, slot, turn)) = self.holds.queue.front().copied() {
                if self.holds.slots.get(slot as usize).is_some_and(|h| h.open && !h.expired && h.turn == turn) {
                    break;
                }
                self.holds.queue.pop_front();
            }
        }
        Ok(join(slot, turn, organisation))
    }

    /// Commits what was used, meter by meter; `None` commits what was held. A second settlement changes nothing.
    pub(super) fn settle(&mut self, id: u64, actual: Option<Usage<'_>>, now: u64) -> Result<()> {
        if actual.is_none() && self.settle_whole(id) {
            return Ok(());
        }
        let Some(hold) = self.close(id)? else { return Ok(()) };
        let mut counters = hold.counters.iter();
        for share in &hold.shares {
            let used = match actual {
                None => share.amount,
                Some(actual) => self.amount_of(hold.chain, share.head, actual),
            };
            for (line, mark) in counters.by_ref().take(usize::from(share.counters)) {
                let held = self.line(*line).kind == Kind::Held;
                if hold.expired {
                    // What was held went back at expiry; what was used is charged now, in full.
                    if !held {
                        self.add(*line, used, now);
                    }
                } else if held {
                    self.give_back(*line, *mark, share.amount, now);
                } else if used < share.amount {
                    self.give_back(*line, *mark, share.amount - used, now);
                } else if used > share.amount {
                    self.add(*line, used - share.amount, now);
                }
            }
        }
        for (meter, amount) in actual.unwrap_or_default() {
            let head = self.line_for(hold.chain, meter)?;
            if *amount > 0 && !hold.shares.iter().any(|share| share.head == head) {
                self.charge_unheld(head, *amount, now);
            }
        }
        self.recycle(id, hold);
        Ok(())
    }

    /// Commits what was held where every counter just keeps it, as almost always; false where one has to be looked at.
    fn settle_whole(&mut self, id: u64) -> bool {
        let (slot, turn, _) = split(id);
        let Some(hold) = self.holds.slots.get_mut(slot as usize) else { return false };
        if hold.turn != turn || !hold.open || hold.expired || hold.returns {
            return false;
        }
        hold.open = false;
        hold.turn = next_turn(turn);
        self.holds.free.push(slot);
        true
    }

    /// Gives back all that is held.
    pub(super) fn release(&mut self, id: u64, now: u64) -> Result<()> {
        let Some(hold) = self.close(id)? else { return Ok(()) };
        if !hold.expired {
            self.return_all(&hold, now);
        }
        self.recycle(id, hold);
        Ok(())
    }

    /// Gives back what reservations that nobody settled in time still hold; true where there was any.
    pub(super) fn expire(&mut self, now: u64) -> bool {
        let mut any = false;
        while let Some((until, slot, turn)) = self.holds.queue.front().copied() {
            if until > now {
                break;
            }
            self.holds.queue.pop_front();
            let Some(place) = self.holds.slots.get_mut(slot as usize) else { continue };
            if place.open && !place.expired && place.turn == turn {
                place.expired = true;
                let hold = std::mem::take(place);
                self.return_all(&hold, now);
                if let Some(place) = self.holds.slots.get_mut(slot as usize) {
                    *place = hold;
                }
                any = true;
            }
        }
        any
    }

    /// Looks whether overdue reservations have room for what did not fit; only what is refused pays for that.
    #[cold]
    pub(super) fn expired_room(&mut self, head: u32, amount: u64, now: u64) -> bool {
        self.expire(now) && self.take_one(head, amount, now)
    }

    /// How many reservations are open.
    pub(super) fn open_holds(&self) -> usize {
        self.holds.slots.iter().filter(|hold| hold.open && !hold.expired).count()
    }

    fn return_all(&mut self, hold: &Hold, now: u64) {
        let mut counters = hold.counters.iter();
        for share in &hold.shares {
            for (line, mark) in counters.by_ref().take(usize::from(share.counters)) {
                self.give_back(*line, *mark, share.amount, now);
            }
        }
    }

    /// Takes the hold out of its slot; none where it was settled before.
    fn close(&mut self, id: u64) -> Result<Option<Hold>> {
        let (slot, turn, _) = split(id);
        let unknown = || Error::new(ErrorKind::NotFound).with_context(format!("reservation {id}"));
        let hold = self.holds.slots.get_mut(slot as usize).ok_or_else(unknown)?;
        if hold.turn != turn || !hold.open {
            return Ok(None);
        }
        hold.open = false;
        Ok(Some(std::mem::take(hold)))
    }

    fn recycle(&mut self, id: u64, mut hold: Hold) {
        let (slot, turn, _) = split(id);
        hold.turn = next_turn(turn);
        hold.open = false;
        if let Some(place) = self.holds.slots.get_mut(slot as usize) {
            *place = hold;
            self.holds.free.push(slot);
        }
    }

    fn amount_of(&self, chain: u32, head: u32, actual: Usage<'_>) -> u64 {
        let mut amount = 0_u64;
        for (meter, units) in actual {
            if self.find_line(chain, meter) == Some(head) {
                amount = amount.saturating_add(*units);
            }
        }
        amount
    }

    /// Charges a meter that was used without having been reserved; what counts only while held is over already.
    fn charge_unheld(&mut self, head: u32, amount: u64, now: u64) {
        for line in self.counters_of(head) {
            if self.line(line).kind != Kind::Held {
                self.add(line, amount, now);
            }
        }
    }
}

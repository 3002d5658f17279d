//! Adds the rows of a segment up again, and holds what it says of its groups against that.

use super::accumulate::too_large;
use super::segment::{Bytes, Group, Segment};
use creto_enablement_common::{Error, ErrorKind, Result};

/// So many rows are read at once: few enough to be added up from the processor's cache.
const PIECE: u32 = 1 << 15;

/// What quantities make.
#[derive(Clone, Copy)]
struct Extent {
    sum: i128,
    least: i128,
    greatest: i128,
}

/// Reads quantities a piece at a time, in the order of the groups.
pub(super) struct Recount<'a, B> {
    segment: &'a Segment<B>,
    piece: Vec<u8>,
    from: u32,
    to: u32,
}

impl<'a, B: Bytes> Recount<'a, B> {
    pub(super) const fn new(segment: &'a Segment<B>) -> Self {
        Self { segment, piece: Vec::new(), from: 0, to: 0 }
    }

    /// Adds a group up.
    ///
    /// # Errors
    /// `Integrity` where the segment says something else of it, or is damaged; `InvalidInput` where the sum needs more than 128 bits.
    pub(super) fn check(&mut self, group: &Group<'_>) -> Result<()> {
        let mut found = Extent { sum: 0, least: i128::MAX, greatest: i128::MIN };
        let (mut at, end) = (group.first, group.first + group.rows);
        let width = self.segment.quantity_width() as usize;
        while at < end {
            if !(self.from..self.to).contains(&at) {
                self.from = at;
                self.to = at + PIECE.min(self.segment.rows - at);
                self.segment.quantity_bytes(at, self.to - at, &mut self.piece)?;
            }
            let until = end.min(self.to);
            let rows = (at - self.from) as usize * width..(until - self.from) as usize * width;
            let bytes = self.piece.get(rows).unwrap_or_default();
            let part = if width == 8 { narrow(bytes) } else { wide(bytes)? };
            found.sum = found.sum.checked_add(part.sum).ok_or_else(too_large)?;
            found.least = found.least.min(part.least);
            found.greatest = found.greatest.max(part.greatest);
            at = until;
        }
        let said = &group.sum;
        if (found.sum, found.least, found.greatest) == (said.sum, said.least, said.greatest) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Integrity).with_context(format!(
            "the rows of {} make {}, and the segment says {}; remove the segment, and it is made again",
            group.series, found.sum, said.sum
        )))
    }
}

/// Of 64 bits each. Their halves are added up apart, so that no step looks at a carry: a piece has too few to fill 64 bits with either.
fn narrow(bytes: &[u8]) -> Extent {
    let (mut low, mut high, mut least, mut greatest) = (0_u64, 0_i64, i64::MAX, i64::MIN);
    for row in bytes.as_chunks::<8>().0 {
        let quantity = i64::from_le_bytes(*row);
        low = low.wrapping_add(quantity as u64 & 0xffff_ffff);
        high = high.wrapping_add(quantity >> 32);
        least = least.min(quantity);
        greatest = greatest.max(quantity);
    }
    Extent { sum: (i128::from(high) << 32) + i128::from(low), least: i128::from(least), greatest: i128::from(greatest) }
}

fn wide(bytes: &[u8]) -> Result<Extent> {
    let mut found = Extent { sum: 0, least: i128::MAX, greatest: i128::MIN };
    for row in bytes.as_chunks::<16>().0 {
        let quantity = i128::from_le_bytes(*row);
        found.sum = found.sum.checked_add(quantity).ok_or_else(too_large)?;
        found.least = found.least.min(quantity);
        found.greatest = found.greatest.max(quantity);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::{Batch, SegmentBuilder, Series};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn halves_add_up_to_the_whole(quantities in prop::collection::vec(prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), -3..3_i64], 1..50)) {
            let bytes: Vec<u8> = quantities.iter().flat_map(|quantity| quantity.to_le_bytes()).collect();
            let found = narrow(&bytes);
            prop_assert_eq!(found.sum, quantities.iter().map(|quantity| i128::from(*quantity)).sum::<i128>());
            prop_assert_eq!(found.least, i128::from(*quantities.iter().min().unwrap()));
            prop_assert_eq!(found.greatest, i128::from(*quantities.iter().max().unwrap()));
        }
    }

    #[test]
    fn groups_longer_than_a_piece_are_added_up_across_its_end() {
        for most in [i128::from(i64::MAX), 1 << 90] {
            let mut batch =
                Batch { series: ["a", "b", "c"].map(|name| Series::new("s", name, "m", &[]).unwrap()).into(), ..Batch::default() };
            for row in 0..3 * PIECE {
                batch.push(u32::from(row > 7) + u32::from(row > 2 * PIECE), u64::from(row), most - i128::from(row), "id").unwrap();
            }
            let mut builder = SegmentBuilder::default();
            builder.add(0, &batch, &vec![[0; 32]; batch.len()]).unwrap();
            let bytes = builder.build(0, 1).unwrap();
            let check = |bytes: Vec<u8>| {
                let segment = Segment::open(bytes).unwrap();
                let mut recount = Recount::new(&segment);
                segment.groups(|group| recount.check(group))
            };
            check(bytes.clone()).unwrap();
            // The last quantity of the longest group, by one.
            let mut other = bytes;
            let last = (most - i128::from(2 * PIECE)).to_le_bytes();
            let place = other.windows(8).rposition(|bytes| bytes == &last[..8]).unwrap();
            other[place] ^= 1;
            let error = check(other).unwrap_err();
            assert_eq!(error.kind(), &ErrorKind::Integrity);
            assert!(error.to_string().contains("\"customer\":\"b\""), "{error}");
        }
    }
}

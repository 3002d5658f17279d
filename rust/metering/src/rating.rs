//! The price of one act, before it is done: what it would cost at most, in billionths of the currency's unit.
//!
//! Invoices are rated from the period's sums in exact decimals, elsewhere; this is for budgets, inline, and rounds up once an act.

use creto_enablement_common::{Error, Result, Usage};
use smallvec::SmallVec;

/// A price as a whole number of 10^-18 of the currency's unit.
const ATTO_DIGITS: i32 = 18;
const ATTO_PER_NANO: u128 = 1_000_000_000;

/// The price of one unit of one meter.
#[derive(Clone, Debug)]
struct Part {
    meter: Box<str>,
    base: u128,
    /// (context beyond which it holds, price), rising.
    above: SmallVec<[(u64, u128); 1]>,
    /// True where the units are part of the context.
    context: bool,
}

/// The prices of the meters of one kind of act: looked up once, used for many.
#[derive(Clone, Debug, Default)]
pub struct ActPrice {
    parts: SmallVec<[Part; 4]>,
}

/// A decimal such as `2.5e-06`, exactly, in 10^-18.
///
/// # Errors
/// `InvalidInput` where it is no such number, is negative, or is finer than that.
pub fn atto(text: &str) -> Result<u128> {
    let refuse =
        || Error::invalid(format!("price `{text}`: write a decimal from 0 with at most {ATTO_DIGITS} places, such as `0.0000025`"));
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().map_err(|_| refuse())?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: String = [whole, fraction].concat();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) || digits.len() > 38 {
        return Err(refuse());
    }
    let value: u128 = digits.parse().map_err(|_| refuse())?;
    let places = i32::try_from(fraction.len()).map_err(|_| refuse())?;
    let shift = exponent.checked_sub(places).and_then(|e| e.checked_add(ATTO_DIGITS)).ok_or_else(refuse)?;
    if value == 0 {
        return Ok(0);
    }
    let power = |n: i32| u32::try_from(n).ok().and_then(|n| 10_u128.checked_pow(n));
    if shift >= 0 {
        return power(shift).and_then(|scale| value.checked_mul(scale)).ok_or_else(refuse);
    }
    let scale = power(-shift).ok_or_else(refuse)?;
    if value.is_multiple_of(scale) { Ok(value / scale) } else { Err(refuse()) }
}

impl ActPrice {
    /// Adds a meter: its price per unit, other prices beyond a length of context, and whether its units are context.
    ///
    /// # Errors
    /// `InvalidInput` for a price that is none, or a meter that stands twice.
    pub fn add(&mut self, meter: &str, price: &str, above: &[(u64, &str)], context: bool) -> Result<()> {
        if self.parts.iter().any(|part| *part.meter == *meter) {
            return Err(Error::invalid(format!("`{meter}` has two prices")));
        }
        let mut steps: SmallVec<[(u64, u128); 1]> = above.iter().map(|(from, price)| Ok((*from, atto(price)?))).collect::<Result<_>>()?;
        steps.sort_unstable();
        self.parts.push(Part { meter: meter.into(), base: atto(price)?, above: steps, context });
        Ok(())
    }

    /// What the usage costs, in billionths of the currency's unit, rounded up.
    ///
    /// # Errors
    /// `InvalidInput` where a meter has no price, or the cost is beyond 64 bits.
    #[inline]
    pub fn cost(&self, usage: Usage<'_>) -> Result<u64> {
        let mut context = 0_u64;
        let mut found: SmallVec<[(&Part, u64); 8]> = SmallVec::new();
        for (meter, units) in usage {
            let Some(part) = self.parts.iter().find(|part| *part.meter == **meter) else {
                return Err(Error::invalid(format!("`{meter}` has no price")));
            };
            if part.context {
                context = context.saturating_add(*units);
            }
            found.push((part, *units));
        }
        let mut cost = 0_u128;
        for (part, units) in found {
            let price = part.above.iter().rev().find(|(from, _)| context > *from).map_or(part.base, |(_, price)| *price);
            let amount = price.checked_mul(u128::from(units)).ok_or_else(too_dear)?;
            cost = cost.checked_add(amount).ok_or_else(too_dear)?;
        }
        u64::try_from(cost.div_ceil(ATTO_PER_NANO)).map_err(|_| too_dear())
    }
}

fn too_dear() -> Error {
    Error::invalid("the cost of the act is beyond 18 billion units of currency")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decimals_are_read_exactly_or_refused() {
        for (text, value) in [("2.5e-06", 2_500_000_000_000), ("0", 0), ("1", 10_u128.pow(18)), ("0.000000000000000001", 1), ("1e-18", 1)] {
            assert_eq!(atto(text).unwrap(), value, "{text}");
        }
        for bad in ["", "-1", "1e-19", "nan", "inf", "1.2.3", "0x1", "1e99", "."] {
            assert!(atto(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_long_context_changes_the_price_of_every_token() {
        let mut price = ActPrice::default();
        price.add("input_tokens", "1.25e-06", &[(200_000, "2.5e-06")], true).unwrap();
        price.add("cached_input_tokens", "1.25e-07", &[], true).unwrap();
        price.add("output_tokens", "1e-05", &[(200_000, "1.5e-05")], false).unwrap();
        assert_eq!(price.cost(&[("input_tokens", 1_000), ("output_tokens", 10)]).unwrap(), 1_250_000 + 100_000);
        assert_eq!(
            price.cost(&[("input_tokens", 150_000), ("cached_input_tokens", 50_001), ("output_tokens", 1)]).unwrap(),
            375_000_000 + 6_250_125 + 15_000
        );
        assert_eq!(price.cost(&[("cached_input_tokens", 1)]).unwrap(), 125);
        assert!(price.cost(&[("images", 1)]).unwrap_err().to_string().contains("`images` has no price"));
        assert!(price.cost(&[("output_tokens", u64::MAX)]).is_err());
    }

    proptest! {
        #[test]
        fn more_never_costs_less(first in 0..10_000_000_u64, more in 0..10_000_000_u64, price in 0..1_000_000_u64) {
            let mut act = ActPrice::default();
            act.add("m", &format!("0.{price:012}"), &[], false).unwrap();
            prop_assert!(act.cost(&[("m", first)]).unwrap() <= act.cost(&[("m", first + more)]).unwrap());
        }
    }
}

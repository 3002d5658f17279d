//! What events of one kind have in common: who says so, who pays, of which meter, with which dimensions; and the bytes that stand for an event.

use super::commitment::Hash;
use creto_enablement_common::{Error, Result};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// The most characters of a name.
pub const MOST_TEXT: usize = 1_024;
/// The most dimensions of an event.
pub const MOST_DIMENSIONS: usize = 64;

/// What events of one kind have in common; dimensions in the order of RFC 8785, each once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Series {
    /// Who says so; ids are unique within a source.
    pub source: String,
    /// Who pays: the organisation of a path.
    pub customer: String,
    /// Of what.
    pub meter: String,
    /// What it can be grouped and priced by.
    pub dimensions: Vec<(String, String)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    customer: String,
    dimensions: std::collections::BTreeMap<String, String>,
    meter: String,
    source: String,
}

fn escaped(text: &str) -> String {
    // RFC 8785 escapes as serde_json does.
    serde_json::Value::from(text).to_string()
}

impl Series {
    /// A series, checked and put in order.
    ///
    /// # Errors
    /// `InvalidInput` where a name is empty, too long, or stands twice.
    pub fn new(source: &str, customer: &str, meter: &str, dimensions: &[(&str, &str)]) -> Result<Self> {
        for (name, text) in [("source", source), ("customer", customer), ("meter", meter)] {
            if text.is_empty() || text.chars().count() > MOST_TEXT {
                return Err(Error::invalid(format!("usage of `{meter}` by `{customer}`: `{name}` has 1 to {MOST_TEXT} characters")));
            }
        }
        let mut own: Vec<(String, String)> = dimensions.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        own.sort_by(|(one, _), (two, _)| one.encode_utf16().cmp(two.encode_utf16()));
        let refuse = |what: &str| Err(Error::invalid(format!("usage of `{meter}` by `{customer}`: {what}")));
        if own.len() > MOST_DIMENSIONS {
            return refuse(&format!("it has {} dimensions; {MOST_DIMENSIONS} are the most", own.len()));
        }
        for (place, (name, value)) in own.iter().enumerate() {
            if name.is_empty() || name.chars().count() > MOST_TEXT || value.chars().count() > MOST_TEXT {
                return refuse(&format!("a dimension has a name of 1 to {MOST_TEXT} characters and a value of at most as many"));
            }
            if name == "customer" {
                return refuse("`customer` is no dimension of its own: it is who pays");
            }
            if own.get(place + 1).is_some_and(|(next, _)| next == name) {
                return refuse(&format!("the dimension `{name}` stands twice"));
            }
        }
        Ok(Self { source: source.to_owned(), customer: customer.to_owned(), meter: meter.to_owned(), dimensions: own })
    }

    /// A series as the ledger holds it: only put in order, since what is recorded is not refused later.
    pub fn recorded(source: &str, customer: &str, meter: &str, dimensions: std::collections::BTreeMap<String, String>) -> Self {
        let mut dimensions: Vec<(String, String)> =
            dimensions.into_iter().filter(|(name, _)| !name.is_empty() && name != "customer").collect();
        dimensions.sort_by(|(one, _), (two, _)| one.encode_utf16().cmp(two.encode_utf16()));
        Self { source: source.to_owned(), customer: customer.to_owned(), meter: meter.to_owned(), dimensions }
    }

    /// RFC 8785 JSON.
    pub fn text(&self) -> String {
        format!(
            "{{\"customer\":{},\"dimensions\":{},\"meter\":{},\"source\":{}}}",
            escaped(&self.customer),
            self.dimensions_text(),
            escaped(&self.meter),
            escaped(&self.source)
        )
    }

    fn dimensions_text(&self) -> String {
        let pairs: Vec<String> = self.dimensions.iter().map(|(name, value)| format!("{}:{}", escaped(name), escaped(value))).collect();
        format!("{{{}}}", pairs.join(","))
    }

    /// Reads what `text` wrote.
    ///
    /// # Errors
    /// `InvalidInput` for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let written: Written = serde_json::from_str(text).map_err(|e| Error::invalid(format!("a series of usage events: {e}")))?;
        Ok(Self::recorded(&written.source, &written.customer, &written.meter, written.dimensions))
    }

    /// The value of a dimension; `customer` is one too.
    pub fn dimension(&self, name: &str) -> Option<&str> {
        if name == "customer" {
            return Some(&self.customer);
        }
        self.dimensions.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// What the leaves of its events are made with.
    pub fn leaves(&self) -> Leaves {
        Leaves {
            after_at: format!(",\"customer\":{},\"dimensions\":{},\"id\":", escaped(&self.customer), self.dimensions_text()),
            after_id: format!(",\"meter\":{},\"quantity\":\"", escaped(&self.meter)),
            end: format!("\",\"source\":{}}}", escaped(&self.source)),
        }
    }
}

/// Makes the leaf of an event: RFC 8785 JSON of all that it says, in whole numbers and texts. The parts that a series has in common are made once.
#[derive(Clone, Debug)]
pub struct Leaves {
    after_at: String,
    after_id: String,
    end: String,
}

impl Leaves {
    /// Appends the leaf of an event.
    pub fn write(&self, at: u64, id: &str, quantity: i128, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"at\":");
        whole(out, u128::from(at));
        out.extend_from_slice(self.after_at.as_bytes());
        if id.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
            out.push(b'"');
            out.extend_from_slice(id.as_bytes());
            out.push(b'"');
        } else {
            out.extend_from_slice(escaped(id).as_bytes());
        }
        out.extend_from_slice(self.after_id.as_bytes());
        if quantity < 0 {
            out.push(b'-');
        }
        whole(out, quantity.unsigned_abs());
        out.extend_from_slice(self.end.as_bytes());
    }

    /// Its hash, as a leaf of a Merkle tree (RFC 9162); `room` is overwritten.
    pub fn hash(&self, at: u64, id: &str, quantity: i128, room: &mut Vec<u8>) -> Hash {
        room.clear();
        room.push(0);
        self.write(at, id, quantity, room);
        Sha256::digest(room.as_slice()).into()
    }
}

fn whole(out: &mut Vec<u8>, value: u128) {
    let Ok(mut rest) = u64::try_from(value) else {
        // Rare, and left to the standard library.
        out.extend_from_slice(value.to_string().as_bytes());
        return;
    };
    let mut digits = [0_u8; 20];
    let mut length = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        length += 1;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - length..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_leaf_is_json_in_the_order_of_rfc_8785() {
        let series = Series::new("app", "acme", "pages", &[("team", "r\"d"), ("agent", "a")]).unwrap();
        let mut leaf = Vec::new();
        series.leaves().write(17, "id\\1", -5, &mut leaf);
        let text = String::from_utf8(leaf).unwrap();
        assert_eq!(
            text,
            r#"{"at":17,"customer":"acme","dimensions":{"agent":"a","team":"r\"d"},"id":"id\\1","meter":"pages","quantity":"-5","source":"app"}"#
        );
        assert_eq!(Series::parse(&series.text()).unwrap(), series);
    }

    #[test]
    fn what_is_no_series_is_refused_with_its_reason() {
        for (meter, dimensions, text) in [
            ("", vec![], "`meter` has 1 to 1024 characters"),
            ("m", vec![("a", "1"), ("a", "2")], "the dimension `a` stands twice"),
            ("m", vec![("", "1")], "has a name of 1 to 1024"),
            ("m", vec![("customer", "x")], "it is who pays"),
        ] {
            let error = Series::new("s", "c", meter, &dimensions).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_leaf_is_what_serde_makes_of_it(at in 0..u64::MAX >> 12, id in ".{1,12}", quantity in any::<i128>(), value in ".{0,8}") {
            let series = Series::new("s", "c", "m", &[("d", &value)]).unwrap();
            let mut leaf = Vec::new();
            series.leaves().write(at, &id, quantity, &mut leaf);
            let read: serde_json::Value = serde_json::from_slice(&leaf).unwrap();
            prop_assert_eq!(read["at"].as_u64(), Some(at));
            prop_assert_eq!(read["id"].as_str(), Some(id.as_str()));
            prop_assert_eq!(read["quantity"].as_str().map(ToOwned::to_owned), Some(quantity.to_string()));
            prop_assert_eq!(read["dimensions"]["d"].as_str(), Some(value.as_str()));
            // serde_json keeps names sorted, as RFC 8785 asks of these.
            prop_assert_eq!(serde_json::to_vec(&read).unwrap(), leaf);
        }
    }
}

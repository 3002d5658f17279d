//! How each kind of value is written in an act's document. What has no encoding here cannot be agreed to.
//!
//! | value | JSON |
//! |---|---|
//! | none, booleans, text | as they are |
//! | integer | a number within ±(2^53 - 1), else `{"__integer": "<decimal digits>"}` |
//! | finite float | a number; NaN and the infinities are refused |
//! | bytes | `{"__bytes": "<base64url, no padding>"}` |
//! | entity | `{"__entity": {"id": ..., "type": ...}}` |
//! | decimal, ip, datetime, duration | `{"__extn": {"arg": "<text>", "fn": "<constructor>"}}` |
//! | list | an array, in its order |
//! | set | `{"__set": [...]}`, sorted by each member's canonical bytes, repetitions dropped |
//! | record | an object; names that start with `__` are kept for the forms above |

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use creto_enablement_common::{Error, Result, Value};
use serde_json::{Map, Value as Json, json};

/// Numbers beyond this do not survive a JSON reader that keeps doubles (RFC 8785, section 3.2.2.3).
const LARGEST_EXACT: u64 = (1 << 53) - 1;

/// How deep values may nest.
const DEEPEST: usize = 64;

/// A value in its stated encoding; there is no other way to make one than the functions here.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded(Json);

impl Encoded {
    /// No value.
    pub fn null() -> Self {
        Self(Json::Null)
    }

    /// True or false.
    pub fn boolean(value: bool) -> Self {
        Self(Json::Bool(value))
    }

    /// Text.
    pub fn text(value: impl Into<String>) -> Self {
        Self(Json::String(value.into()))
    }

    /// An integer of any size, by its decimal digits.
    ///
    /// # Errors
    /// `InvalidInput` where the text is not an optional sign and digits.
    pub fn integer(digits: &str) -> Result<Self> {
        if let Ok(value) = digits.parse::<i64>()
            && value.unsigned_abs() <= LARGEST_EXACT
        {
            return Ok(Self(Json::from(value)));
        }
        let (sign, rest) = digits.strip_prefix('-').map_or(("", digits), |rest| ("-", rest));
        if rest.is_empty() || !rest.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Error::invalid(format!("`{digits}` is not an integer: write an optional sign and decimal digits")));
        }
        let rest = rest.trim_start_matches('0');
        Ok(Self(json!({ "__integer": format!("{sign}{rest}") })))
    }

    /// A finite float.
    ///
    /// # Errors
    /// `InvalidInput` for NaN and the infinities, which JSON cannot say.
    pub fn float(value: f64) -> Result<Self> {
        if !value.is_finite() {
            return Err(Error::invalid(format!("`{value}` has no encoding in an act: only finite numbers have one")));
        }
        // RFC 8785 writes 1.0 as 1; going through the integer keeps `1` and `1.0` the same value on every path.
        if value.fract() == 0.0 && value.abs() <= LARGEST_EXACT as f64 {
            return Ok(Self(Json::from(value as i64)));
        }
        Ok(Self(Json::from(value)))
    }

    /// Bytes.
    pub fn bytes(value: &[u8]) -> Self {
        Self(json!({ "__bytes": URL_SAFE_NO_PAD.encode(value) }))
    }

    /// An entity of the policy language.
    pub fn entity(kind: &str, id: &str) -> Self {
        Self(json!({ "__entity": { "type": kind, "id": id } }))
    }

    /// An extension value, by its constructor and text.
    pub fn extension(constructor: &str, text: &str) -> Self {
        Self(json!({ "__extn": { "fn": constructor, "arg": text } }))
    }

    /// A list, whose order counts.
    pub fn list(members: impl IntoIterator<Item = Self>) -> Self {
        Self(Json::Array(members.into_iter().map(|member| member.0).collect()))
    }

    /// A set, whose order and repetitions do not count.
    ///
    /// # Errors
    /// `Internal` where a member cannot be written, which the other functions rule out.
    pub fn set(members: impl IntoIterator<Item = Self>) -> Result<Self> {
        let mut keyed = members.into_iter().map(|member| Ok((canonical(&member.0)?, member.0))).collect::<Result<Vec<_>>>()?;
        keyed.sort_by(|(a, _), (b, _)| a.cmp(b));
        keyed.dedup_by(|(a, _), (b, _)| a == b);
        Ok(Self(json!({ "__set": keyed.into_iter().map(|(_, member)| member).collect::<Vec<_>>() })))
    }

    /// A record.
    ///
    /// # Errors
    /// `InvalidInput` where a name stands twice or is kept for another form.
    pub fn record(fields: impl IntoIterator<Item = (String, Self)>) -> Result<Self> {
        let mut object = Map::new();
        for (name, value) in fields {
            if name.starts_with("__") {
                return Err(Error::invalid(format!(
                    "the name `{name}` cannot stand in an act: names that start with `__` have a meaning of their own"
                )));
            }
            if object.contains_key(&name) {
                return Err(Error::invalid(format!("`{name}` stands twice")));
            }
            object.insert(name, value.0);
        }
        Ok(Self(Json::Object(object)))
    }

    /// A value of the policy language.
    ///
    /// # Errors
    /// As the functions above.
    pub fn from_value(value: &Value<'_>) -> Result<Self> {
        Ok(match *value {
            Value::Bool(value) => Self::boolean(value),
            Value::Long(value) => Self::integer(&value.to_string())?,
            Value::Str(value) => Self::text(value),
            Value::Entity(kind, id) => Self::entity(kind, id),
            Value::Extension(constructor, text) => Self::extension(constructor, text),
            Value::Set(members) => Self::set(members.iter().map(Self::from_value).collect::<Result<Vec<_>>>()?)?,
            Value::Record(fields) => Self::record(
                fields.iter().map(|(name, value)| Ok(((*name).to_owned(), Self::from_value(value)?))).collect::<Result<Vec<_>>>()?,
            )?,
        })
    }

    /// Reads a value that was written before.
    ///
    /// # Errors
    /// `InvalidInput` where it is not in the encoding above, or nests too deep.
    pub fn from_json(value: Json) -> Result<Self> {
        check(&value, 0)?;
        Ok(Self(value))
    }

    /// The JSON of it.
    pub fn json(&self) -> &Json {
        &self.0
    }

    pub(crate) fn into_json(self) -> Json {
        self.0
    }

    /// Refuses what nests too deep for every reader to follow.
    ///
    /// # Errors
    /// `InvalidInput`.
    pub fn bounded(self) -> Result<Self> {
        check(&self.0, 0)?;
        Ok(self)
    }
}

/// The canonical bytes of RFC 8785.
pub(crate) fn canonical(value: &Json) -> Result<Vec<u8>> {
    serde_json_canonicalizer::to_vec(value).map_err(|e| Error::internal("writing canonical JSON").with_source(e))
}

fn check(value: &Json, depth: usize) -> Result<()> {
    if depth > DEEPEST {
        return Err(Error::invalid(format!("the value nests deeper than {DEEPEST} levels")));
    }
    match value {
        Json::Array(members) => members.iter().try_for_each(|member| check(member, depth + 1)),
        Json::Object(fields) => match fields.iter().next() {
            Some((name, form)) if name.starts_with("__") => {
                if fields.len() == 1 && form_holds(name, form)? {
                    if let ("__set", Json::Array(members)) = (name.as_str(), form) {
                        return members.iter().try_for_each(|member| check(member, depth + 1));
                    }
                    return Ok(());
                }
                Err(Error::invalid(format!("`{name}` is not in the form that it is kept for")))
            }
            _ => fields.iter().try_for_each(|(name, member)| {
                if name.starts_with("__") {
                    return Err(Error::invalid(format!("the name `{name}` cannot stand in an act beside others")));
                }
                check(member, depth + 1)
            }),
        },
        Json::Number(number) => {
            // A whole float beyond 2^53 is written without a point; it must read back as the very same number.
            let small = number.as_i64().is_some_and(|n| n.unsigned_abs() <= LARGEST_EXACT) || !(number.is_i64() || number.is_u64());
            let same = |float: f64| canonical(&Json::from(float)).is_ok_and(|text| text == number.to_string().as_bytes());
            if small || number.as_f64().is_some_and(same) {
                return Ok(());
            }
            Err(Error::invalid(format!("`{number}` is beyond what a JSON number holds exactly")))
        }
        _ => Ok(()),
    }
}

fn form_holds(name: &str, form: &Json) -> Result<bool> {
    let texts =
        |keys: [&str; 2]| form.as_object().is_some_and(|o| o.len() == 2 && keys.iter().all(|key| o.get(*key).is_some_and(Json::is_string)));
    Ok(match name {
        "__integer" => match form.as_str() {
            // Only what `integer` itself would write: one value, one encoding.
            Some(digits) => Encoded::integer(digits)?.0 == json!({ "__integer": digits }),
            None => false,
        },
        "__bytes" => form.as_str().is_some_and(|text| URL_SAFE_NO_PAD.decode(text).is_ok()),
        "__entity" => texts(["type", "id"]),
        "__extn" => texts(["fn", "arg"]),
        "__set" => match form {
            Json::Array(members) => Encoded::set(members.iter().cloned().map(Encoded))?.0 == json!({ "__set": form }),
            _ => false,
        },
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_encoded() -> impl Strategy<Value = Encoded> {
        let leaf = prop_oneof![
            Just(Encoded::null()),
            any::<bool>().prop_map(Encoded::boolean),
            any::<i128>().prop_map(|n| Encoded::integer(&n.to_string()).unwrap()),
            any::<f64>().prop_filter_map("finite", |f| Encoded::float(f).ok()),
            ".*".prop_map(Encoded::text),
            any::<Vec<u8>>().prop_map(|b| Encoded::bytes(&b)),
            (".*", ".*").prop_map(|(a, b)| Encoded::extension(&a, &b)),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Encoded::list),
                prop::collection::vec(inner.clone(), 0..4).prop_map(|m| Encoded::set(m).unwrap()),
                prop::collection::btree_map("[a-z]{1,4}", inner, 0..4).prop_map(|m| Encoded::record(m).unwrap()),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_as_the_same_value(value in any_encoded()) {
            let bytes = canonical(value.json()).unwrap();
            let back = Encoded::from_json(serde_json::from_slice(&bytes).unwrap()).unwrap();
            prop_assert_eq!(canonical(back.json()).unwrap(), bytes);
        }

        #[test]
        fn the_order_and_repetition_of_a_set_do_not_count(mut members in prop::collection::vec(any_encoded(), 0..6)) {
            let once = Encoded::set(members.clone()).unwrap();
            members.reverse();
            members.extend(members.clone());
            prop_assert_eq!(Encoded::set(members).unwrap(), once);
        }
    }

    #[test]
    fn what_has_no_encoding_is_an_error_that_says_so() {
        assert_eq!(
            Encoded::float(f64::NAN).unwrap_err().to_string(),
            "invalid input: `NaN` has no encoding in an act: only finite numbers have one"
        );
        let reserved = Encoded::record([("__extn".to_owned(), Encoded::null())]).unwrap_err();
        assert!(reserved.to_string().contains("names that start with `__` have a meaning of their own"), "{reserved}");
        let deep = (0..80).fold(Encoded::null(), |inner, _| Encoded::list([inner]));
        assert!(deep.bounded().is_err());
    }

    #[test]
    fn a_second_way_to_write_a_value_is_refused() {
        for text in [
            r#"{"__integer":"7"}"#,
            r#"{"__integer":"0099999999999999999999"}"#,
            r#"{"__set":[2,1]}"#,
            r#"{"__set":[1],"x":1}"#,
            r#"{"x":1,"__set":[]}"#,
            "9007199254740993",
        ] {
            assert!(Encoded::from_json(serde_json::from_str(text).unwrap()).is_err(), "{text}");
        }
    }
}

//! Values of an act's context, borrowed from whoever asks.

/// One value. Lists and records borrow their parts, so a flat context costs no allocation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// true or false
    Bool(bool),
    /// A 64-bit signed integer.
    Long(i64),
    /// Text.
    Str(&'a str),
    /// An entity, by type and id.
    Entity(&'a str, &'a str),
    /// An extension value by its constructor and text: `decimal`, `ip`, `datetime`, `duration`.
    Extension(&'a str, &'a str),
    /// A set; order and repetition do not count.
    Set(&'a [Value<'a>]),
    /// A record.
    Record(Fields<'a>),
}

/// Named values, in any order; a name stands at most once.
pub type Fields<'a> = &'a [(&'a str, Value<'a>)];

//! A short list that never grows: what fits lies in place, and all of it is as small as can be, so that a record's first cache line holds it.

/// At most `N` items in place, or any number elsewhere.
#[derive(Clone, Debug)]
pub enum Few<T, const N: usize> {
    /// How many, and the items.
    Here(u8, [T; N]),
    /// A box of a box, since a pointer with its length would not fit.
    #[expect(clippy::box_collection, reason = "one word instead of three")]
    There(Box<Vec<T>>),
}

impl<T: Copy + Default, const N: usize> Default for Few<T, N> {
    fn default() -> Self {
        Self::Here(0, [T::default(); N])
    }
}

impl<T, const N: usize> std::ops::Deref for Few<T, N> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match self {
            Self::Here(len, items) => items.get(..usize::from(*len)).unwrap_or_default(),
            Self::There(items) => items,
        }
    }
}

impl<T: Copy + Default, const N: usize> FromIterator<T> for Few<T, N> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let (mut here, mut len) = ([T::default(); N], 0_u8);
        let mut items = items.into_iter();
        for place in &mut here {
            let Some(item) = items.next() else { return Self::Here(len, here) };
            *place = item;
            len += 1;
        }
        match items.next() {
            None => Self::Here(len, here),
            Some(more) => Self::There(Box::new(here.into_iter().chain([more]).chain(items).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_every_length_holds_what_was_put_in() {
        assert_eq!((size_of::<Few<u32, 3>>(), size_of::<Few<(u32, u32), 2>>()), (16, 24));
        for len in 0..8 {
            let few: Few<u32, 3> = (0..len).collect();
            assert!(few.iter().copied().eq(0..len));
        }
    }
}

//! Holds nothing: the manifest beside it is what is wanted.

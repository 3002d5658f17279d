//! Attachments: sealed apart from the message, in chunks, under a fresh key that travels inside the envelope.
//!
//! STREAM (Hoang, Reyhanitabar, Rogaway, Vizár: Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance, CRYPTO 2015): each
//! chunk's nonce holds its number and whether it is the last, so that none can be dropped, moved, doubled or cut off.

use creto_crypto::{Provider, Secret};
use creto_enablement_common::{Error, ErrorKind, Result};

/// Bytes of plaintext in every chunk but the last.
const CHUNK: usize = 64 * 1024;
const TAG: usize = 16;
const PREFIX: usize = 7;

fn failed(error: creto_crypto::Error) -> Error {
    Error::new(ErrorKind::EncryptionFailed).with_source(error)
}

fn broken() -> Error {
    Error::new(ErrorKind::EncryptionFailed).with_context("the attachment is not what its message says")
}

fn nonce(prefix: &[u8; PREFIX], number: u32, last: bool) -> [u8; 12] {
    let [a, b, c, d, e, f, g] = *prefix;
    let [h, i, j, k] = number.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, u8::from(last)]
}

/// Seals data under a fresh key; the result is a nonce prefix and the sealed chunks.
pub fn seal_attachment(data: &[u8]) -> Result<(Secret<32>, Vec<u8>)> {
    let provider = Provider::chosen();
    let key = Secret::random(provider).map_err(failed)?;
    let prefix: [u8; PREFIX] = provider.nonce().map_err(failed)?;
    let chunks = data.len().div_ceil(CHUNK).max(1);
    let mut out = Vec::with_capacity(PREFIX + data.len() + chunks * TAG);
    out.extend_from_slice(&prefix);
    for index in 0..chunks {
        let number = u32::try_from(index).map_err(|_| Error::invalid("an attachment may have 256 TiB at most"))?;
        let start = out.len();
        let from = index * CHUNK;
        out.extend_from_slice(data.get(from..data.len().min(from + CHUNK)).unwrap_or_default());
        let chunk = out.get_mut(start..).unwrap_or_default();
        let tag = provider.symmetric.seal(&key, &nonce(&prefix, number, index + 1 == chunks), b"", chunk).map_err(failed)?;
        out.extend_from_slice(&tag);
    }
    Ok((key, out))
}

/// Opens what `seal_attachment` made, whole or not at all.
pub fn open_attachment(key: &Secret<32>, sealed: &[u8]) -> Result<Vec<u8>> {
    let provider = Provider::chosen();
    let (prefix, mut rest) = sealed.split_first_chunk::<PREFIX>().ok_or_else(broken)?;
    let mut out = Vec::with_capacity(rest.len());
    let mut number = 0u32;
    loop {
        let last = rest.len() <= CHUNK + TAG;
        let (chunk, after) = rest.split_at_checked(if last { rest.len() } else { CHUNK + TAG }).ok_or_else(broken)?;
        let (text, tag) = chunk.split_last_chunk::<TAG>().ok_or_else(broken)?;
        let start = out.len();
        out.extend_from_slice(text);
        let room = out.get_mut(start..).unwrap_or_default();
        provider.symmetric.open(key, &nonce(prefix, number, last), b"", room, tag).map_err(|_| broken())?;
        if last {
            return Ok(out);
        }
        rest = after;
        number = number.checked_add(1).ok_or_else(broken)?;
    }
}

/// Whether a chunk is the one of this number, before the others are here: the nonce prefix of the whole, then the chunk.
pub fn check_chunk(key: &Secret<32>, piece: &[u8], number: u32, last: bool) -> Result<()> {
    let (prefix, chunk) = piece.split_first_chunk::<PREFIX>().ok_or_else(broken)?;
    let (text, tag) = chunk.split_last_chunk::<TAG>().ok_or_else(broken)?;
    if text.len() > CHUNK {
        return Err(broken());
    }
    let mut room = text.to_vec();
    Provider::chosen().symmetric.open(key, &nonce(prefix, number, last), b"", &mut room, tag).map_err(|_| broken())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_around_a_chunk_comes_back() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 7] {
            let data: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let (key, sealed) = seal_attachment(&data).unwrap();
            assert_eq!(sealed.len(), PREFIX + length + length.div_ceil(CHUNK).max(1) * TAG);
            assert_eq!(open_attachment(&key, &sealed).unwrap(), data);
        }
    }

    #[test]
    fn chunks_cannot_be_dropped_moved_doubled_or_cut() {
        let (key, sealed) = seal_attachment(&vec![7; 3 * CHUNK]).unwrap();
        let (prefix, body) = sealed.split_at(PREFIX);
        let chunks: Vec<&[u8]> = body.chunks(CHUNK + TAG).collect();
        for order in [&[0, 1][..], &[1, 2], &[0, 2], &[1, 0, 2], &[0, 0, 1, 2], &[0, 1, 2, 2], &[]] {
            let mut bad = prefix.to_vec();
            order.iter().for_each(|&i| bad.extend_from_slice(chunks[i]));
            assert!(open_attachment(&key, &bad).is_err(), "{order:?}");
        }
        for length in [0, PREFIX, PREFIX + 1, sealed.len() - 1] {
            assert!(open_attachment(&key, &sealed[..length]).is_err());
        }
        for (place, chunk) in chunks.iter().enumerate() {
            let piece = [prefix, chunk].concat();
            for number in 0..4 {
                for last in [false, true] {
                    let right = number as usize == place && last == (place == 2);
                    assert_eq!(check_chunk(&key, &piece, number, last).is_ok(), right, "{place} as {number}, {last}");
                }
            }
            assert!(check_chunk(&key, &piece[..piece.len() - 1], place as u32, place == 2).is_err());
        }
        let mut flipped = sealed.clone();
        flipped[CHUNK] ^= 1;
        assert!(open_attachment(&key, &flipped).is_err());
    }
}

//! As much of AMF0 as it takes to compare metadata.
//!
//! Owns the recognition of `onMetaData` and a walk over its top-level properties, bounded in depth
//! and number. Does not own writing AMF0, nor the meaning of properties: metadata travels as the
//! bytes it came as.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use super::byte_reader::ByteReader;

/// Deepest nesting that is followed; metadata nests once or twice.
const DEPTH_MAX: u8 = 8;
/// Most values that are walked; a file's keyframe index has some thousands.
const VALUES_MAX: u32 = 65_536;

/// How a script tag begins that RTMP encoders send: "keep what follows as metadata".
const SET_DATA_FRAME: &[u8] = b"\x02\x00\x0d@setDataFrame";
/// How metadata begins: the string `onMetaData`.
const ON_META_DATA: &[u8] = b"\x02\x00\x0aonMetaData";

/// Properties that muxers change as they go, without meaning for a decoder.
const VOLATILE: [&[u8]; 10] = [
    b"creationdate",
    b"creation_time",
    b"duration",
    b"filesize",
    b"totaldatarate",
    b"videodatarate",
    b"audiodatarate",
    b"lasttimestamp",
    b"lastkeyframetimestamp",
    b"metadatadate",
];

/// `body` without a leading `@setDataFrame`, which belongs to RTMP and not to FLV.
#[must_use]
pub fn without_set_data_frame(body: &[u8]) -> &[u8] {
    body.strip_prefix(SET_DATA_FRAME).unwrap_or(body)
}

/// Whether a script tag's body is `onMetaData`.
#[must_use]
pub fn is_metadata(body: &[u8]) -> bool {
    without_set_data_frame(body).starts_with(ON_META_DATA)
}

/// A hash that is the same for metadata that differ in volatile properties alone (creation date,
/// measured rates, duration). Metadata that cannot be walked hash as their bytes.
#[must_use]
pub fn fingerprint(body: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for property in properties(body) {
        let Some((key, value)) = property else {
            return *blake3::hash(body).as_bytes();
        };
        if !VOLATILE.iter().any(|volatile| key.eq_ignore_ascii_case(volatile)) {
            // Lengths keep neighbours from running into each other.
            hasher.update(&u64::try_from(key.len()).unwrap_or(0).to_be_bytes());
            hasher.update(key);
            hasher.update(&u64::try_from(value.len()).unwrap_or(0).to_be_bytes());
            hasher.update(value);
        }
    }
    *hasher.finalize().as_bytes()
}

/// A number among the metadata's top-level properties, such as `width`.
#[must_use]
pub fn number(body: &[u8], name: &str) -> Option<f64> {
    properties(body).flatten().find(|(key, _)| *key == name.as_bytes()).and_then(|(_, value)| {
        let mut reader = ByteReader::new(value);
        (reader.u8()? == 0).then(|| reader.array().map(f64::from_be_bytes))?
    })
}

/// Whether the metadata speak of a picture.
#[must_use]
pub fn announces_video(body: &[u8]) -> bool {
    properties(body).flatten().any(|(key, _)| key == b"videocodecid" || key == b"width")
}

/// Name and encoded value of each top-level property. `None` as the only or last item: malformed.
fn properties(body: &[u8]) -> impl Iterator<Item = Option<(&[u8], &[u8])>> {
    let mut state = open(body).map(|rest| (ByteReader::new(rest), VALUES_MAX));
    let mut failed = state.is_none();
    std::iter::from_fn(move || {
        if std::mem::take(&mut failed) {
            return Some(None);
        }
        let (reader, budget) = state.as_mut()?;
        let next = property(reader, 0, budget);
        match next {
            Some(Some(found)) => Some(Some(found)),
            Some(None) => {
                state = None;
                None
            }
            None => {
                state = None;
                Some(None)
            }
        }
    })
}

/// What follows the name and the head of the object or array in a metadata body.
fn open(body: &[u8]) -> Option<&[u8]> {
    let rest = without_set_data_frame(body).strip_prefix(ON_META_DATA)?;
    let mut reader = ByteReader::new(rest);
    match reader.u8()? {
        3 => {}
        8 => {
            reader.u32()?;
        }
        _ => return None,
    }
    Some(reader.rest())
}

/// The next property of an object: `Some(None)` at its end, `None` if it is malformed. Some muxers
/// leave the end mark out; the end of the bytes is as good at the top level.
#[expect(clippy::option_option, reason = "malformed, end and property are three things")]
fn property<'a>(
    reader: &mut ByteReader<'a>,
    depth: u8,
    budget: &mut u32,
) -> Option<Option<(&'a [u8], &'a [u8])>> {
    if depth == 0 && reader.rest().is_empty() {
        return Some(None);
    }
    let key_len = usize::from(reader.u16()?);
    let key = reader.take(key_len)?;
    let before = *reader;
    if key.is_empty() && reader.u8()? == 9 {
        return Some(None);
    }
    *reader = before;
    skip_value(reader, depth, budget)?;
    let value_len = before.rest().len().saturating_sub(reader.rest().len());
    Some(Some((key, before.rest().get(..value_len)?)))
}

fn skip_value(reader: &mut ByteReader<'_>, depth: u8, budget: &mut u32) -> Option<()> {
    *budget = budget.checked_sub(1)?;
    if depth >= DEPTH_MAX {
        return None;
    }
    let deeper = depth.saturating_add(1);
    match reader.u8()? {
        0 => reader.take(8).map(drop),
        1 => reader.take(1).map(drop),
        2 => reader.u16().and_then(|len| reader.take(usize::from(len))).map(drop),
        3 => skip_object(reader, deeper, budget),
        5 | 6 => Some(()),
        7 => reader.take(2).map(drop),
        8 => reader.take(4).and_then(|_| skip_object(reader, deeper, budget)),
        10 => {
            // The claimed count is not trusted: the budget ends a long one, the bytes a false one.
            (0..reader.u32()?).try_for_each(|_| skip_value(reader, deeper, budget))
        }
        11 => reader.take(10).map(drop),
        12 => reader.u32().and_then(|len| reader.take(usize::try_from(len).ok()?)).map(drop),
        _ => None,
    }
}

fn skip_object(reader: &mut ByteReader<'_>, depth: u8, budget: &mut u32) -> Option<()> {
    while property(reader, depth, budget)?.is_some() {}
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(properties: &[(&str, &[u8])]) -> Vec<u8> {
        let mut body = [ON_META_DATA, &[8, 0, 0, 0, 2]].concat();
        for (key, value) in properties {
            body.extend(u16::try_from(key.len()).unwrap().to_be_bytes());
            body.extend(key.as_bytes());
            body.extend(*value);
        }
        body.extend([0, 0, 9]);
        body
    }

    fn double(value: f64) -> Vec<u8> {
        [&[0], &value.to_be_bytes()[..]].concat()
    }

    #[test]
    fn metadata_that_differ_in_dates_and_measured_rates_alone_are_the_same() {
        let width = double(1280.0);
        let one = metadata(&[("width", &width), ("creationdate", b"\x02\x00\x03Mon")]);
        let two = metadata(&[
            ("width", &width),
            ("creationdate", b"\x02\x00\x07Tuesday"),
            ("videodatarate", &double(2500.0)),
        ]);
        let other = metadata(&[("width", &double(640.0)), ("creationdate", b"\x02\x00\x03Mon")]);
        assert_eq!(fingerprint(&one), fingerprint(&two));
        assert_ne!(fingerprint(&one), fingerprint(&other));
        assert_eq!(number(&one, "width"), Some(1280.0));
        assert_eq!(number(&one, "height"), None);
        assert!(announces_video(&one));
    }

    #[test]
    fn nested_values_are_walked_and_nesting_without_end_is_malformed() {
        let nested = metadata(&[
            ("keyframes", b"\x03\x00\x05times\x0a\x00\x00\x00\x01\x05\x00\x00\x09"),
            ("width", &double(320.0)),
        ]);
        assert_eq!(number(&nested, "width"), Some(320.0));
        let deep = metadata(&[("a", &[10, 0, 0, 0, 1].repeat(1_000)), ("width", &double(320.0))]);
        assert_eq!(number(&deep, "width"), None);
        assert_eq!(fingerprint(&deep), *blake3::hash(&deep).as_bytes());
        let long = metadata(&[("a", &[[10, 0xff, 0xff, 0xff, 0xff].as_slice(), &[5; 9]].concat())]);
        assert_eq!(fingerprint(&long), *blake3::hash(&long).as_bytes());
    }

    #[test]
    fn the_rtmp_prefix_is_no_part_of_metadata() {
        let body = metadata(&[]);
        let wrapped = [SET_DATA_FRAME, &body].concat();
        assert!(is_metadata(&wrapped));
        assert_eq!(without_set_data_frame(&wrapped), body);
        assert_eq!(fingerprint(&wrapped), fingerprint(&body));
        assert!(!is_metadata(b"\x02\x00\x0aonCuePoint"));
    }
}

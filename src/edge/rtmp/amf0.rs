//! AMF0, as far as RTMP commands need it: a bounded reader and a small writer.
//!
//! Owns the value type, its limits and its bytes. Does not own metadata: data messages travel as
//! the bytes they came in. Our own reader because commands come from strangers: nesting, counts and
//! lengths are bounded here, and no input can make it panic.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

/// Deepest nesting of objects and arrays. Real commands use two.
pub const DEPTH_MAX: usize = 8;
/// Most values in one message, nested ones included. A real `connect` has about twenty.
pub const VALUES_MAX: usize = 1_024;

/// One value. Kinds that no command uses are read over as [`Value::Other`].
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// A number; AMF0 has no integers.
    Number(f64),
    /// A truth value.
    Bool(bool),
    /// A text, short or long.
    Text(String),
    /// Named values, in the order they came.
    Object(Vec<(String, Self)>),
    /// Values by position.
    List(Vec<Self>),
    /// Nothing.
    Null,
    /// A value of a kind that commands do not use: undefined, date, XML, reference.
    Other,
}

impl Value {
    /// The text, when it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The number, when it is one.
    #[must_use]
    pub const fn number(&self) -> Option<f64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    /// The named value of an object.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Self> {
        let Self::Object(fields) = self else { return None };
        fields.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

/// Why bytes are no AMF0 that we take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Amf0Error {
    /// The bytes end inside a value.
    #[error("a value is cut short")]
    Short,
    /// A kind of value that AMF0 does not have.
    #[error("value kind {kind:#04x} does not exist")]
    Kind {
        /// The marker byte.
        kind: u8,
    },
    /// Deeper than [`DEPTH_MAX`].
    #[error("values are nested deeper than {DEPTH_MAX}")]
    Deep,
    /// More than [`VALUES_MAX`] values.
    #[error("more than {VALUES_MAX} values")]
    Many,
}

/// Reads all values of a message.
///
/// # Errors
/// [`Amf0Error`] for anything malformed or beyond the limits.
pub fn read(bytes: &[u8]) -> Result<Vec<Value>, Amf0Error> {
    let mut reader = Reader { rest: bytes, values: 0 };
    let mut values = Vec::new();
    while !reader.rest.is_empty() {
        values.push(reader.value(0)?);
    }
    Ok(values)
}

/// Length in bytes of the short text that `bytes` begin with, marker included, when its text is
/// `wanted`. Lets a caller take a leading text off without reading what follows.
#[must_use]
pub fn leading_text(bytes: &[u8], wanted: &str) -> Option<usize> {
    let mut reader = Reader { rest: bytes, values: 0 };
    let is_text = reader.byte() == Ok(TEXT) && reader.short_bytes() == Ok(wanted.as_bytes());
    is_text.then(|| bytes.len().saturating_sub(reader.rest.len()))
}

const NUMBER: u8 = 0x00;
const BOOL: u8 = 0x01;
const TEXT: u8 = 0x02;
const OBJECT: u8 = 0x03;
const NULL: u8 = 0x05;
const UNDEFINED: u8 = 0x06;
const REFERENCE: u8 = 0x07;
const MAP: u8 = 0x08;
const OBJECT_END: u8 = 0x09;
const LIST: u8 = 0x0a;
const DATE: u8 = 0x0b;
const LONG_TEXT: u8 = 0x0c;
const XML: u8 = 0x0f;
const TYPED_OBJECT: u8 = 0x10;

struct Reader<'a> {
    rest: &'a [u8],
    values: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Amf0Error> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Amf0Error::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Amf0Error> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Amf0Error::Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, Amf0Error> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn short_bytes(&mut self) -> Result<&'a [u8], Amf0Error> {
        let len = u16::from_be_bytes(self.array()?);
        self.take(usize::from(len))
    }

    fn short_text(&mut self) -> Result<String, Amf0Error> {
        Ok(String::from_utf8_lossy(self.short_bytes()?).into_owned())
    }

    fn long_text(&mut self) -> Result<String, Amf0Error> {
        let len = u32::from_be_bytes(self.array()?);
        let bytes = self.take(usize::try_from(len).unwrap_or(usize::MAX))?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    fn value(&mut self, depth: usize) -> Result<Value, Amf0Error> {
        if depth > DEPTH_MAX {
            return Err(Amf0Error::Deep);
        }
        self.values = self.values.saturating_add(1);
        if self.values > VALUES_MAX {
            return Err(Amf0Error::Many);
        }
        Ok(match self.byte()? {
            NUMBER => Value::Number(f64::from_be_bytes(self.array()?)),
            BOOL => Value::Bool(self.byte()? != 0),
            TEXT => Value::Text(self.short_text()?),
            OBJECT => Value::Object(self.fields(depth)?),
            NULL => Value::Null,
            UNDEFINED => Value::Other,
            REFERENCE => self.array::<2>().map(|_| Value::Other)?,
            MAP => {
                self.array::<4>()?; // A count that encoders get wrong: the end marker decides.
                Value::Object(self.fields(depth)?)
            }
            LIST => Value::List(self.list(depth)?),
            DATE => self.array::<10>().map(|_| Value::Other)?,
            LONG_TEXT => Value::Text(self.long_text()?),
            XML => self.long_text().map(|_| Value::Other)?,
            TYPED_OBJECT => {
                self.short_bytes()?;
                Value::Object(self.fields(depth)?)
            }
            kind => return Err(Amf0Error::Kind { kind }),
        })
    }

    fn fields(&mut self, depth: usize) -> Result<Vec<(String, Value)>, Amf0Error> {
        let mut fields = Vec::new();
        loop {
            let key = self.short_text()?;
            if key.is_empty() && self.rest.first() == Some(&OBJECT_END) {
                self.byte()?;
                return Ok(fields);
            }
            fields.push((key, self.value(depth.saturating_add(1))?));
        }
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Value>, Amf0Error> {
        let count = u32::from_be_bytes(self.array()?);
        // Grows with what is there, never by what is claimed.
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(self.value(depth.saturating_add(1))?);
        }
        Ok(list)
    }
}

/// Writes values, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Appends a number.
    #[must_use]
    pub fn number(mut self, number: f64) -> Self {
        self.0.push(NUMBER);
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// Appends a text; cut at 65,535 bytes.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.0.push(TEXT);
        self.short(text);
        self
    }

    /// Appends a null.
    #[must_use]
    pub fn null(mut self) -> Self {
        self.0.push(NULL);
        self
    }

    /// Appends an object. Nests no deeper than its caller wrote it.
    #[must_use]
    pub fn object(mut self, fields: &[(&str, Value)]) -> Self {
        self.0.push(OBJECT);
        for (name, value) in fields {
            self.short(name);
            self = self.value(value);
        }
        self.short("");
        self.0.push(OBJECT_END);
        self
    }

    fn value(mut self, value: &Value) -> Self {
        match value {
            Value::Number(number) => self.number(*number),
            Value::Text(text) => self.text(text),
            Value::Bool(yes) => {
                self.0.extend_from_slice(&[BOOL, u8::from(*yes)]);
                self
            }
            Value::Object(fields) => {
                let fields: Vec<_> =
                    fields.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
                self.object(&fields)
            }
            Value::List(values) => {
                self.0.push(LIST);
                let count = u32::try_from(values.len()).unwrap_or(u32::MAX);
                self.0.extend_from_slice(&count.to_be_bytes());
                values.iter().fold(self, Self::value)
            }
            Value::Null | Value::Other => self.null(),
        }
    }

    /// The bytes written.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    fn short(&mut self, text: &str) {
        let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&len.to_be_bytes());
        self.0.extend(text.bytes().take(usize::from(len)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let bytes = Writer::default()
            .text("connect")
            .number(1.0)
            .object(&[("app", Value::Text("astral".into())), ("capabilities", Value::Number(31.0))])
            .null()
            .finish();
        let values = read(&bytes).unwrap();
        assert_eq!(values.len(), 4);
        assert_eq!(values[0].text(), Some("connect"));
        assert_eq!(values[1].number(), Some(1.0));
        assert_eq!(values[2].field("app").and_then(Value::text), Some("astral"));
        assert_eq!(values[3], Value::Null);
    }

    #[test]
    fn a_leading_text_is_found_without_reading_the_rest() {
        let mut bytes = Writer::default().text("@setDataFrame").finish();
        bytes.extend_from_slice(&[0xff, 0xff]);
        assert_eq!(leading_text(&bytes, "@setDataFrame"), Some(16));
        assert_eq!(leading_text(&bytes, "onMetaData"), None);
        assert_eq!(leading_text(&bytes[..7], "@setDataFrame"), None);
    }

    #[test]
    fn nesting_counts_and_lengths_are_bounded() {
        assert_eq!(read(&[3, 0, 1, b'a'].repeat(100_000)), Err(Amf0Error::Deep));
        assert_eq!(read(&[NULL; 2_000]), Err(Amf0Error::Many));
        assert_eq!(read(&[LIST, 0xff, 0xff, 0xff, 0xff]), Err(Amf0Error::Short));
        assert_eq!(read(&[LONG_TEXT, 0xff, 0xff, 0xff, 0xff]), Err(Amf0Error::Short));
        assert_eq!(read(&[0x42]), Err(Amf0Error::Kind { kind: 0x42 }));
    }
}

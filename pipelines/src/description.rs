//! Pipeline descriptions: comments, placeholders, parsing.
//!
//! A description is `gst-launch` syntax; lines that begin with `#` are comments; `{name}` is a placeholder,
//! filled with a number or with another shipped description, never with a user's text. Doesn't own which
//! description is taken, nor the properties that are set on its named elements afterwards.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gst::prelude::*;
use gstreamer as gst;

use crate::error::{CaptureError, PlayError};
use crate::packages::package_of;

/// The longest description that is read from a file: 64 KiB, hundreds of times the longest shipped one.
const DESCRIPTION_BYTES_MAX: u64 = 64 * 1024;

/// A description before its placeholders are filled.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    origin: PathBuf,
    text: String,
}

/// What placeholders stand for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Values(BTreeMap<&'static str, String>);

/// Why a description can't become a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DescriptionError {
    /// An element isn't installed.
    MissingElement(String),
    /// Anything else, in words.
    Wrong {
        /// Where the description comes from.
        origin: PathBuf,
        /// What is wrong.
        message: String,
    },
}

impl Description {
    /// One of the shipped descriptions.
    pub(crate) fn shipped((origin, text): (&str, &str)) -> Self {
        Self { origin: PathBuf::from(origin), text: text.to_owned() }
    }

    /// A user's own description.
    ///
    /// # Errors
    /// When the file can't be read as text or is longer than [`DESCRIPTION_BYTES_MAX`].
    pub(crate) fn from_file(path: &Path) -> Result<Self, DescriptionError> {
        let wrong = |message: String| DescriptionError::Wrong { origin: path.to_owned(), message };
        let length = std::fs::metadata(path)
            .map_err(|error| wrong(format!("can't be read: {error}")))?
            .len();
        if length > DESCRIPTION_BYTES_MAX {
            return Err(wrong(format!(
                "is {length} bytes long, more than {DESCRIPTION_BYTES_MAX}"
            )));
        }
        let text = std::fs::read_to_string(path)
            .map_err(|error| wrong(format!("can't be read: {error}")))?;
        Ok(Self { origin: path.to_owned(), text })
    }

    /// Where the description comes from, for messages.
    pub(crate) fn origin(&self) -> &Path {
        &self.origin
    }

    /// True when the description asks for `placeholder`.
    pub(crate) fn uses(&self, placeholder: &str) -> bool {
        pieces(&without_comments(&self.text)).contains(&Piece::Placeholder(placeholder))
    }

    /// The text with every placeholder filled and without comments.
    ///
    /// # Errors
    /// On a placeholder that nothing stands for, naming those there are.
    pub(crate) fn fill(&self, values: &Values) -> Result<String, DescriptionError> {
        let text = without_comments(&self.text);
        let mut filled = String::with_capacity(text.len());
        for piece in pieces(&text) {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Placeholder(name) => match values.0.get(name) {
                    Some(value) => filled.push_str(value),
                    None => return Err(self.unknown_placeholder(name, values)),
                },
            }
        }
        Ok(filled
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join(" "))
    }

    fn unknown_placeholder(&self, name: &str, values: &Values) -> DescriptionError {
        let known: Vec<_> = values.0.keys().map(|name| format!("{{{name}}}")).collect();
        self.wrong(format!("{{{name}}} is not a placeholder; there are {}", known.join(" ")))
    }

    /// An error about this description.
    pub(crate) fn wrong(&self, message: String) -> DescriptionError {
        DescriptionError::Wrong { origin: self.origin.clone(), message }
    }
}

impl Values {
    /// Lets `name` stand for a number.
    pub(crate) fn number(&mut self, name: &'static str, value: u32) {
        self.0.insert(name, value.to_string());
    }

    /// Lets `name` stand for a shipped description, itself filled with the values set before.
    ///
    /// # Errors
    /// As [`Description::fill`].
    pub(crate) fn fragment(
        &mut self,
        name: &'static str,
        shipped: (&str, &str),
    ) -> Result<(), DescriptionError> {
        let text = Description::shipped(shipped).fill(self)?;
        self.0.insert(name, text);
        Ok(())
    }

    /// Lets `name` stand for descriptions that were filled before.
    pub(crate) fn text(&mut self, name: &'static str, filled: String) {
        self.0.insert(name, filled);
    }

    /// Gives the element that is called `old` in what `name` stands for another name, so that there can
    /// be two of it.
    pub(crate) fn rename(&mut self, name: &'static str, old: &str, new: &str) {
        if let Some(text) = self.0.get_mut(name) {
            *text = text.replace(&format!("name={old} "), &format!("name={new} "));
        }
    }

    /// Lets `name` stand for a word out of this crate's own source, such as a factory name.
    pub(crate) fn word(&mut self, name: &'static str, value: &'static str) {
        self.0.insert(name, value.to_owned());
    }
}

/// Builds the pipeline of a filled description; `origin` is for messages.
///
/// # Errors
/// When an element is missing or the text isn't a pipeline.
pub(crate) fn parse(origin: &Path, filled: &str) -> Result<gst::Pipeline, DescriptionError> {
    let mut context = gst::ParseContext::new();
    let parsed = gst::parse::launch_full(filled, Some(&mut context), gst::ParseFlags::FATAL_ERRORS);
    let element = parsed.map_err(|error| {
        // The list also names elements that exist and were refused a property: the kind of error decides.
        match (error.kind::<gst::ParseError>(), context.missing_elements().into_iter().next()) {
            (Some(gst::ParseError::NoSuchElement), Some(element)) => {
                DescriptionError::MissingElement(element)
            }
            _ => DescriptionError::Wrong {
                origin: origin.to_owned(),
                message: error.message().to_owned(),
            },
        }
    })?;
    match element.downcast::<gst::Pipeline>() {
        Ok(pipeline) => Ok(pipeline),
        Err(element) => {
            // A description of a single element, or of a bin in brackets, comes without a pipeline around.
            let pipeline = gst::Pipeline::new();
            pipeline.add(&element).map_err(|error| DescriptionError::Wrong {
                origin: origin.to_owned(),
                message: error.to_string(),
            })?;
            Ok(pipeline)
        }
    }
}

impl From<DescriptionError> for CaptureError {
    fn from(error: DescriptionError) -> Self {
        match error {
            DescriptionError::MissingElement(element) => {
                let package = package_of(&element).to_owned();
                Self::MissingElement { element, package }
            }
            DescriptionError::Wrong { origin, message } => {
                Self::Description { path: origin, message }
            }
        }
    }
}

impl From<DescriptionError> for PlayError {
    fn from(error: DescriptionError) -> Self {
        match error {
            DescriptionError::MissingElement(element) => {
                let package = package_of(&element).to_owned();
                Self::MissingElement { element, package }
            }
            DescriptionError::Wrong { origin, message } => {
                Self::Description { path: origin, message }
            }
        }
    }
}

/// The words of a description that stand where an element's factory name stands.
#[cfg(test)]
pub(crate) fn element_words(text: &str) -> Vec<String> {
    let text = without_comments(text);
    let mut expect_element = true;
    let mut words = Vec::new();
    for word in text.split_whitespace() {
        let is_name =
            !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if expect_element && is_name {
            words.push(word.to_owned());
        }
        expect_element = word == "!" || word.ends_with('.');
    }
    words
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    Placeholder(&'a str),
}

fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n")
}

/// Cuts `text` at its placeholders: lowercase letters, digits and `_` between braces without a blank.
/// GStreamer's own lists (`{ I420, NV12 }`) are text.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut from = 0;
    while let Some(open) = rest[from..].find('{').map(|at| at + from) {
        let inner = &rest[open + 1..];
        let length = inner
            .bytes()
            .take_while(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_')
            .count();
        if length > 0 && inner[length..].starts_with('}') {
            pieces.push(Piece::Text(&rest[..open]));
            pieces.push(Piece::Placeholder(&inner[..length]));
            rest = &inner[length + 1..];
            from = 0;
        } else {
            from = open + 1;
        }
    }
    pieces.push(Piece::Text(rest));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_and_comments_dropped() {
        let mut values = Values::default();
        values.number("width", 640);
        let description =
            Description::shipped(("x", "# {nothing}\na ! video/x-raw,width={width}\n  ! b"));
        assert_eq!(description.fill(&values).unwrap(), "a ! video/x-raw,width=640 ! b");
    }

    #[test]
    fn lists_of_gstreamer_are_not_placeholders() {
        let text = "a ! video/x-raw,format={I420,NV12},x={ avc }";
        assert_eq!(Description::shipped(("x", text)).fill(&Values::default()).unwrap(), text);
    }

    #[test]
    fn an_unknown_placeholder_is_refused_with_those_there_are() {
        let mut values = Values::default();
        values.number("width", 640);
        let error = Description::shipped(("x", "a {widht}")).fill(&values).unwrap_err();
        let CaptureError::Description { message, .. } = error.into() else {
            panic!("another error")
        };
        assert_eq!(message, "{widht} is not a placeholder; there are {width}");
    }

    #[test]
    fn a_fragment_is_filled_with_the_values_before_it() {
        let mut values = Values::default();
        values.number("video_kbps", 100);
        values.fragment("encoder", ("e", "enc bitrate={video_kbps}")).unwrap();
        assert_eq!(
            Description::shipped(("x", "a ! {encoder}")).fill(&values).unwrap(),
            "a ! enc bitrate=100"
        );
    }

    #[test]
    fn a_missing_element_is_named() {
        crate::init().unwrap();
        let error = parse(Path::new("x"), "videotestsrc ! nosuchelement ! fakesink").unwrap_err();
        assert_eq!(error, DescriptionError::MissingElement("nosuchelement".to_owned()));
    }

    #[test]
    fn a_wrong_description_is_told_in_gstreamers_words() {
        crate::init().unwrap();
        let error = parse(Path::new("x"), "videotestsrc nosuchproperty=1 ! fakesink").unwrap_err();
        let DescriptionError::Wrong { message, .. } = error else { panic!("{error:?}") };
        assert!(message.contains("nosuchproperty"), "{message}");
    }

    #[test]
    fn a_single_element_becomes_a_pipeline_too() {
        crate::init().unwrap();
        assert_eq!(parse(Path::new("x"), "fakesrc").unwrap().children().len(), 1);
    }
}

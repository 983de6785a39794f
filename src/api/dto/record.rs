//! Recordings: how to make one, how it goes, what it came to.
//!
//! Owns their JSON. Does not own files.

use std::{path::PathBuf, time::Duration};

use astral_core::ids::StreamId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    api::error::Problem,
    edge::record::{Format, RecordSpec, Recorded},
};

/// Smallest `bytes_max`: some seconds of a large stream, in two files.
const BYTES_MAX_MIN: u64 = 1_000_000;

/// What files a recording is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecordFormatDto {
    /// FLV: the stream as it is, whatever its codecs.
    #[default]
    Flv,
    /// Fragmented MP4.
    Mp4,
}

/// `POST /streams/{id}/record`. Where the files go is the node's setting, never the request's.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewRecording {
    /// What files.
    pub format: RecordFormatDto,
    /// A new file begins at the first keyframe after so many seconds; one file when absent.
    #[schema(minimum = 1)]
    pub segment_s: Option<u32>,
    /// Bytes of all files together, at least 1,000,000; the oldest file goes when there would be
    /// more. No limit when absent.
    #[schema(minimum = 1_000_000)]
    pub bytes_max: Option<u64>,
}

impl NewRecording {
    /// The recording in `folder` that this asks for.
    ///
    /// # Errors
    /// What can't be.
    pub fn spec(&self, folder: PathBuf) -> Result<RecordSpec, Problem> {
        if self.segment_s == Some(0) {
            return Err(Problem::invalid("segment_s: a file lasts a second or more"));
        }
        if self.bytes_max.is_some_and(|max| max < BYTES_MAX_MIN) {
            return Err(Problem::invalid(format!("bytes_max: at least {BYTES_MAX_MIN}")));
        }
        let format = match self.format {
            RecordFormatDto::Flv => Format::Flv,
            RecordFormatDto::Mp4 => Format::Mp4,
        };
        let segment = self.segment_s.map(|s| Duration::from_secs(s.into()));
        Ok(RecordSpec { folder, format, segment, bytes_max: self.bytes_max })
    }
}

/// A recording that runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct RecordingDto {
    /// What files.
    pub format: RecordFormatDto,
    /// Bytes that came so far.
    pub bytes: u64,
}

/// The answer to `POST /streams/{id}/record`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct StartedDto {
    /// Which stream.
    #[schema(value_type = String)]
    pub stream: StreamId,
    /// Where its files are, on the node's machine.
    pub folder: String,
    /// What files.
    pub format: RecordFormatDto,
    /// Bytes that came so far: more than 0 when it ran already.
    pub bytes: u64,
}

/// The answer to `DELETE /streams/{id}/record`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct RecordedDto {
    /// Which stream.
    #[schema(value_type = String)]
    pub stream: StreamId,
    /// The files that are left, on the node's machine, oldest first; none when no picture came.
    pub files: Vec<String>,
    /// Bytes written.
    pub bytes: u64,
}

impl RecordedDto {
    /// What a recording of `stream` came to.
    #[must_use]
    pub fn new(stream: StreamId, recorded: &Recorded) -> Self {
        let files = recorded.files.iter().map(|file| file.display().to_string()).collect();
        Self { stream, files, bytes: recorded.bytes }
    }
}

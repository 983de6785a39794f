//! `--record`: what a command plays, forwards or publishes goes to files as well.
//!
//! Owns the flags and the task. Does not own files (see `edge::record`).

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use astral_core::ids::StreamId;
use clap::{Args, ValueEnum};
use serde_json::json;
use tokio::{sync::broadcast::error::RecvError, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::output::Output;
use crate::{
    edge::record::{Format, RecordSpec, record},
    node::{Event, Handle, Playback, WatchSpec, caught},
};

/// What a recording may be behind live: files lose nothing by it.
const LAG: Duration = Duration::from_secs(3);
/// The task of a recording.
const RECORDING: &str = "recording";
/// For the last bytes, when the command ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Flags of a recording.
#[derive(Args, Clone, Debug)]
pub struct RecordArgs {
    /// Record into files in this folder as well; survives interruptions of the source
    #[arg(long, value_name = "DIR", help_heading = "Recording")]
    record: Option<PathBuf>,
    /// What files: flv keeps every codec, mp4 (fragmented) is what editors like
    #[arg(long, value_enum, default_value_t, requires = "record", help_heading = "Recording")]
    record_format: FormatChoice,
    /// A new file at the first keyframe after this long, such as 1h [default: one file]
    #[arg(long, value_name = "TIME", value_parser = super::duration::parse, requires = "record",
        help_heading = "Recording")]
    record_segment: Option<Duration>,
    /// Most disk space, such as 20GB: the oldest file goes [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "record",
        help_heading = "Recording")]
    record_max: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum FormatChoice {
    #[default]
    Flv,
    Mp4,
}

/// A running recording, or none.
#[derive(Default)]
#[must_use]
pub struct Running {
    task: Option<JoinHandle<()>>,
    stop: CancellationToken,
}

impl RecordArgs {
    /// Whether the folder can be made and written, before the network hears of anything.
    ///
    /// # Errors
    /// Says which folder and what the system said.
    pub fn check(&self) -> anyhow::Result<()> {
        let Some(folder) = &self.record else { return Ok(()) };
        let trial = folder.join(format!(".astral-trial-{}", std::process::id()));
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&trial, []))
            .and_then(|()| std::fs::remove_file(&trial))
            .with_context(|| {
                format!("can't record to {}: choose a folder that may be written", folder.display())
            })
    }

    /// Begins to record `stream` if it was asked for.
    ///
    /// # Errors
    /// When the node can't read the stream.
    pub async fn start(
        &self,
        handle: &Handle,
        stream: StreamId,
        out: Output,
    ) -> anyhow::Result<Running> {
        let Some((source, spec)) = self.open(handle, stream).await? else {
            return Ok(Running::default());
        };
        let handle = handle.clone();
        let task = tokio::spawn(async move { one(&handle, source, spec, out).await });
        Ok(Running { task: Some(task), ..Running::default() })
    }

    /// As [`Self::start`] for a stream that is published here: each of its broadcasts is a recording.
    ///
    /// # Errors
    /// When the node can't read the stream.
    pub async fn start_each(
        &self,
        handle: &Handle,
        stream: StreamId,
        out: Output,
    ) -> anyhow::Result<Running> {
        let Some((mut source, spec)) = self.open(handle, stream).await? else {
            return Ok(Running::default());
        };
        let stop = CancellationToken::new();
        let (handle, stopped) = (handle.clone(), stop.clone());
        let task = tokio::spawn(async move {
            loop {
                one(&handle, source, spec.clone(), out).await;
                // Not before: the broadcast that is over has begun with the same event.
                let is_live = tokio::select! {
                    is_live = next_broadcast(&handle, stream) => is_live,
                    () = stopped.cancelled() => false,
                };
                if !is_live {
                    return;
                }
                match handle.watch(&stream.into(), WatchSpec::keep_all(LAG)).await {
                    Ok(again) => source = again,
                    Err(_) => return, // The node is gone.
                }
            }
        });
        Ok(Running { task: Some(task), stop })
    }

    /// The stream to be recorded and how, if a recording was asked for.
    async fn open(
        &self,
        handle: &Handle,
        stream: StreamId,
    ) -> anyhow::Result<Option<(Playback, RecordSpec)>> {
        let Some(spec) = self.spec() else { return Ok(None) };
        let source = handle.watch(&stream.into(), WatchSpec::keep_all(LAG)).await?;
        Ok(Some((source, spec)))
    }

    fn spec(&self) -> Option<RecordSpec> {
        Some(RecordSpec {
            folder: self.record.clone()?,
            format: match self.record_format {
                FormatChoice::Flv => Format::Flv,
                FormatChoice::Mp4 => Format::Mp4,
            },
            segment: self.record_segment,
            bytes_max: self.record_max,
        })
    }
}

/// Waits until the stream is live again; false when the node stops before.
async fn next_broadcast(handle: &Handle, stream: StreamId) -> bool {
    let mut events = handle.events();
    loop {
        match events.recv().await {
            Ok(Event::Live { stream: live }) if live == stream => return true,
            // Whether the news that were missed were about this stream is found out.
            Err(RecvError::Lagged(_)) => return true,
            Ok(_) => {}
            Err(RecvError::Closed) => return false,
        }
    }
}

/// One recording, from here to the stream's end.
async fn one(handle: &Handle, source: Playback, spec: RecordSpec, out: Output) {
    let stream = source.id;
    let recording = async {
        handle.panic_point(RECORDING);
        record(source, stream, spec).await.map_err(|error| error.to_string())
    };
    match caught(recording).await.unwrap_or_else(|message| Err(format!("it panicked: {message}"))) {
        Ok(recorded) => out.event(
            "recorded",
            json!({"stream": stream, "files": recorded.files, "bytes": recorded.bytes}),
        ),
        // The stream goes on without.
        Err(message) => {
            tracing::error!("{message}");
            out.event("recording_failed", json!({"stream": stream, "message": message}));
        }
    }
}

impl Running {
    /// Waits a moment for the last bytes.
    pub async fn finish(self) {
        self.stop.cancel();
        if let Some(task) = self.task
            && tokio::time::timeout(LAST_WORDS, task).await.is_err()
        {
            tracing::warn!("the end of the recording was not written within {LAST_WORDS:?}");
        }
    }
}

/// Reads `500MB`, `20GB`, `1GiB` or plain bytes.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" | "M" => 1_000_000,
        "GB" | "G" => 1_000_000_000,
        "TB" | "T" => 1_000_000_000_000,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("write it as 500MB or 20GB".to_owned()),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| "write it as 500MB or 20GB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_can_not_be_written_is_refused_by_its_name() {
        let here = tempfile::tempdir().unwrap();
        let recording = |folder: &std::path::Path| RecordArgs {
            record: Some(folder.to_owned()),
            record_format: FormatChoice::Flv,
            record_segment: None,
            record_max: None,
        };
        let good = here.path().join("new/folder");
        recording(&good).check().unwrap();
        assert_eq!(std::fs::read_dir(&good).unwrap().count(), 0, "nothing is left behind");
        std::fs::write(here.path().join("file"), "").unwrap();
        let bad = here.path().join("file/below");
        let said = format!("{:#}", recording(&bad).check().unwrap_err());
        assert!(said.contains("file/below") && said.contains("directory"), "{said}");
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in
            [("1", 1), ("500MB", 500_000_000), ("2GiB", 2 << 30), ("3 GB", 3_000_000_000)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "0", "GB", "5 apples", "99999999999TB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}

//! What the tests of this crate share: a small FLV reader, temporary files, waiting with a deadline.

use std::path::PathBuf;
use std::time::Duration;

use astral_pipelines::{CaptureEvent, CaptureSource, CaptureSpec};
use tokio::sync::mpsc;

/// Everything a test waits for happens within this; a loaded machine included.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// One tag of an FLV stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// 8 sound, 9 video, 18 script.
    pub kind: u8,
    pub time_ms: u32,
    pub body: Vec<u8>,
}

impl Tag {
    pub fn is_avc_header(&self) -> bool {
        self.kind == 9 && self.body.len() > 1 && self.body[0] & 0x0f == 7 && self.body[1] == 0
    }
    pub fn is_aac_header(&self) -> bool {
        self.kind == 8 && self.body.len() > 1 && self.body[0] >> 4 == 10 && self.body[1] == 0
    }
    pub fn is_picture(&self) -> bool {
        self.kind == 9 && self.body.len() > 5 && self.body[1] == 1
    }
    pub fn is_keyframe(&self) -> bool {
        self.is_picture() && self.body[0] >> 4 == 1
    }
    /// The H.264 of a picture, without the FLV header in front of it.
    pub fn h264(&self) -> &[u8] {
        &self.body[5..]
    }
}

/// The whole tags of an FLV byte stream; what is cut off at its end is left out.
pub fn tags(flv: &[u8]) -> Vec<Tag> {
    assert!(flv.starts_with(b"FLV"), "an FLV stream begins with FLV");
    let mut at = 9 + 4;
    let mut tags = Vec::new();
    while at + 11 <= flv.len() {
        let number = |from: usize, length: usize| {
            flv[from..from + length].iter().fold(0, |sum: u32, byte| sum << 8 | u32::from(*byte))
        };
        let size = number(at + 1, 3) as usize;
        let time_ms = number(at + 4, 3) | number(at + 7, 1) << 24;
        if at + 11 + size + 4 > flv.len() {
            break;
        }
        tags.push(Tag { kind: flv[at], time_ms, body: flv[at + 11..at + 11 + size].to_vec() });
        at += 11 + size + 4;
    }
    tags
}

/// A small picture that any machine encodes in time.
pub fn small(source: CaptureSource) -> CaptureSpec {
    CaptureSpec {
        source,
        width: 320,
        height: 180,
        fps: 30,
        video_bitrate_kbps: 300,
        keyframe_interval: Duration::from_millis(500),
        ..CaptureSpec::default()
    }
}

/// The next event, within the deadline.
pub async fn next<T>(events: &mut mpsc::Receiver<T>) -> Option<T> {
    tokio::time::timeout(DEADLINE, events.recv()).await.expect("an event within the deadline")
}

/// Reads bytes until `enough` says so or another event than bytes comes; warnings are printed.
pub async fn read_until(
    events: &mut mpsc::Receiver<CaptureEvent>,
    enough: impl Fn(&[u8]) -> bool,
) -> (Vec<u8>, Option<CaptureEvent>) {
    let mut flv = Vec::new();
    loop {
        match next(events).await {
            Some(CaptureEvent::Bytes(bytes)) => {
                flv.extend_from_slice(&bytes);
                if enough(&flv) {
                    return (flv, None);
                }
            }
            Some(CaptureEvent::Warning(warning)) => println!("warning: {warning}"),
            other => return (flv, other),
        }
    }
}

/// True when `program` can be run.
pub fn has(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    })
}

/// A folder of this test's own, empty at its start.
pub fn folder(test: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

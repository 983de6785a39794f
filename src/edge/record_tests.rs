//! Recordings of made-up streams, read back as FLV.

use super::*;

const ID: StreamId = StreamId([9; 32]);

fn tag(kind: u8, time: u32, body: &[u8]) -> Vec<u8> {
    let [t3, t2, t1, t0] = time.to_be_bytes();
    let [_, a, b, c] = u32::try_from(body.len()).unwrap().to_be_bytes();
    let mut bytes = vec![kind, a, b, c, t2, t1, t0, t3, 0, 0, 0];
    bytes.extend(body);
    bytes.extend((u32::try_from(body.len()).unwrap() + 11).to_be_bytes());
    bytes
}

fn init() -> Vec<u8> {
    let mut bytes = b"FLV\x01\x01\0\0\0\x09\0\0\0\0".to_vec();
    let avc = b"\x17\x00\0\0\0\x01\x42\xc0\x1e\xff\xe1\x00\x04\x67\x42\xc0\x1e\x01\x00\x02\x68\xce";
    bytes.extend(tag(9, 0, avc));
    bytes
}

/// `seconds` of ten pictures a second with a keyframe each second.
fn media(from_ms: u32, seconds: u32) -> Vec<u8> {
    let frames = (0..seconds * 10).flat_map(|n| {
        let first = if n % 10 == 0 { 0x17 } else { 0x27 };
        tag(9, from_ms + n * 100, &[first, 1, 0, 0, 0, 0, 0, 0, 1, 0x65])
    });
    frames.collect()
}

fn flv(bytes: Vec<u8>) -> MediaItem {
    MediaItem::Flv(bytes.into())
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("astral-record-{}-{name}", std::process::id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn recorded(items: &[MediaItem], spec: RecordSpec) -> Recorded {
    let mut recording = Recording::open(ID, spec).await.unwrap();
    for item in items {
        recording.take(item).await.unwrap();
    }
    recording.finish().await.unwrap()
}

fn tags(path: &Path) -> Vec<Tag> {
    let mut reader = TagReader::default();
    reader.push(&std::fs::read(path).unwrap());
    std::iter::from_fn(|| reader.next()).map(Result::unwrap).collect()
}

#[tokio::test]
async fn a_source_that_restarts_goes_on_in_one_file_on_one_clock() {
    let folder = Folder::new("restart");
    let items = [
        flv(init()),
        flv(media(0, 2)),
        MediaItem::Paused,
        MediaItem::SourceLost,
        MediaItem::NewEpoch,
        flv(init()),
        flv(media(0, 2)),
    ];
    let recorded = recorded(&items, RecordSpec::in_folder(folder.0.clone())).await;
    let [file] = &recorded.files[..] else { panic!("{recorded:?}") };
    let times: Vec<u32> = tags(file).iter().map(|tag| tag.timestamp_ms).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(tags(file).iter().filter(|tag| !tag.is_sequence_header()).count(), 40);
    assert_eq!(std::fs::read(file).unwrap().windows(3).filter(|w| w == b"FLV").count(), 1);
}

#[tokio::test]
async fn what_was_written_is_the_stream_itself_and_is_there_at_once() {
    let folder = Folder::new("whole");
    let mut recording = Recording::open(ID, RecordSpec::in_folder(folder.0.clone())).await.unwrap();
    let mut wanted = init();
    recording.take(&flv(init())).await.unwrap();
    for second in 0..5 {
        let piece = media(second * 1_000, 1);
        recording.take(&flv(piece.clone())).await.unwrap();
        wanted.extend(piece);
        // As another process sees it, and as it would be after a kill.
        let file = std::fs::read_dir(&folder.0).unwrap().next().unwrap().unwrap().path();
        assert_eq!(std::fs::read(file).unwrap(), wanted);
    }
}

#[tokio::test]
async fn files_end_at_keyframes_and_each_begins_with_the_headers() {
    let folder = Folder::new("segments");
    for format in [Format::Flv, Format::Mp4] {
        let segment = Some(Duration::from_millis(2_500));
        let spec = RecordSpec { format, segment, ..RecordSpec::in_folder(folder.0.clone()) };
        let recorded = recorded(&[flv(init()), flv(media(0, 10))], spec).await;
        assert_eq!(recorded.files.len(), 4, "{format:?}: three seconds each, and one");
        for file in &recorded.files {
            match format {
                Format::Flv => {
                    let tags = tags(file);
                    assert!(tags[0].is_sequence_header() && tags[1].is_keyframe(), "{file:?}");
                }
                Format::Mp4 => assert_eq!(&std::fs::read(file).unwrap()[4..8], b"ftyp"),
            }
        }
    }
}

#[tokio::test]
async fn the_oldest_files_go_when_there_would_be_too_much() {
    let folder = Folder::new("cap");
    let max = 4_000;
    let spec = RecordSpec { bytes_max: Some(max), ..RecordSpec::in_folder(folder.0.clone()) };
    let mut recording = Recording::open(ID, spec).await.unwrap();
    recording.take(&flv(init())).await.unwrap();
    for second in 0..100 {
        recording.take(&flv(media(second * 1_000, 1))).await.unwrap();
        let sizes = std::fs::read_dir(&folder.0).unwrap();
        let all: u64 = sizes.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert!(all <= max, "{all} bytes after {second} s");
    }
    let recorded = recording.finish().await.unwrap();
    assert!(!recorded.files.is_empty() && recorded.bytes > 5 * max);
}

#[tokio::test]
async fn no_file_is_written_over_and_a_folder_that_can_t_be_is_an_error() {
    let folder = Folder::new("names");
    let spec = RecordSpec::in_folder(folder.0.clone());
    let items = [flv(init()), flv(media(0, 1))];
    let first = recorded(&items, spec.clone()).await;
    let second = recorded(&items, spec).await;
    assert_ne!(first.files, second.files);
    let file = first.files[0].clone();
    let error = Recording::open(ID, RecordSpec::in_folder(file)).await.unwrap_err();
    assert!(error.to_string().contains("can't record to"), "{error}");
}

//! Every shipped description for Linux, run with its device replaced by a test source of GStreamer.
//!
//! What a device feeds must reach the appsink as FLV; what the device itself does is for `tests/camera`.

use std::path::Path;

use crate::common::{Tag, folder, read_until, small, tags};
use astral_pipelines::{Capture, CaptureError, CaptureSource};

/// The stand-ins: each shipped source element and a live source with the same name and shape.
const STAND_INS: &[(&str, &str)] = &[
    ("v4l2src name=camera", "videotestsrc name=camera is-live=true"),
    (
        "ximagesrc name=screen use-damage=false show-pointer=true",
        "videotestsrc name=screen is-live=true",
    ),
    (
        "pipewiresrc name=screen do-timestamp=true keepalive-time=1000",
        "videotestsrc name=screen is-live=true",
    ),
];
const MICROPHONES: &[(&str, &str)] = &[
    ("audio/pulse.launch", "pulsesrc name=microphone"),
    ("audio/pipewire.launch", "pipewiresrc name=microphone do-timestamp=true"),
    ("audio/alsa.launch", "alsasrc name=microphone"),
];

fn shipped(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

fn with_stand_ins(mut text: String) -> String {
    for (device, stand_in) in STAND_INS {
        text = text.replace(device, stand_in);
    }
    text
}

async fn delivers_pictures_and_sound(test: &str, text: &str) {
    let path = folder(test).join("shipped.launch");
    std::fs::write(&path, text).unwrap();
    let (_capture, mut events) = Capture::start(&small(CaptureSource::Launch(path))).unwrap();
    let complete = |flv: &[u8]| {
        flv.len() > 100 && {
            let all = tags(flv);
            all.iter().filter(|tag| tag.is_picture()).count() > 3
                && all.iter().any(Tag::is_aac_header)
        }
    };
    let (_, event) = read_until(&mut events, complete).await;
    assert_eq!(event, None, "{test}");
}

#[tokio::test]
async fn every_description_for_linux_links_from_its_device_to_the_appsink() {
    for name in
        ["capture/v4l2.launch", "capture/screen-x11.launch", "capture/screen-pipewire.launch"]
    {
        let text = with_stand_ins(shipped(name));
        assert!(text.contains("videotestsrc"), "{name} has no stand-in");
        for (microphone, device) in MICROPHONES {
            let audio =
                shipped(microphone).replace(device, "audiotestsrc name=microphone is-live=true");
            assert!(audio.contains("audiotestsrc"), "{microphone} has no stand-in");
            let test = format!("{name}+{microphone}").replace('/', "_");
            delivers_pictures_and_sound(&test, &text.replace("{audio}", &audio)).await;
        }
    }
}

#[tokio::test]
async fn a_camera_that_speaks_mjpeg_is_decoded() {
    let camera =
        "videotestsrc is-live=true ! video/x-raw,width=640,height=480,framerate=15/1 ! jpegenc";
    let text = shipped("capture/v4l2.launch").replace("v4l2src name=camera", camera);
    let audio = shipped(MICROPHONES[0].0).replace(MICROPHONES[0].1, "audiotestsrc is-live=true");
    delivers_pictures_and_sound("mjpeg", &text.replace("{audio}", &audio)).await;
}

#[tokio::test]
async fn every_description_for_linux_parses_as_it_is_and_stops_at_its_device_only() {
    for name in ["capture/v4l2.launch", "capture/screen-pipewire.launch"] {
        let source = CaptureSource::Launch(Path::new(env!("CARGO_MANIFEST_DIR")).join(name));
        match Capture::start(&small(source)) {
            Ok(_) => println!("{name}: there is such a device here"),
            Err(CaptureError::State { message }) => println!("{name}: {message}"),
            Err(other) => panic!("{name}: {other}"),
        }
    }
}

//! The shipped pipeline descriptions, embedded from the folders beside `src/`.
//!
//! Doesn't own their placeholders (`description.rs`) nor the choice among them (`capture.rs`, `play.rs`).

macro_rules! shelf {
    ($($constant:ident = $path:literal;)*) => {
        $(
            #[doc = concat!("`pipelines/", $path, "`.")]
            pub(crate) const $constant: (&str, &str) =
                ($path, include_str!(concat!("../", $path)));
        )*
        /// Every shipped file: its path within `pipelines/` and its text.
        #[cfg(test)]
        pub(crate) const ALL: &[(&str, &str)] = &[$($constant),*];
    };
}

shelf! {
    CAPTURE_TEST = "capture/test.launch";
    CAPTURE_V4L2 = "capture/v4l2.launch";
    CAPTURE_AVF = "capture/avf.launch";
    CAPTURE_SCREEN_X11 = "capture/screen-x11.launch";
    CAPTURE_SCREEN_PIPEWIRE = "capture/screen-pipewire.launch";
    CAPTURE_SCREEN_AVF = "capture/screen-avf.launch";
    CAPTURE_FILE = "capture/file.launch";
    FILE_VIDEO_COPY = "file/video-copy.launch";
    FILE_VIDEO_ENCODE = "file/video-encode.launch";
    FILE_AUDIO_COPY = "file/audio-copy.launch";
    FILE_AUDIO_ENCODE = "file/audio-encode.launch";
    AUDIO_PULSE = "audio/pulse.launch";
    AUDIO_PIPEWIRE = "audio/pipewire.launch";
    AUDIO_ALSA = "audio/alsa.launch";
    AUDIO_OSX = "audio/osx.launch";
    RENDITION_PICTURE = "rendition/picture.launch";
    RENDITION_SOUND = "rendition/sound.launch";
    ENCODE_X264 = "encode/x264.launch";
    ENCODE_OPENH264 = "encode/openh264.launch";
    ENCODE_VA = "encode/va.launch";
    ENCODE_VAAPI = "encode/vaapi.launch";
    ENCODE_NVENC = "encode/nvenc.launch";
    ENCODE_V4L2 = "encode/v4l2.launch";
    ENCODE_VIDEOTOOLBOX = "encode/videotoolbox.launch";
    PLAY_WINDOW = "play/window.launch";
    PLAY_WINDOW_AUDIO = "play/window-audio.launch";
    PLAY_FAKE = "play/fake.launch";
    PLAY_FAKE_AUDIO = "play/fake-audio.launch";
    PLAY_NO_AUDIO = "play/no-audio.launch";
}

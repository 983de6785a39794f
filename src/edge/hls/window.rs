//! The newest segments of one stream, and the playlist that names them.
//!
//! Owns which segments there are, their numbers, and the text of the playlist. Does not own media
//! (see `edge::fmp4`) nor who asks.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
};

use bytes::Bytes;

use crate::edge::fmp4::{Fragment, Fragmenter, Output};

/// Whole segments that the playlist names: what a player that reloads late still finds.
pub const SEGMENTS_LISTED: usize = 6;
/// Whole segments kept: a player may still fetch what a playlist named a while ago.
pub const SEGMENTS_KEPT_MAX: usize = SEGMENTS_LISTED + 3;
/// Bytes kept for one stream; fewer segments are kept instead. 50 s of 10 Mbit/s.
pub const WINDOW_BYTES_MAX: usize = 64 * 1_024 * 1_024;
/// A segment ends at the first keyframe after this long.
const SEGMENT_MS_MIN: u64 = 1_500;
/// Or, without any keyframe, here.
const SEGMENT_MS_MAX: u64 = 12_000;
/// Newest segments whose parts are named.
const PARTS_OF_SEGMENTS: usize = 3;
/// Parts of one segment; a segment ends there as well.
const PARTS_MAX: usize = 64;
/// Whole segments before the first playlist is given out: GStreamer's `hlsdemux2` finds its place in
/// a newer playlist only by a segment that both name and that is not the newer one's first.
const SEGMENTS_TO_BEGIN: usize = 2;
/// Or one that is this long: with keyframes that far apart nobody waits for another.
const LONG_SEGMENT_MS: u64 = 4_000;

#[derive(Debug)]
struct Segment {
    number: u64,
    init: u32,
    parts: Vec<Fragment>,
    is_whole: bool,
}

impl Segment {
    fn duration_ms(&self) -> u64 {
        self.parts.iter().map(|part| part.duration_ms).sum()
    }

    fn len(&self) -> usize {
        self.parts.iter().map(|part| part.bytes.len()).sum()
    }
}

/// See the module.
#[derive(Debug)]
pub struct Window {
    segments: VecDeque<Segment>,
    inits: BTreeMap<u32, Bytes>,
    newest_init: u32,
    next_number: u64,
    /// Changes of the initialization segment that have left the playlist.
    discontinuities_left: u64,
    /// The longest segment so far, rounded. Players that don't know parts reload the playlist this
    /// often, so that a larger promise would leave them without anything to play.
    target_seconds: u64,
    over: bool,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            segments: VecDeque::new(),
            inits: BTreeMap::new(),
            newest_init: 0,
            next_number: 0,
            discontinuities_left: 0,
            target_seconds: 1,
            over: false,
        }
    }
}

/// What is at a place of a playlist.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// These bytes.
    Bytes(Bytes),
    /// Not yet; ask again when the window has changed.
    NotYet,
    /// Not any more, or never.
    Gone,
}

impl Window {
    /// Takes what a [`Fragmenter`] made.
    pub fn push(&mut self, output: Output) {
        match output {
            Output::Init(bytes) => {
                self.end_segment();
                self.newest_init = self.newest_init.saturating_add(1);
                self.inits.insert(self.newest_init, bytes);
            }
            Output::Fragment(fragment) => self.push_fragment(fragment),
        }
        self.trim();
    }

    /// Nothing more comes.
    pub fn end(&mut self) {
        self.end_segment();
        self.over = true;
    }

    /// Whether a player can begin: enough whole segments are there, or nothing more comes.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let whole = || self.segments.iter().filter(|segment| segment.is_whole);
        self.over
            || whole().count() >= SEGMENTS_TO_BEGIN
            || whole().any(|segment| segment.duration_ms() >= LONG_SEGMENT_MS)
    }

    /// Whether anything can be played.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Whether part `part` of segment `number` is there or was; without `part`, the whole segment.
    #[must_use]
    pub fn has_reached(&self, number: u64, part: Option<usize>) -> bool {
        if self.over || number.saturating_add(1) < self.next_number {
            return true;
        }
        let Some(segment) = self.segments.iter().find(|segment| segment.number == number) else {
            return false;
        };
        segment.is_whole || part.is_some_and(|part| part < segment.parts.len())
    }

    /// Whether a playlist could name segment `number` soon.
    #[must_use]
    pub const fn is_near(&self, number: u64) -> bool {
        number <= self.next_number.saturating_add(1)
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.segments.iter().map(Segment::len).sum()
    }

    /// An initialization segment.
    #[must_use]
    pub fn init(&self, number: u32) -> Found {
        self.inits.get(&number).map_or(Found::Gone, |bytes| Found::Bytes(bytes.clone()))
    }

    /// A whole segment.
    #[must_use]
    pub fn segment(&self, number: u64) -> Found {
        let Some(segment) = self.segments.iter().find(|segment| segment.number == number) else {
            return self.missing(number);
        };
        if !segment.is_whole {
            return Found::NotYet;
        }
        let mut bytes = Vec::with_capacity(segment.len());
        segment.parts.iter().for_each(|part| bytes.extend_from_slice(&part.bytes));
        Found::Bytes(bytes.into())
    }

    /// A part.
    #[must_use]
    pub fn part(&self, number: u64, part: usize) -> Found {
        let Some(segment) = self.segments.iter().find(|segment| segment.number == number) else {
            return self.missing(number);
        };
        match segment.parts.get(part) {
            Some(part) => Found::Bytes(part.bytes.clone()),
            // The one that the playlist hints at; a keyframe may still make it another segment's.
            None if !segment.is_whole && part == segment.parts.len() => Found::NotYet,
            None => Found::Gone,
        }
    }

    const fn missing(&self, number: u64) -> Found {
        if number == self.next_number && !self.over { Found::NotYet } else { Found::Gone }
    }

    fn push_fragment(&mut self, fragment: Fragment) {
        let is_full = self.segments.back().is_some_and(|segment| {
            let ms = segment.duration_ms();
            (fragment.independent && ms >= SEGMENT_MS_MIN)
                || ms >= SEGMENT_MS_MAX
                || segment.parts.len() >= PARTS_MAX
        });
        if is_full {
            self.end_segment();
        }
        if self.segments.back().is_none_or(|segment| segment.is_whole) {
            let (number, init) = (self.next_number, self.newest_init);
            self.next_number += 1;
            self.segments.push_back(Segment { number, init, parts: Vec::new(), is_whole: false });
        }
        if let Some(segment) = self.segments.back_mut() {
            segment.parts.push(fragment);
        }
    }

    fn end_segment(&mut self) {
        if let Some(segment) = self.segments.back_mut() {
            segment.is_whole = true;
            let seconds = segment.duration_ms().saturating_add(500) / 1_000;
            self.target_seconds = self.target_seconds.max(seconds);
        }
    }

    fn trim(&mut self) {
        let is_too_much = |window: &Self| {
            window.segments.len() > SEGMENTS_KEPT_MAX + 1 || window.bytes() > WINDOW_BYTES_MAX
        };
        while self.segments.len() > 1 && is_too_much(self) {
            self.segments.pop_front();
        }
        let oldest = self.segments.front().map_or(self.newest_init, |segment| segment.init);
        self.inits.retain(|init, _| *init >= oldest);
        // What is listed begins behind what is only kept.
        let listed = self.listed_from();
        let first = self.segments.get(listed).map_or(self.newest_init, |segment| segment.init);
        self.discontinuities_left = u64::from(first.saturating_sub(1));
    }

    fn listed_from(&self) -> usize {
        self.segments.len().saturating_sub(SEGMENTS_LISTED + 1)
    }

    /// The playlist (RFC 8216bis, low-latency HLS).
    #[must_use]
    pub fn playlist(&self) -> String {
        let mut text = String::with_capacity(2_048);
        // Writing to a text can't fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let part_seconds = seconds(Fragmenter::FRAGMENT_MS);
        let hold_back = seconds(3 * Fragmenter::FRAGMENT_MS);
        let listed = self.listed_from();
        let first = self.segments.get(listed).map_or(self.next_number, |segment| segment.number);
        writeln!(text, "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:{}", self.target_seconds)?;
        writeln!(
            text,
            "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={hold_back}\n\
             #EXT-X-PART-INF:PART-TARGET={part_seconds}\n#EXT-X-MEDIA-SEQUENCE:{first}"
        )?;
        if self.discontinuities_left > 0 {
            writeln!(text, "#EXT-X-DISCONTINUITY-SEQUENCE:{}", self.discontinuities_left)?;
        }
        let mut init = None;
        for (at, segment) in self.segments.iter().enumerate().skip(listed) {
            if init != Some(segment.init) {
                if init.is_some() {
                    writeln!(text, "#EXT-X-DISCONTINUITY")?;
                }
                writeln!(text, "#EXT-X-MAP:URI=\"init-{}.mp4\"", segment.init)?;
                init = Some(segment.init);
            }
            let number = segment.number;
            if at + PARTS_OF_SEGMENTS >= self.segments.len() && !self.over {
                for (part, fragment) in segment.parts.iter().enumerate() {
                    let independent = if fragment.independent { ",INDEPENDENT=YES" } else { "" };
                    let duration = seconds(fragment.duration_ms);
                    writeln!(
                        text,
                        "#EXT-X-PART:DURATION={duration},URI=\"part-{number}-{part}.m4s\"{independent}"
                    )?;
                }
            }
            if segment.is_whole {
                writeln!(text, "#EXTINF:{},\nseg-{number}.m4s", seconds(segment.duration_ms()))?;
            }
        }
        if self.over {
            return writeln!(text, "#EXT-X-ENDLIST");
        }
        let (number, part) = match self.segments.back() {
            Some(segment) if !segment.is_whole => (segment.number, segment.parts.len()),
            Some(_) | None => (self.next_number, 0),
        };
        writeln!(text, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"part-{number}-{part}.m4s\"")
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1_000, ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(duration_ms: u64, independent: bool) -> Output {
        let bytes = Bytes::from_static(&[7; 100]);
        Output::Fragment(Fragment { bytes, duration_ms, independent, start_ms: 0 })
    }

    fn second(window: &mut Window) {
        window.push(fragment(500, true));
        window.push(fragment(500, false));
    }

    #[test]
    fn a_segment_ends_at_the_first_keyframe_that_makes_it_long_enough() {
        let mut window = Window::default();
        window.push(Output::Init(Bytes::from_static(b"init")));
        assert!(!window.is_ready());
        (0..2).for_each(|_| second(&mut window));
        window.push(fragment(500, true));
        assert!(!window.is_ready(), "one segment, and the beginning of the next");
        let text = window.playlist();
        let wanted = "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:2\n\
            #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.500\n\
            #EXT-X-PART-INF:PART-TARGET=0.500\n#EXT-X-MEDIA-SEQUENCE:0\n\
            #EXT-X-MAP:URI=\"init-1.mp4\"\n\
            #EXT-X-PART:DURATION=0.500,URI=\"part-0-0.m4s\",INDEPENDENT=YES\n\
            #EXT-X-PART:DURATION=0.500,URI=\"part-0-1.m4s\"\n\
            #EXT-X-PART:DURATION=0.500,URI=\"part-0-2.m4s\",INDEPENDENT=YES\n\
            #EXT-X-PART:DURATION=0.500,URI=\"part-0-3.m4s\"\n#EXTINF:2.000,\nseg-0.m4s\n\
            #EXT-X-PART:DURATION=0.500,URI=\"part-1-0.m4s\",INDEPENDENT=YES\n\
            #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"part-1-1.m4s\"\n";
        assert_eq!(text, wanted);
        assert!(matches!(window.segment(0), Found::Bytes(bytes) if bytes.len() == 400));
        assert_eq!(window.part(1, 1), Found::NotYet);
        assert_eq!((window.segment(1), window.segment(2)), (Found::NotYet, Found::NotYet));
        assert_eq!((window.part(0, 9), window.segment(9)), (Found::Gone, Found::Gone));
        (0..2).for_each(|_| second(&mut window));
        assert!(window.is_ready(), "two segments");
    }

    #[test]
    fn keyframes_that_are_far_apart_keep_nobody_waiting_for_a_second_segment() {
        let mut window = Window::default();
        window.push(Output::Init(Bytes::from_static(b"init")));
        (0..9).for_each(|n| window.push(fragment(500, n == 0)));
        assert!(!window.is_ready());
        window.push(fragment(500, true));
        assert!(window.is_ready());
        assert!(window.playlist().contains("TARGETDURATION:5\n"), "{}", window.playlist());
    }

    #[test]
    fn what_a_playlist_waits_for_is_reached_in_order() {
        let mut window = Window::default();
        window.push(Output::Init(Bytes::new()));
        window.push(fragment(500, true));
        assert!(window.has_reached(0, Some(0)) && !window.has_reached(0, Some(1)));
        assert!(!window.has_reached(0, None) && !window.has_reached(1, Some(0)));
        (0..4).for_each(|_| second(&mut window));
        assert!(window.has_reached(0, None) && window.has_reached(0, Some(60)));
        assert!(window.is_near(2) && !window.is_near(20));
        window.end();
        assert!(window.has_reached(99, None));
        assert!(window.playlist().ends_with("#EXT-X-ENDLIST\n"));
    }

    #[test]
    fn new_headers_are_a_discontinuity_and_the_old_ones_go_with_their_segments() {
        let mut window = Window::default();
        window.push(Output::Init(Bytes::new()));
        (0..4).for_each(|_| second(&mut window));
        window.push(Output::Init(Bytes::new()));
        (0..4).for_each(|_| second(&mut window));
        let text = window.playlist();
        assert_eq!(text.matches("#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI=\"init-2.mp4\"").count(), 1);
        assert!(matches!(window.init(1), Found::Bytes(_)));
        (0..60).for_each(|_| second(&mut window));
        assert_eq!(window.init(1), Found::Gone);
        assert!(window.playlist().contains("#EXT-X-DISCONTINUITY-SEQUENCE:1\n"));
    }

    #[test]
    fn memory_is_bounded_by_number_and_by_bytes() {
        let mut window = Window::default();
        window.push(Output::Init(Bytes::new()));
        for n in 0..10_000 {
            window.push(fragment(500, n % 4 == 0));
            assert!(window.segments.len() <= SEGMENTS_KEPT_MAX + 1);
        }
        let large = Bytes::from(vec![0; WINDOW_BYTES_MAX / 4]);
        for n in 0..40 {
            let (bytes, independent) = (large.clone(), n % 2 == 0);
            let fragment = Fragment { bytes, duration_ms: 1_000, independent, start_ms: 0 };
            window.push(Output::Fragment(fragment));
            // The segment that grows is kept whatever it has.
            assert!(window.bytes() <= WINDOW_BYTES_MAX + 2 * large.len());
        }
        // Without any keyframe segments end all the same.
        let mut window = Window::default();
        window.push(Output::Init(Bytes::new()));
        (0..200).for_each(|_| window.push(fragment(500, false)));
        assert!(window.is_ready());
    }
}

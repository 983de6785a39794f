//! The statistics that a window shows over its picture when asked.
//!
//! Owns their words and the rates between two looks. Does not own the numbers, nor the window.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    time::{Duration, Instant},
};

use astral_core::{ids::StreamId, units::Bitrate};
use astral_pipelines::{KEYS, PlayStats};

use crate::node::NodeSnapshot;

/// Remembers the last look.
#[derive(Debug)]
pub struct Figures {
    stream: StreamId,
    lag: Duration,
    last: Option<Totals>,
}

/// What only grows.
#[derive(Clone, Copy, Debug)]
struct Totals {
    at: Instant,
    /// Which stream the bytes are of: the source's own or a rendition.
    stream: StreamId,
    bytes: u64,
    frames: u64,
}

/// What is known of the stream at one moment.
#[derive(Clone, Debug, Default)]
struct Seen {
    name: String,
    /// Height of the lower rendition that plays.
    rendition: Option<u16>,
    delay: Option<Duration>,
    /// From how many nodes it comes, and how many stripes of how many.
    parents: (usize, usize, usize),
    hops: Option<u8>,
    gaps: u64,
    from_neighbours: u64,
    skipped: u64,
}

impl Figures {
    /// For a window that shows `stream` so far behind its source.
    pub const fn new(stream: StreamId, lag: Duration) -> Self {
        Self { stream, lag, last: None }
    }

    /// The text of this moment.
    pub fn text(&mut self, snapshot: &NodeSnapshot, played: &PlayStats, at: Instant) -> String {
        let lower = snapshot.lower.get(&self.stream);
        let stream = lower.map_or(self.stream, |lower| lower.stream);
        let status = snapshot.streams.get(&stream);
        let watch = snapshot.overlay.watches.iter().find(|watch| watch.stream == stream);
        let stripes = watch.map_or(&[][..], |watch| &watch.stripes);
        let parents: Vec<_> = stripes.iter().filter_map(|stripe| stripe.parent).collect();
        let nodes: BTreeSet<_> = parents.iter().collect();
        let relay = &snapshot.relay.stats;
        let seen = Seen {
            name: status.and_then(|status| status.stats.name.clone()).unwrap_or_default(),
            rendition: lower.map(|lower| lower.height),
            delay: status.and_then(|status| status.stats.delay_ms).map(Duration::from_millis),
            parents: (nodes.len(), parents.len(), stripes.len()),
            hops: stripes.iter().filter_map(|stripe| stripe.depth).max(),
            gaps: relay.gaps_seen,
            from_neighbours: relay.neighbour_chunks_in,
            skipped: relay.skips.total(),
        };
        let bytes = status.map_or(0, |status| status.bytes);
        let totals = Totals { at, stream, bytes, frames: played.frames_rendered };
        let last = self.last.replace(totals).filter(|last| last.stream == stream);
        seen.words(self.lag, played, last.map(|last| (last, totals)))
    }
}

impl Seen {
    fn words(&self, lag: Duration, played: &PlayStats, looks: Option<(Totals, Totals)>) -> String {
        let mut text = self.name.clone();
        if let Some(height) = self.rendition {
            let _ = write!(text, " ({height}p)");
        }
        let mut line = |words: String| {
            text.push('\n');
            text.push_str(&words);
        };
        let (rate, fps) = looks.map_or((0, 0.0), |(last, now)| {
            let elapsed = now.at.saturating_duration_since(last.at).max(Duration::from_millis(1));
            let bits = now.bytes.saturating_sub(last.bytes).saturating_mul(8_000);
            let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            let frames = u32::try_from(now.frames.saturating_sub(last.frames)).unwrap_or(u32::MAX);
            (bits / ms, f64::from(frames) / elapsed.as_secs_f64())
        });
        let (width, height) = (played.width, played.height);
        line(format!("picture {width}x{height}, {fps:.0} a second"));
        line(match played.loudness_percent {
            Some(percent) => format!("sound   {percent} %"),
            None => "sound   none".to_owned(),
        });
        line(format!("rate    {}", Bitrate::from_bps(rate)));
        line(match self.delay {
            Some(way) => format!(
                "lag     {:.2} s: {:.2} on the way, {:.2} in hand",
                (way + lag).as_secs_f32(),
                way.as_secs_f32(),
                lag.as_secs_f32()
            ),
            None => format!("lag     {:.2} s in hand", lag.as_secs_f32()),
        });
        let (nodes, fed, stripes) = self.parents;
        let hops = match self.hops {
            Some(1) => "1 hop".to_owned(),
            Some(hops) => format!("{hops} hops"),
            None => "? hops".to_owned(),
        };
        line(format!("parents {nodes} for {fed}/{stripes} stripes, {hops} from the source"));
        line(format!(
            "repairs {} gaps, {} chunks from neighbours, {} skipped",
            self.gaps, self.from_neighbours, self.skipped
        ));
        line(keys());
        text
    }
}

/// The keys in one line.
fn keys() -> String {
    let keys: Vec<String> = KEYS.iter().map(|(key, what)| format!("{key}: {what}")).collect();
    // Two lines, so that a small window holds them.
    let (first, rest) = keys.split_at(keys.len() / 2);
    format!("{}\n{}", first.join(" | "), rest.join(" | "))
}

/// What `--help` of a command with a window says of its keys.
pub fn help() -> String {
    let mut help = "Keys in the window:\n".to_owned();
    for (key, what) in KEYS {
        let _ = writeln!(help, "  {key:<22}{what}");
    }
    help
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_between_two_looks_and_every_figure_is_named() {
        let seen = Seen {
            name: "garden".into(),
            rendition: Some(480),
            delay: Some(Duration::from_millis(120)),
            parents: (2, 3, 4),
            hops: Some(3),
            gaps: 5,
            from_neighbours: 7,
            skipped: 9,
        };
        let played = PlayStats {
            width: 854,
            height: 480,
            loudness_percent: Some(80),
            ..PlayStats::default()
        };
        let at = Instant::now();
        let first = Totals { at, stream: StreamId([1; 32]), bytes: 0, frames: 10 };
        let second =
            Totals { at: at + Duration::from_secs(2), bytes: 250_000, frames: 70, ..first };
        let text = seen.words(Duration::from_millis(1_500), &played, Some((first, second)));
        for words in [
            "garden (480p)\n",
            "854x480, 30 a second",
            "80 %",
            "1 Mbit/s",
            "1.62 s: 0.12 on the way, 1.50 in hand",
            "2 for 3/4 stripes, 3 hops",
            "5 gaps, 7 chunks from neighbours, 9 skipped",
            "f, F11, double click: full screen",
        ] {
            assert!(text.contains(words), "{words:?} is not in\n{text}");
        }
    }

    #[test]
    fn a_stream_that_has_not_come_yet_has_figures_too() {
        let text = Seen::default().words(Duration::from_secs(1), &PlayStats::default(), None);
        assert!(text.contains("0 for 0/0 stripes, ? hops"), "{text}");
    }
}

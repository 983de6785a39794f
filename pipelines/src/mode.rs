//! Which of a camera's modes fits what was asked for.
//!
//! Works on caps alone, so no camera is needed to test it. Doesn't own opening the camera (`device.rs`).

use std::collections::BTreeSet;

use gstreamer as gst;

/// How many modes of a device are listed; cameras have a few dozen.
const MODES_MAX: usize = 64;

/// The picture asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) fps: u32,
}

/// How well a mode fits; the field order is the policy, and the smallest is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fit {
    /// Frames per second (in thousandths) that are missing.
    slower_by_mfps: i64,
    /// Smaller than asked in a direction: the picture would be blown up.
    too_small: bool,
    /// Pixels more or fewer than asked.
    pixels_off: i64,
    /// Compressed: must be decoded first.
    compressed: bool,
    /// Frames per second (in thousandths) that are thrown away.
    faster_by_mfps: i64,
}

/// The caps of the mode of `caps` nearest to `wish`, to be set as a filter behind the source; `None` when
/// the device offers nothing that can be used.
pub(crate) fn nearest(caps: &gst::CapsRef, wish: Wish) -> Option<gst::Caps> {
    let mut best: Option<(Fit, gst::Caps)> = None;
    for structure in caps.iter() {
        let media = structure.name().as_str();
        if !["video/x-raw", "image/jpeg"].contains(&media) {
            continue;
        }
        let Some(width) = nearest_int(structure, "width", wish.width) else { continue };
        let Some(height) = nearest_int(structure, "height", wish.height) else { continue };
        let Some(rate) = nearest_rate(structure, wish.fps) else { continue };
        let surplus = mfps(rate) - i64::from(wish.fps) * 1000;
        let fit = Fit {
            slower_by_mfps: (-surplus).max(0),
            too_small: width < i64::from(wish.width) || height < i64::from(wish.height),
            pixels_off: (width * height - i64::from(wish.width) * i64::from(wish.height)).abs(),
            compressed: media != "video/x-raw",
            faster_by_mfps: surplus.max(0),
        };
        if best.as_ref().is_none_or(|(known, _)| fit < *known) {
            let mode = gst::Caps::builder(media)
                .field("width", i32::try_from(width).ok()?)
                .field("height", i32::try_from(height).ok()?)
                .field("framerate", rate)
                .build();
            best = Some((fit, mode));
        }
    }
    best.map(|(_, caps)| caps)
}

/// The modes of `caps` as `1280x720@30`, largest first, at most [`MODES_MAX`]; of a range, its upper end.
pub(crate) fn list(caps: &gst::CapsRef) -> Vec<String> {
    let mut modes = BTreeSet::new();
    for structure in caps.iter() {
        let (Some(width), Some(height)) =
            (nearest_int(structure, "width", u32::MAX), nearest_int(structure, "height", u32::MAX))
        else {
            continue;
        };
        modes.insert((width * height, width, height, highest_rate(structure)));
    }
    modes
        .into_iter()
        .rev()
        .take(MODES_MAX)
        .map(|(_, width, height, mfps)| name(width, height, mfps))
        .collect()
}

/// Above this a rate is no camera's but a range without an end, as of screens.
const LISTED_MFPS_MAX: i64 = 240_000;

/// In thousandths; 0 when there is no rate worth showing.
fn highest_rate(structure: &gst::StructureRef) -> i64 {
    let rates: Vec<i64> = if let Ok(rate) = structure.get::<gst::Fraction>("framerate") {
        vec![mfps(rate)]
    } else if let Ok(range) = structure.get::<gst::FractionRange>("framerate") {
        vec![mfps(range.max())]
    } else if let Ok(list) = structure.get::<gst::List>("framerate") {
        list.iter().filter_map(|rate| rate.get::<gst::Fraction>().ok()).map(mfps).collect()
    } else {
        Vec::new()
    };
    rates.into_iter().max().filter(|highest| *highest <= LISTED_MFPS_MAX).unwrap_or(0)
}

fn name(width: i64, height: i64, mfps: i64) -> String {
    match (mfps, mfps % 1000) {
        (0, _) => format!("{width}x{height}"),
        (_, 0) => format!("{width}x{height}@{}", mfps / 1000),
        (_, _) => format!("{width}x{height}@{:.2}", mfps as f64 / 1000.0),
    }
}

/// The value of an int, a range or a list of ints nearest to `wish`, preferring not to fall below it.
fn nearest_int(structure: &gst::StructureRef, field: &str, wish: u32) -> Option<i64> {
    let wish = i64::from(wish);
    if let Ok(value) = structure.get::<i32>(field) {
        return Some(i64::from(value));
    }
    if let Ok(range) = structure.get::<gst::IntRange<i32>>(field) {
        let (min, max, step) =
            (i64::from(range.min()), i64::from(range.max()), i64::from(range.step()).max(1));
        let at = wish.clamp(min, max);
        return Some((min + (at - min + step - 1) / step * step).min(max));
    }
    let list = structure.get::<gst::List>(field).ok()?;
    list.iter()
        .filter_map(|value| value.get::<i32>().ok())
        .map(i64::from)
        .min_by_key(|value| (*value < wish, (value - wish).abs()))
}

/// The frame rate nearest to `wish`, preferring not to fall below it.
fn nearest_rate(structure: &gst::StructureRef, wish: u32) -> Option<gst::Fraction> {
    let wished = i64::from(wish) * 1000;
    if let Ok(rate) = structure.get::<gst::Fraction>("framerate") {
        return Some(rate);
    }
    if let Ok(range) = structure.get::<gst::FractionRange>("framerate") {
        let at = wished.clamp(mfps(range.min()), mfps(range.max()));
        let inside = gst::Fraction::new(i32::try_from(wish).ok()?, 1);
        return Some(match at.cmp(&wished) {
            std::cmp::Ordering::Less => range.max(),
            std::cmp::Ordering::Equal => inside,
            std::cmp::Ordering::Greater => range.min(),
        });
    }
    let list = structure.get::<gst::List>("framerate").ok()?;
    list.iter()
        .filter_map(|value| value.get::<gst::Fraction>().ok())
        .min_by_key(|rate| (mfps(*rate) < wished, (mfps(*rate) - wished).abs()))
}

fn mfps(rate: gst::Fraction) -> i64 {
    i64::from(rate.numer()) * 1000 / i64::from(rate.denom()).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr;

    const WISH: Wish = Wish { width: 1280, height: 720, fps: 30 };

    fn nearest_of(caps: &str) -> String {
        crate::init().unwrap();
        nearest(&gst::Caps::from_str(caps).unwrap(), WISH)
            .map_or("none".to_owned(), |caps| caps.to_string())
    }

    #[test]
    fn a_compressed_mode_at_full_rate_beats_a_raw_one_that_is_too_slow() {
        let found = nearest_of(
            "video/x-raw,format=YUY2,width=1280,height=720,framerate={ (fraction)10/1, (fraction)5/1 };\
             image/jpeg,width=1280,height=720,framerate={ (fraction)30/1, (fraction)15/1 }",
        );
        assert_eq!(found, "image/jpeg, width=(int)1280, height=(int)720, framerate=(fraction)30/1");
    }

    #[test]
    fn a_raw_mode_beats_a_compressed_one_of_the_same_size_and_rate() {
        let found = nearest_of(
            "image/jpeg,width=1280,height=720,framerate=30/1;video/x-raw,width=1280,height=720,framerate=30/1",
        );
        assert!(found.starts_with("video/x-raw"), "{found}");
    }

    #[test]
    fn ranges_give_exactly_what_was_asked_for() {
        let found = nearest_of("video/x-raw,width=[2,4096],height=[1,4096],framerate=[1/1,60/1]");
        assert_eq!(
            found,
            "video/x-raw, width=(int)1280, height=(int)720, framerate=(fraction)30/1"
        );
    }

    #[test]
    fn a_small_camera_gives_its_largest_mode() {
        let found = nearest_of(
            "video/x-raw,width=320,height=180,framerate=30/1;video/x-raw,width=640,height=360,framerate=30/1",
        );
        assert!(found.contains("width=(int)640"), "{found}");
    }

    #[test]
    fn a_device_without_pictures_has_no_mode() {
        assert_eq!(nearest_of("video/x-h264,width=1280,height=720,framerate=30/1"), "none");
    }

    #[test]
    fn modes_are_listed_largest_first_and_once() {
        crate::init().unwrap();
        let caps = "video/x-raw,format=YUY2,width=640,height=480,framerate={ (fraction)30/1, (fraction)15/1 };\
                    video/x-raw,format=NV12,width=640,height=480,framerate=30/1;\
                    image/jpeg,width=1920,height=1080,framerate=30000/1001";
        assert_eq!(list(&gst::Caps::from_str(caps).unwrap()), ["1920x1080@29.97", "640x480@30"]);
    }
}

//! Everything that a node knows at one number, in parts that a slow socket can take one by one.
//!
//! Owns the form of a snapshot. Does not own when one is due.

use std::collections::BTreeMap;

use axum::extract::ws::Utf8Bytes;
use serde_json::json;

use super::{Kind, Objects};

/// Bytes of objects from which on a part is full: what one follower may hold of a snapshot in the
/// memory of the node.
pub const PART_BYTES: usize = 64 * 1024;

/// All objects as of number `seq`, as frames.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// The latest number that it tells of.
    pub seq: u64,
    /// Its frames: one `snapshot`, then each `part`, all but the last of them with `"more": true`.
    pub parts: Vec<Utf8Bytes>,
}

impl Snapshot {
    pub(super) fn of(instance: &str, seq: u64, objects: &Objects) -> Self {
        let mut writer =
            Writer { instance, seq, parts: Vec::new(), by_kind: all_kinds(), bytes: 0 };
        for ((kind, _), object) in objects {
            if writer.bytes >= PART_BYTES {
                writer.close(true);
            }
            let object = object.to_string();
            writer.bytes += object.len();
            writer.by_kind.entry(kind.word()).or_default().push(object);
        }
        writer.close(false);
        Self { seq, parts: writer.parts }
    }
}

type ByKind = BTreeMap<&'static str, Vec<String>>;

/// The first part names every kind, also those of which there is nothing.
fn all_kinds() -> ByKind {
    Kind::ALL.iter().map(|kind| (kind.word(), Vec::new())).collect()
}

struct Writer<'a> {
    instance: &'a str,
    seq: u64,
    parts: Vec<Utf8Bytes>,
    by_kind: ByKind,
    bytes: usize,
}

impl Writer<'_> {
    fn close(&mut self, more: bool) {
        let (instance, seq) = (json!(self.instance), self.seq);
        let head = if self.parts.is_empty() {
            format!(r#"{{"type":"snapshot","instance":{instance},"#)
        } else {
            r#"{"type":"part","#.to_owned()
        };
        let kinds = std::mem::take(&mut self.by_kind).into_iter();
        let kinds = kinds.map(|(kind, list)| format!(r#""{kind}":[{}]"#, list.join(",")));
        let objects = kinds.collect::<Vec<_>>().join(",");
        let text = format!(r#"{head}"seq":{seq},"more":{more},"objects":{{{objects}}}}}"#);
        self.parts.push(text.into());
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn parse(snapshot: &Snapshot) -> Vec<Value> {
        snapshot.parts.iter().map(|part| serde_json::from_str(part).unwrap()).collect()
    }

    #[test]
    fn little_is_told_in_one_frame_that_names_every_kind() {
        let objects = [((Kind::Stream, "a".into()), json!({"id": "a"}))].into();
        let parts = parse(&Snapshot::of("one\"", 7, &objects));
        let none = json!([]);
        let whole = json!({"type": "snapshot", "instance": "one\"", "seq": 7, "more": false,
            "objects": {"node": none, "settings": none, "peer": none, "stream": [{"id": "a"}],
                "stats": none, "ticket": none, "edge": none}});
        assert_eq!(parts, [whole]);
    }

    #[test]
    fn much_is_told_in_parts_of_bounded_size_that_make_up_the_whole() {
        let text = "x".repeat(1_000);
        let object = |n: u32| {
            let kind = if n < 250 { Kind::Peer } else { Kind::Stream };
            ((kind, format!("{n:04}")), json!({"id": format!("{n:04}"), "text": text}))
        };
        let objects: Objects = (0..500).map(object).collect();
        let snapshot = Snapshot::of("one", 7, &objects);
        assert!(snapshot.parts.iter().all(|part| part.len() < PART_BYTES + 4_096));
        let parts = parse(&snapshot);
        let mut seen = Objects::new();
        for (n, part) in parts.iter().enumerate() {
            assert_eq!(part["type"], if n == 0 { "snapshot" } else { "part" });
            assert_eq!((&part["seq"], &part["more"]), (&json!(7), &json!(n + 1 < parts.len())));
            for kind in [Kind::Peer, Kind::Stream] {
                for object in part["objects"][kind.word()].as_array().into_iter().flatten() {
                    let id = object["id"].as_str().unwrap().to_owned();
                    assert!(seen.insert((kind, id), object.clone()).is_none(), "told twice");
                }
            }
        }
        assert_eq!(seen, objects);
    }
}

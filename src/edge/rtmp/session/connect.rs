//! The answer to `connect`: which application this is, and what it can do.
//!
//! Owns that answer. Does not own what follows it.

use super::{APP, Session, State, Step, WINDOW_BYTES};
use crate::edge::rtmp::{
    amf0::Value,
    wire::{Status, kind},
};

/// Codecs of Enhanced RTMP that we name to encoders which look for names; any other travels as well.
const FOURCCS: [&str; 10] =
    ["avc1", "hvc1", "av01", "vp09", "vp08", "mp4a", "Opus", "fLaC", "ac-3", "ec-3"];
/// Enhanced RTMP's `CapsExMask`: multitrack 2, ModEx 4, nanosecond offsets 8: all just travel.
const CAPABILITIES: f64 = 14.0;

impl Session {
    pub(super) fn on_connect(&mut self, call: f64, object: Option<&Value>) {
        let text = |name| object.and_then(|object| object.field(name)).and_then(Value::text);
        let app = text("app").unwrap_or_default();
        let app = app.split('?').next().unwrap_or_default().trim_matches('/');
        if self.state != State::Fresh {
            return self.ignore();
        }
        if app != APP {
            let status = Status {
                level: "error",
                code: "NetConnection.Connect.InvalidApp",
                description: "unknown application: the address is rtmp://HOST:PORT/astral/KEY",
            };
            let bytes = self.speaker.answer("_error", call, &[], &status);
            self.steps.push_back(Step::Send(bytes));
            return self.close("connected to another application");
        }
        self.encoder = text("flashVer").map(|text| text.chars().take(80).collect());
        self.state = State::Connected;
        let window = WINDOW_BYTES.to_be_bytes().to_vec();
        let mut bandwidth = window.clone();
        bandwidth.push(2); // "dynamic"
        let properties = [
            ("fmsVer", Value::Text("FMS/3,0,1,123".into())),
            ("capabilities", Value::Number(31.0)),
            // Enhanced RTMP, "Enhancing NetConnection connect Command": what travels untouched.
            ("fourCcList", Value::List(FOURCCS.map(|code| Value::Text(code.into())).into())),
            ("videoFourCcInfoMap", forwards_any()),
            ("audioFourCcInfoMap", forwards_any()),
            ("capsEx", Value::Number(CAPABILITIES)),
        ];
        let status = Status {
            level: "status",
            code: "NetConnection.Connect.Success",
            description: "connected",
        };
        let speaker = &mut self.speaker;
        let mut bytes = speaker.message(kind::WINDOW, 0, window);
        bytes.extend(speaker.message(kind::BANDWIDTH, 0, bandwidth));
        // Before the answer, which is longer than a chunk of the initial size.
        bytes.extend(speaker.chunk_size());
        bytes.extend(speaker.answer("_result", call, &properties, &status));
        self.steps.push_back(Step::Send(bytes));
    }
}

/// Enhanced RTMP's answer to "what can you do with which codec": forward any.
fn forwards_any() -> Value {
    const CAN_FORWARD: f64 = 4.0;
    Value::Object(vec![("*".to_owned(), Value::Number(CAN_FORWARD))])
}

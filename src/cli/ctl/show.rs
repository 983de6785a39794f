//! The API's answers in words and tables.
//!
//! Owns what people see of each. Does not own the answers.

use serde_json::Value;

use super::table::{facts, table};

/// Digits of an id that a table shows; enough to name it in a command.
const ID_DIGITS: usize = 8;

/// Text as it is; other values as JSON writes them, and null as a dash.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn id(value: &Value) -> String {
    text(value).chars().take(ID_DIGITS).collect()
}

fn list(value: &Value) -> String {
    let words: Vec<String> = items(value).map(text).collect();
    if words.is_empty() { "-".into() } else { words.join(", ") }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn rate(value: &Value) -> String {
    match value.as_u64() {
        Some(bps) if bps >= 10_000_000 => format!("{} Mbit/s", bps / 1_000_000),
        Some(bps) => format!("{} kbit/s", bps / 1_000),
        None => "-".into(),
    }
}

fn size(value: &Value) -> String {
    match value.as_u64() {
        Some(bytes) if bytes >= 10_000_000 => format!("{} MB", bytes / 1_000_000),
        Some(bytes) => format!("{} kB", bytes / 1_000),
        None => "-".into(),
    }
}

fn ms(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".into(), |ms| format!("{ms:.0} ms"))
}

fn mark(value: &Value, yes: &str, no: &str) -> String {
    if value.as_bool() == Some(true) { yes.into() } else { no.into() }
}

/// `GET /node`.
pub fn status(node: &Value) -> String {
    let uplink = &node["uplink"];
    let seconds = node["uptime_s"].as_u64().unwrap_or_default();
    let registration = &node["registration"];
    let supernode = match &registration["supernode"] {
        Value::String(_) => format!(" with {}", id(&registration["supernode"])),
        _ => String::new(),
    };
    let assumed = mark(&uplink["assumed"], " (assumed)", "");
    let usable = rate(&uplink["usable_bps"]);
    facts([
        ("node", text(&node["node_id"])),
        ("peer id", text(&node["peer_id"])),
        ("version", text(&node["version"])),
        ("up for", format!("{} h {} min", seconds / 3_600, seconds / 60 % 60)),
        ("role", text(&node["role"])),
        ("registration", format!("{}{supernode}", text(&registration["state"]))),
        ("reachable", mark(&node["reachable"], "yes", "not by dialling it")),
        ("reach", reach(&node["reach"])),
        ("connected", format!("{} nodes, {} members", node["connected"], node["members"])),
        ("uplink", format!("{} promised of {usable}{assumed}", rate(&uplink["promised_bps"]))),
        ("sent", size(&node["traffic"]["sent_bytes"])),
        ("received", size(&node["traffic"]["received_bytes"])),
        ("publishing", ids(&node["publishing"])),
        ("watching", ids(&node["watching"])),
        ("seeding", ids(&node["seeding"])),
        ("sources", list(&node["sources"])),
        ("listens on", list(&node["listen"])),
        ("api", text(&node["api"])),
        ("rtmp", text(&node["rtmp"])),
    ])
}

/// How others reach the node, in one line.
fn reach(reach: &Value) -> String {
    let transports = reach["transports"].as_object().into_iter().flatten();
    let each: Vec<String> =
        transports.map(|(transport, verdict)| format!("{transport} {}", text(verdict))).collect();
    let relays = items(&reach["relayed"]).count();
    let nat = match reach["nat"].as_str() {
        None | Some("unknown") => "NAT not known yet".to_owned(),
        Some(nat) => format!("NAT {nat}"),
    };
    let parts = [nat, each.join(", "), format!("{relays} relays")];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

fn ids(value: &Value) -> String {
    let ids: Vec<String> = items(value).map(id).collect();
    if ids.is_empty() { "-".into() } else { ids.join(", ") }
}

/// The nodes of `GET /peers`.
pub fn nodes(peers: &Value) -> String {
    let rows = items(peers).map(|peer| {
        [
            id(&peer["id"]),
            mark(&peer["supernode"], "supernode", "node"),
            match (peer["banned"].as_bool(), peer["connected"].as_bool()) {
                (Some(true), _) => "refused".into(),
                (_, Some(true)) => "connected".into(),
                _ => "known".into(),
            },
            ms(&peer["rtt_ms"]),
            text(&peer["addrs"][0]),
        ]
    });
    table(["NODE", "ROLE", "STATE", "RTT", "ADDRESS"], rows, "no other node is known")
}

/// The streams of `GET /streams`.
pub fn streams(streams: &Value) -> String {
    let rows = items(streams).map(|stream| {
        [
            id(&stream["id"]),
            text(&stream["name"]),
            text(&stream["title"]),
            format!("{}{}", text(&stream["role"]), mark(&stream["paused"], ", paused", "")),
            rate(&stream["bitrate_bps"]),
            text(&stream["viewers"]),
        ]
    });
    let heading = ["STREAM", "NAME", "TITLE", "HERE", "RATE", "VIEWERS"];
    table(heading, rows, "no stream is known")
}

/// One stream, with its `stats` where they are there.
pub fn stream(stream: &Value) -> String {
    let mut lines = vec![
        ("stream", text(&stream["id"])),
        ("link", text(&stream["link"])),
        ("name", text(&stream["name"])),
        ("title", text(&stream["title"])),
        ("description", text(&stream["description"])),
        ("tags", list(&stream["tags"])),
        ("here", text(&stream["role"])),
        ("paused", text(&stream["paused"])),
        ("rate", rate(&stream["bitrate_bps"])),
        ("codecs", list(&stream["codecs"])),
        ("stripes", text(&stream["stripes"])),
        ("play", text(&stream["http_flv"])),
    ];
    let stats = &stream["stats"];
    if stats.is_object() {
        let parents: Vec<String> = items(&stats["parents"])
            .map(|parent| format!("{}: {}", parent["stripe"], id(&parent["node"])))
            .collect();
        let children = items(&stats["children"]).count();
        lines.extend([
            ("behind", ms(&stats["delay_ms"])),
            ("bytes", size(&stats["bytes"])),
            ("forwarded", size(&stats["forwarded_bytes"])),
            ("parents", if parents.is_empty() { "-".into() } else { parents.join(", ") }),
            ("children", children.to_string()),
            ("players", text(&stats["readers"])),
            ("failovers", text(&stats["failovers"])),
            ("audience", text(&stats["audience"]["viewers"])),
        ]);
    }
    facts(lines)
}

/// The tickets of `GET /tickets`.
pub fn tickets(tickets: &Value) -> String {
    let rows = items(tickets).map(|ticket| {
        [
            text(&ticket["id"]),
            text(&ticket["end"]),
            id(&ticket["stream"]),
            text(&ticket["stripe"]),
            id(&ticket["node"]),
            mark(&ticket["confirmed"], "in use", "waiting"),
            ms(&ticket["expires_in_ms"]),
        ]
    });
    let heading = ["TICKET", "END", "STREAM", "STRIPE", "NODE", "STATE", "LEASE"];
    table(heading, rows, "no tickets")
}

/// Where to play a stream.
pub fn urls(urls: &Value) -> String {
    let known = |field: &str| match &urls[field] {
        Value::String(url) => Some(url.clone()),
        _ => None,
    };
    let lines = [
        ("stream", known("id")),
        ("link", known("link")),
        ("play", known("http_flv")),
        ("as HLS", known("hls")),
        ("as RTMP", known("rtmp")),
        ("publish", known("publish_url")),
    ];
    facts(lines.into_iter().filter_map(|(what, url)| Some((what, url?))))
}

/// The limits.
pub fn settings(settings: &Value) -> String {
    let limit = |field: &str, none: &str| match &settings[field] {
        Value::Null => none.to_owned(),
        value => text(value),
    };
    let uplink = match &settings["uplink_bps"] {
        Value::Null => "measured".into(),
        value => rate(value),
    };
    facts([
        ("uplink", uplink),
        ("max copies", limit("max_copies", "as the uplink allows")),
        ("max total copies", limit("max_total_copies", "as the uplink allows")),
    ])
}

/// The devices of `GET /devices`.
pub fn devices(devices: &Value) -> String {
    let rows = items(devices)
        .map(|device| [text(&device["kind"]), text(&device["id"]), text(&device["name"])]);
    table(["KIND", "ID", "NAME"], rows, "no cameras, microphones or screens")
}

/// The report of `GET /doctor`.
pub fn doctor(report: &Value) -> String {
    let checks = items(&report["checks"]).map(|check| {
        let mark = match check["verdict"].as_str() {
            Some("ok") => "ok  ",
            Some("warn") => "warn",
            _ => "BAD ",
        };
        let fix = check["fix"].as_str().map(|fix| format!("\n      -> {fix}"));
        let (name, message) = (text(&check["name"]), text(&check["message"]));
        format!("{mark}  {name}: {message}{}", fix.unwrap_or_default())
    });
    checks.collect::<Vec<_>>().join("\n")
}

/// The lines of `GET /logs`.
pub fn logs(logs: &Value) -> String {
    items(&logs["lines"]).map(text).collect::<Vec<_>>().join("\n")
}

/// A recording that began, or what one came to.
pub fn recording(made: &Value) -> String {
    let files = items(&made["files"]).map(|file| ("file", text(file)));
    let folder = made["folder"].as_str().map(|folder| ("recording to", folder.to_owned()));
    facts(folder.into_iter().chain(files).chain([("bytes", size(&made["bytes"]))]))
}

/// The edges of `GET /graph`.
pub fn graph(graph: &Value) -> String {
    let rows = items(&graph["edges"]).map(|edge| {
        [
            text(&edge["kind"]),
            id(&edge["from"]),
            id(&edge["to"]),
            id(&edge["stream"]),
            text(&edge["stripe"]),
        ]
    });
    table(["EDGE", "FROM", "TO", "STREAM", "STRIPE"], rows, "this node is alone")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_known_of_a_nodes_reach_leaves_no_gap() {
        let line = reach(&json!({"nat": "unknown", "transports": {}, "relayed": []}));
        assert_eq!(line, "NAT not known yet; 0 relays");
        let line = reach(&json!({"nat": "easy", "transports": {"tcp": "public"}, "relayed": []}));
        assert_eq!(line, "NAT easy; tcp public; 0 relays");
    }
}
